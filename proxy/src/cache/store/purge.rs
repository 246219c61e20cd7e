//! What has been purged, as far as somebody may still come with what was asked for before.
//!
//! What is stored when something is purged is looked for and removed. But a response that is on its
//! way just then is as old, and would come in behind that. So whoever stores has a number for the
//! time at which it asked ([`Epochs::now`]), and is refused if a purge since then means it. The
//! list has a bound: what falls out of it is taken to have meant everything.
//!
//! Implements: REQ-CACHE-004

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::*},
    },
};

use super::key::Key;

/// What to purge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// All that is stored.
    All,
    /// Every head whose text begins so.
    Prefix(Box<str>),
    /// Every head that has the tag.
    Tag(Box<str>),
}

impl What {
    /// What its meaning depends on, beside its kind.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::All => "",
            Self::Prefix(text) | Self::Tag(text) => text,
        }
    }

    /// Whether a head is meant.
    pub(super) fn means<'a>(&self, text: &str, tags: impl IntoIterator<Item = &'a str>) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Tag(tag) => tags.into_iter().any(|other| *other == **tag),
        }
    }
}

/// Purges that are remembered for those on their way.
const REMEMBERED: usize = 256;

/// Keys that were removed are remembered by a number of buckets. Two in one bucket: a response is
/// not stored that could have been.
const BUCKETS: usize = 4096;

/// Times, counted in purges and removals.
#[derive(Debug)]
pub(super) struct Epochs {
    now: AtomicU64,
    /// The last purge, and what was asked for before is not stored without a look at the list.
    last: AtomicU64,
    list: Mutex<List>,
    removed: Box<[AtomicU64]>,
}

#[derive(Debug, Default)]
struct List {
    purges: VecDeque<(u64, What)>,
    /// What was asked for before this is refused.
    floor: u64,
}

impl Epochs {
    pub(super) fn new() -> Self {
        Self {
            now: AtomicU64::new(1),
            last: AtomicU64::new(0),
            list: Mutex::default(),
            removed: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The time, for somebody who asks for a response now.
    pub(super) fn now(&self) -> u64 {
        self.now.load(SeqCst)
    }

    /// From now on `what` is not stored if it was asked for before. What is stored is to be
    /// removed after this call.
    pub(super) fn purge(&self, what: What) {
        let mut list = self.list();
        let epoch = self.now.fetch_add(1, SeqCst) + 1;
        if what == What::All {
            list.purges.clear();
            list.floor = epoch;
        } else {
            list.purges.push_back((epoch, what));
        }
        while list.purges.len() > REMEMBERED {
            if let Some((epoch, _)) = list.purges.pop_front() {
                list.floor = epoch;
            }
        }
        self.last.store(epoch, SeqCst);
    }

    /// The same for one key.
    pub(super) fn remove(&self, key: Key) {
        let epoch = self.now.fetch_add(1, SeqCst) + 1;
        self.bucket(key).fetch_max(epoch, SeqCst);
    }

    /// Whether what was asked for at `epoch` may be stored.
    pub(super) fn allow<'a>(
        &self,
        epoch: u64,
        key: Key,
        text: &str,
        tags: impl Iterator<Item = &'a str> + Clone,
    ) -> bool {
        if self.bucket(key).load(SeqCst) > epoch {
            return false;
        }
        if self.last.load(SeqCst) <= epoch {
            return true;
        }
        let list = self.list();
        list.floor <= epoch
            && !list.purges.iter().any(|(at, what)| *at > epoch && what.means(text, tags.clone()))
    }

    fn bucket(&self, key: Key) -> &AtomicU64 {
        &self.removed[key.0 as usize % BUCKETS]
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;

    fn allows(epochs: &Epochs, at: u64, text: &str, tags: &[&str]) -> bool {
        epochs.allow(at, Key::of(text), text, tags.iter().copied())
    }

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn what_was_asked_for_before_a_purge_is_not_stored_after_it() {
        let epochs = Epochs::new();
        let before = epochs.now();
        epochs.purge(What::Prefix("https://a/x/".into()));
        epochs.purge(What::Tag("red".into()));
        epochs.remove(Key::of("https://a/one"));
        for (text, tags, expected) in [
            ("https://a/x/1", &[][..], false),
            ("https://a/x", &[], true),
            ("https://a/y", &["blue", "red"], false),
            ("https://a/y", &["redder"], true),
            ("https://a/one", &[], false),
        ] {
            assert_eq!(allows(&epochs, before, text, tags), expected, "{text} {tags:?}");
            assert!(allows(&epochs, epochs.now(), text, tags), "asked for since: {text}");
        }
        epochs.purge(What::All);
        assert!(!allows(&epochs, before, "https://a/y", &[]));
    }

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn what_is_forgotten_of_purges_is_taken_to_mean_everything() {
        let epochs = Epochs::new();
        let first = epochs.now();
        epochs.purge(What::Tag("gone".into()));
        let second = epochs.now();
        for tag in 0..REMEMBERED {
            epochs.purge(What::Tag(format!("tag {tag}").into()));
        }
        assert!(epochs.list().purges.len() <= REMEMBERED);
        assert!(!allows(&epochs, first, "https://a/", &["other"]));
        assert!(allows(&epochs, second, "https://a/", &["other"]));
        assert!(!allows(&epochs, second, "https://a/", &["tag 255"]));
    }
}
