//! How much a store has, and what has happened in it.

/// How much is stored, and what has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// What is held in memory, by the tier and by whoever still has what it gave.
    pub memory_bytes: u64,
    /// What the entries' memory takes of the system, with what of it is free.
    pub memory_resident_bytes: u64,
    /// Of what is held, what is listed and can be evicted.
    pub memory_listed_bytes: u64,
    /// Responses in memory.
    pub memory_objects: u64,
    /// Responses and blocks in memory.
    pub memory_entries: u64,
    /// Entries that left memory for others.
    pub memory_evictions: u64,
    /// What was to be stored and found no room in memory.
    pub memory_refusals: u64,
    /// The same of the disk; `None` if there is none.
    pub disk: Option<DiskStatistics>,
    /// The same of what a fleet shares; `None` if it shares nothing.
    pub fleet: Option<FleetStatistics>,
}

/// How much is on the disk, and what has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStatistics {
    /// Whether it can be read and be written at this time.
    pub works: bool,
    /// Bytes of its files.
    pub bytes: u64,
    /// Responses.
    pub objects: u64,
    /// Responses and blocks.
    pub entries: u64,
    /// Bytes of memory that the index takes.
    pub index_bytes: u64,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// Records that are to be read.
    pub queued_reads: u64,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Records that were read, and went to memory.
    pub promotions: u64,
    /// Records that were found where they are, and not read.
    pub in_files: u64,
    /// Segments that made room for others.
    pub evictions: u64,
    /// What was to be written and found no room in the queue, or no disk.
    pub dropped: u64,
    /// What was to be read and found too many waiting, or no memory.
    pub busy: u64,
    /// Records that were not what had been written.
    pub damaged: u64,
    /// Reads and writes that failed.
    pub errors: u64,
}

/// What this process has had of what a fleet shares, and has given to it, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FleetStatistics {
    /// Whether the service answers, in time.
    pub works: bool,
    /// Responses and blocks that it had.
    pub hits: u64,
    /// Those that it had not.
    pub misses: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Responses and blocks that were written.
    pub writes: u64,
    /// Bytes of these.
    pub written_bytes: u64,
    /// Bytes of memory that wait to be written.
    pub queued_bytes: u64,
    /// What is asked for at this time.
    pub queued_reads: u64,
    /// What was to be written or removed, and found no room in the queue, or no service.
    pub dropped: u64,
    /// What was to be read and found too many waiting, or no memory.
    pub busy: u64,
    /// What was not what had been written, or of another version.
    pub damaged: u64,
    /// What was not taken, for it was purged, over, or too old.
    pub refused: u64,
    /// Reads and writes that failed, or took too long.
    pub errors: u64,
}
