//! How far each segment of a folder has been sent.

use std::{
    collections::{BTreeMap, BTreeSet},
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
pub(in crate::record) struct Cursor {
    directory: PathBuf,
    /// Bytes of each segment, by its name, that the server has taken.
    sent: BTreeMap<String, u64>,
}

impl Cursor {
    /// As it was stored; at the beginning of everything, if it was not.
    pub(in crate::record) fn load(directory: &Path) -> Self {
        let text = fs::read(directory.join(FILE)).unwrap_or_default();
        Self {
            directory: directory.to_owned(),
            sent: serde_json::from_slice(&text).unwrap_or_default(),
        }
    }

    /// Whether the server has taken all of a segment of this size.
    pub(in crate::record) fn has_sent(&self, segment: &Path, size: u64) -> bool {
        self.sent.get(&name(segment)).copied().unwrap_or_default() >= size
    }

    /// Stores it, all of it or nothing.
    pub(super) fn store(&self) -> io::Result<()> {
        let (path, new) = (self.directory.join(FILE), self.directory.join("shipped.new"));
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        io::Write::write_all(&mut file, serde_json::to_string(&self.sent)?.as_bytes())?;
        fs::rename(new, path)
    }

    /// Appends the next lines, about so many bytes, and goes on behind them.
    pub(super) fn read(&mut self, most: usize, lines: &mut Vec<u8>) -> io::Result<()> {
        let segments = list(&self.directory)?;
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
        let now: BTreeSet<String> = segments.iter().map(|(path, _)| name(path)).collect();
        self.sent.retain(|name, _| now.contains(name));
        Ok(())
    }
}

fn name(segment: &Path) -> String {
    segment.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
