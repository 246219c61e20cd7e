//! The folder of a recorder: a place for it, and what is in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use underpass::record::read::{Damage, Lookup, Record, assemble};

use crate::{clock::eventually, proxy::scratch};

/// A folder that is removed with the value.
#[derive(Debug)]
pub struct Records(PathBuf);

impl Default for Records {
    fn default() -> Self {
        Self(scratch("records"))
    }
}

impl Records {
    /// One at this place.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `--record` with it.
    pub fn args(&self) -> [String; 2] {
        ["--record".to_owned(), self.0.display().to_string()]
    }

    /// `[record]` with it, and more keys.
    pub fn section(&self, more: &str) -> String {
        format!("[record]\ndirectory = \"{}\"\n{more}\n", self.0.display())
    }

    /// All records, and what could not be read.
    pub fn read(&self) -> (Vec<Record>, Damage) {
        let (records, _, damage) = assemble(&self.0, Lookup::All).expect("a readable folder");
        (records, damage)
    }

    /// All records.
    pub fn all(&self) -> Vec<Record> {
        self.read().0
    }

    /// Waits until so many records have ended, and gives all.
    pub async fn ended(&self, count: usize) -> Vec<Record> {
        let ended = || {
            let Ok((records, _, _)) = assemble(&self.0, Lookup::Heads) else { return 0 };
            records.iter().filter(|record| record.end.is_some()).count()
        };
        eventually(&format!("{count} records"), async || ended() >= count).await;
        self.all()
    }

    /// Waits for the only record.
    pub async fn only(&self) -> Record {
        let mut records = self.ended(1).await;
        assert_eq!(records.len(), 1, "{records:#?}");
        records.remove(0)
    }

    /// Every byte that has been stored.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.0).expect("a folder").flatten() {
            all.extend(fs::read(entry.path()).expect("a readable segment"));
        }
        all
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
