//! What has been purged of what is on the disk.
//!
//! Heads on the disk are known by a hash of their text, so a purge by prefix or tag cannot find
//! them. It is written down, with the place up to which records are meant, and a head that is read
//! from before that is compared. When no segment is left that begins before, the purge is
//! forgotten. There is a bound: of too many the older half becomes one that means everything.
//!
//! A purge is in its file, synced, before anybody is told that it is done.
//!
//! Implements: REQ-CACHE-004

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::*},
    },
};

use super::segment::Position;
use crate::cache::store::{purge::What, purge_record, record::HEADER};

/// So many are kept, or texts of so many bytes.
const MOST: usize = 4096;
const MOST_BYTES: usize = 1 << 20;

/// The list.
#[derive(Debug, Default)]
pub(super) struct Purges {
    list: Mutex<Vec<Purge>>,
    count: AtomicUsize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Purge {
    what: What,
    /// Records before this are meant; all of them as long as it is not known.
    until: Option<Position>,
}

impl Purges {
    /// All that is on the disk now is meant, as far as it is meant.
    pub(super) fn begin(&self, what: What) {
        let mut list = self.lock();
        list.push(Purge { what, until: None });
        self.count.store(list.len(), SeqCst);
    }

    /// What lies behind this was asked for later than `what`.
    pub(super) fn end(&self, what: &What, until: Position) {
        let mut list = self.lock();
        if let Some(purge) = list.iter_mut().find(|p| p.until.is_none() && p.what == *what) {
            purge.until = Some(until);
        }
    }

    /// Whether a head is purged that lies there.
    pub(super) fn mean<'a>(
        &self,
        at: Position,
        text: &str,
        tags: impl Iterator<Item = &'a str> + Clone,
    ) -> bool {
        if self.count.load(SeqCst) == 0 {
            return false;
        }
        let is_before = |purge: &Purge| purge.until.is_none_or(|until| at < until);
        self.lock().iter().any(|purge| is_before(purge) && purge.what.means(text, tags.clone()))
    }

    /// Forgets those that mean nothing any more, as the oldest segment is this one; and makes one
    /// of many where there are too many. Whether anything has changed.
    pub(super) fn settle(&self, oldest: u64) -> bool {
        let mut list = self.lock();
        let before = list.len();
        list.retain(|purge| purge.until.is_none_or(|until| until > (oldest, 0)));
        let bytes = list.iter().map(Purge::bytes).sum::<usize>();
        if list.len() > MOST || bytes > MOST_BYTES {
            let half = list.len().div_ceil(2);
            let until = list[..half].iter().filter_map(|purge| purge.until).max();
            let mut rest: Vec<_> = list.drain(..half).filter(|p| p.until.is_none()).collect();
            list.append(&mut rest);
            list.extend(until.map(|until| Purge { what: What::All, until: Some(until) }));
        }
        self.count.store(list.len(), SeqCst);
        list.len() != before
    }

    /// Whether some have to be made one.
    pub(super) fn are_too_many(&self) -> bool {
        let list = self.lock();
        list.len() > MOST || list.iter().map(Purge::bytes).sum::<usize>() > MOST_BYTES
    }

    /// The first segment that none of them means. One of which they mean nothing but its header is
    /// not passed over: a number that is missing is taken for a segment that was lost.
    pub(super) fn next_segment(&self) -> u64 {
        let behind = |until: Position| until.0 + u64::from(until.1 > HEADER as u64);
        let list = self.lock();
        list.iter().filter_map(|purge| purge.until).map(behind).max().unwrap_or(0)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// Those that the file knows take the place of those that were known before, but not of those
    /// whose place is not known yet.
    pub(super) fn load(&self, file: &PurgeFile) -> io::Result<bool> {
        let (found, is_whole) = file.read()?;
        let mut list = self.lock();
        list.retain(|purge| purge.until.is_none());
        list.extend(found);
        self.count.store(list.len(), SeqCst);
        Ok(is_whole)
    }

    /// Writes the file anew.
    pub(super) fn store(&self, file: &PurgeFile) -> io::Result<()> {
        let list: Vec<Purge> = self.lock().clone();
        file.rewrite(&list)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Purge>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Purge {
    fn bytes(&self) -> usize {
        self.what.text().len()
    }

    /// Nothing as long as its place is not known.
    fn encode(&self, out: &mut Vec<u8>) {
        if let Some((segment, offset)) = self.until {
            purge_record::encode([segment, offset], &self.what, out);
        }
    }
}

/// The file of a folder that has them.
#[derive(Debug)]
pub(super) struct PurgeFile(PathBuf);

impl PurgeFile {
    pub(super) fn of(directory: &Path) -> Self {
        Self(directory.join("purges"))
    }

    /// Appends one; it is on the disk when this returns.
    ///
    /// # Errors
    /// As open(2), write(2), fsync(2).
    pub(super) fn append(&self, what: &What, until: Position) -> io::Result<()> {
        let mut bytes = Vec::new();
        Purge { what: what.clone(), until: Some(until) }.encode(&mut bytes);
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.0)?;
        let before = file.metadata()?.len();
        let wrote = file.write_all(&bytes).and_then(|()| file.sync_all());
        if wrote.is_err() {
            // Half of one would hide those that come behind it.
            file.set_len(before)?;
        }
        wrote?;
        if before == 0 { self.sync_folder() } else { Ok(()) }
    }

    fn rewrite(&self, list: &[Purge]) -> io::Result<()> {
        let mut bytes = Vec::new();
        list.iter().for_each(|purge| purge.encode(&mut bytes));
        let beside = self.0.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.0)?;
        self.sync_folder()
    }

    /// Those in the file, and whether that is all there was: a torn end is nobody's, for nobody
    /// was told that it is done, but damage before others may have been any.
    fn read(&self) -> io::Result<(Vec<Purge>, bool)> {
        let bytes = match fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let (found, is_whole) = purge_record::decode(&bytes);
        let purge = |([segment, offset], what): ([u64; 2], What)| Purge {
            what,
            until: Some((segment, offset)),
        };
        Ok((found.into_iter().map(purge).collect(), is_whole))
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.0.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn a_purge_means_what_lies_before_it() {
        let purges = Purges::default();
        assert!(!purges.mean((1, 0), "https://a/1", [].into_iter()));
        let what = What::Prefix("https://a/".into());
        purges.begin(what.clone());
        assert!(
            purges.mean((9, 9), "https://a/1", [].into_iter()),
            "as long as its place is not known"
        );
        assert!(!purges.settle(100));
        purges.end(&what, (5, 128));
        for (at, text, expected) in [
            ((5, 64), "https://a/1", true),
            ((5, 64), "https://b/1", false),
            ((5, 128), "https://a/1", false),
            ((4, 1 << 20), "https://a/1", true),
            ((6, 0), "https://a/1", false),
        ] {
            assert_eq!(purges.mean(at, text, [].into_iter()), expected, "{at:?} {text}");
        }
        assert!(!purges.settle(5));
        assert!(purges.settle(6));
        assert_eq!(purges.len(), 0);
    }

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn too_many_purges_become_one_that_means_more_and_never_less() {
        let purges = Purges::default();
        for number in 0..=MOST as u64 {
            let what = What::Tag(format!("tag{number}").into());
            purges.begin(what.clone());
            purges.end(&what, (number + 1, 0));
        }
        assert!(purges.settle(0));
        assert!(purges.len() < MOST * 3 / 4);
        for number in [1, 100, MOST as u64 / 2, MOST as u64] {
            let tag = format!("tag{number}");
            assert!(purges.mean((number, 9), "", [&*tag].into_iter()), "{number}");
        }
        assert!(!purges.mean((MOST as u64 + 1, 0), "", ["tag7"].into_iter()));
    }
}
