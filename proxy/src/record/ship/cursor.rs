//! How far each segment of a folder has been sent.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::record::{
    read::{Damage, segment},
    write::list,
};

/// The name of the file.
const FILE: &str = "shipped.json";

/// How far segments have been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    directory: PathBuf,
    /// Bytes of each segment, by its name, that the server has taken.
    sent: BTreeMap<String, u64>,
    /// How large each was when it was looked at last.
    seen: BTreeMap<String, u64>,
}

impl Cursor {
    /// As it was stored; at the beginning of everything, if it was not.
    pub(super) fn load(directory: &Path) -> Self {
        let text = fs::read(directory.join(FILE)).unwrap_or_default();
        Self {
            directory: directory.to_owned(),
            sent: serde_json::from_slice(&text).unwrap_or_default(),
            seen: BTreeMap::new(),
        }
    }

    /// Stores it, all of it or nothing.
    pub(super) fn store(&self) -> io::Result<()> {
        let (path, new) = (self.directory.join(FILE), self.directory.join("shipped.new"));
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        io::Write::write_all(&mut file, serde_json::to_string(&self.sent)?.as_bytes())?;
        fs::rename(new, path)
    }

    /// Appends the next lines, about so many bytes, and goes on behind them. Returns how many
    /// segments have been removed before all that was seen of them was sent.
    pub(super) fn read(&mut self, most: usize, lines: &mut Vec<u8>) -> io::Result<u64> {
        let segments = list(&self.directory)?;
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (path, size) in &segments {
            let mut place = self.sent.get(&name(path)).copied().unwrap_or_default();
            if place < *size {
                let mut damage = Damage::default();
                let read = segment(path, &mut place, &mut damage, &mut |line| {
                    lines.extend_from_slice(line);
                    lines.push(b'\n');
                    match lines.len() < most {
                        true => ControlFlow::Continue(()),
                        false => ControlFlow::Break(()),
                    }
                });
                match read {
                    // Removed meanwhile to make room.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    read => _ = read?,
                }
            }
            self.sent.insert(name(path), place);
            if lines.len() >= most {
                break;
            }
        }
        let now: BTreeMap<String, u64> =
            segments.iter().map(|(path, size)| (name(path), *size)).collect();
        let unsent = |(name, size): &(&String, &u64)| {
            !now.contains_key(*name) && self.sent.get(*name).is_none_or(|sent| sent < *size)
        };
        let lost = self.seen.iter().filter(unsent).count() as u64;
        self.sent.retain(|name, _| now.contains_key(name));
        self.seen = now;
        Ok(lost)
    }
}
