//! How much of everything a row takes, whole and quick. Pure.

use anyhow::ensure;

use super::{
    cells::{Engine, Row},
    conf::Needs,
};

const MIB: u64 = 1 << 20;
/// The largest working set: with what files take beside their bytes, below 12 GB.
const MOST_SET_BYTES: u64 = 10_000_000_000;
const QUICK_SET_BYTES: u64 = 400_000_000;
/// Files may take so much more than the bytes of a working set, in percent.
const DISK_PERCENT: u64 = 112;
/// Memory that ours may take for its index of the disk: its default.
const INDEX_BYTES: u64 = 64 * MIB;

/// The sizes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    quick: bool,
    set_bytes: u64,
}

/// Many that read one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowd {
    pub(crate) readers: u32,
    /// Of the object.
    pub(crate) bytes: u64,
    /// MB a second that the origin sends.
    pub(crate) rate: u64,
}

impl Sizes {
    /// `gigabytes`: of the working set, if not the default.
    ///
    /// # Errors
    /// If that is more than a run may have.
    pub(crate) fn new(quick: bool, gigabytes: Option<f64>) -> anyhow::Result<Self> {
        let default = if quick { QUICK_SET_BYTES } else { MOST_SET_BYTES };
        let set_bytes = gigabytes.map_or(default, |gigabytes| (gigabytes * 1e9) as u64);
        let most = if quick { 1_000_000_000 } else { MOST_SET_BYTES };
        ensure!(
            (20_000_000..=most).contains(&set_bytes),
            "--gigabytes is from 0.02 to {}{}",
            most / 1_000_000_000,
            if quick { " with --quick" } else { "" }
        );
        Ok(Self { quick, set_bytes })
    }

    fn size(self, whole: u64, quick: u64) -> u64 {
        if self.quick { quick } else { whole }
    }

    /// Bytes of one object.
    pub(crate) fn bytes(self, row: Row) -> u64 {
        match row {
            Row::Hit1k | Row::Miss => 1_000,
            Row::Hit64k | Row::Disk64k | Row::Set => 64_000,
            Row::Partial => self.size(128 * MIB, 16 * MIB),
            Row::Join => self.crowd().bytes,
        }
    }

    /// Objects that are asked for in turns.
    pub(crate) fn objects(self, row: Row) -> u64 {
        match row {
            Row::Hit1k => 1_000,
            Row::Hit64k => 500,
            Row::Disk64k => self.size(2_000, 500),
            Row::Set => self.set_bytes / self.bytes(Row::Set),
            Row::Miss | Row::Partial | Row::Join => 1,
        }
    }

    /// Misses before those that are measured.
    pub(crate) fn warm_up(self) -> u64 {
        self.size(5_000, 500)
    }

    /// Who reads in `join`.
    pub(crate) fn crowd(self) -> Crowd {
        let (bytes, rate) = if self.quick { (64_000_000, 32) } else { (1_000_000_000, 100) };
        Crowd { readers: 100, bytes, rate }
    }

    /// What a cache gets.
    pub(crate) fn needs(self, row: Row, engine: Engine) -> Needs {
        let all = self.objects(row) * self.bytes(row);
        // Varnish has to hold what it sends.
        let whole = engine == Engine::Varnish;
        let (memory, disk) = match row {
            Row::Hit1k | Row::Hit64k => (256 * MIB, 1024 * MIB),
            Row::Disk64k => (all / 16, 2 * all),
            Row::Miss => (256 * MIB, self.size(2048 * MIB, 512 * MIB)),
            Row::Partial => (4 * all, 8 * all),
            Row::Join if whole => (2 * all, 0),
            Row::Join => (all / 4, 2 * all),
            Row::Set => (all / 10, all * DISK_PERCENT / 100),
        };
        let disk = disk.max(64 * MIB);
        Needs { memory: memory.max(2 * MIB), disk, slices: row == Row::Partial }
    }

    /// What a cache may hold in memory by its configuration; nginx is not told of any.
    pub(crate) fn budget(self, row: Row, engine: Engine) -> Option<u64> {
        let memory = self.needs(row, engine).memory;
        match engine {
            Engine::Memory | Engine::Bypass | Engine::Varnish => Some(memory),
            Engine::Disk => Some(memory + INDEX_BYTES),
            _ => None,
        }
    }

    /// Bytes of disk that a row takes at most: one cache at a time in the large ones.
    pub(crate) fn disk(self, row: Row) -> u64 {
        let files = |engine: &&Engine| matches!(engine, Engine::Disk | Engine::Nginx);
        let each = self.needs(row, Engine::Disk).disk;
        match row {
            Row::Join | Row::Set => each,
            _ => each * row.engines().iter().filter(files).count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::conf::BLOCK_BYTES;

    #[test]
    fn no_row_takes_more_disk_than_it_may() {
        let sizes = |quick| Sizes::new(quick, None).unwrap();
        for row in Row::ALL {
            assert!(sizes(false).disk(row) < 12_000_000_000, "{row}");
            assert!(sizes(true).disk(row) < 2_000_000_000, "{row}");
        }
    }

    #[test]
    fn the_working_set_is_larger_than_memory_and_fits_on_the_disk() {
        for (quick, gigabytes) in [(false, None), (true, None), (false, Some(0.5))] {
            let sizes = Sizes::new(quick, gigabytes).unwrap();
            let all = sizes.objects(Row::Set) * sizes.bytes(Row::Set);
            let needs = sizes.needs(Row::Set, Engine::Disk);
            assert!(needs.memory * 9 < all && needs.disk > all, "{needs:?}");
            assert_eq!(sizes.budget(Row::Set, Engine::Memory), Some(needs.memory));
            assert_eq!(sizes.budget(Row::Set, Engine::Nginx), None);
        }
        assert!(Sizes::new(false, Some(11.0)).is_err() && Sizes::new(true, Some(2.0)).is_err());
    }

    #[test]
    fn half_of_the_blocks_are_whole_ones() {
        let sizes = Sizes::new(true, None).unwrap();
        // Ranges have four of them.
        assert_eq!(sizes.bytes(Row::Partial) % (4 * BLOCK_BYTES), 0);
    }
}
