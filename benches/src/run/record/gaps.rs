//! What is in a folder of records, and what is not.

use std::{fmt, path::Path};

use anyhow::ensure;
use underpass::record::read::{Lookup, Record, assemble};

use super::targets::Target;
use crate::stats::Table;

/// Counts of a folder.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// Records that have begun.
    records: usize,
    /// Of these, those of whom nothing is missing. Those of streams that the bench leaves are ended
    /// by the client, and whole as well.
    whole: usize,
    /// Body bytes that are marked as missing.
    pub(super) bytes: u64,
    /// Exchanges without a record.
    unrecorded: u64,
    /// Records that began and neither end nor are marked.
    open: usize,
}

impl Gaps {
    fn of(records: &[Record], unrecorded: u64) -> Self {
        let count = |which: fn(&Record) -> bool| records.iter().filter(|one| which(one)).count();
        Self {
            records: records.len(),
            whole: count(Record::is_whole),
            bytes: records.iter().map(Record::missing_bytes).sum(),
            unrecorded,
            open: count(|record| record.end.is_none()),
        }
    }

    /// Whether everything is there.
    pub(super) fn is_none(&self) -> bool {
        self.bytes == 0 && self.unrecorded == 0 && self.whole + self.open == self.records
    }

    fn cells(&self) -> [String; 5] {
        let Self { records, whole, bytes, unrecorded, open } = self;
        [
            records.to_string(),
            whole.to_string(),
            open.to_string(),
            bytes.to_string(),
            unrecorded.to_string(),
        ]
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, whole, bytes, unrecorded, open } = self;
        write!(
            f,
            "of {records} records {whole} are whole and {open} have no end, {bytes} bytes are \
             missing, {unrecorded} exchanges have none"
        )
    }
}

/// Of a folder whose last batch has been written.
///
/// # Errors
/// If it cannot be read, or lines in it are none.
pub(super) fn gaps(folder: &Path) -> anyhow::Result<Gaps> {
    let (records, unrecorded, damage) = assemble(folder, Lookup::Heads)?;
    ensure!(damage.unreadable == 0, "{} lines cannot be read", damage.unreadable);
    Ok(Gaps::of(&records, unrecorded))
}

/// What has been recorded so far, and that it is whole.
///
/// # Errors
/// If something is missing: the recorder did less work than it was compared by.
pub(super) fn told(targets: &[Target]) -> anyhow::Result<()> {
    let mut table =
        Table::new(["target", "records", "whole", "going on", "missing bytes", "unrecorded"]);
    let mut lost = Vec::new();
    // The last batch is written within this time, in which clients that left are noticed.
    std::thread::sleep(std::time::Duration::from_millis(500));
    for target in targets.iter().filter(|target| target.is_ours) {
        let Some(folder) = &target.folder else { continue };
        let found = gaps(folder)?;
        let mut row = vec![target.name.to_owned()];
        row.extend(found.cells());
        table.row(row);
        if !found.is_none() {
            lost.push(format!("{}: {found}", target.name));
        }
    }
    println!("record, what is in the folders after all this\n");
    table.print();
    ensure!(lost.is_empty(), "{}", lost.join("; "));
    Ok(())
}
