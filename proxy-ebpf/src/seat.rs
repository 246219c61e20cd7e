//! One worker behind one listener, as `up_steer` and the proxy see it.
//!
//! The array of seats is mapped by the proxy, so that a worker says what it has to do without
//! a system call. Invariant: each word has one writing side, and what a lost or late write
//! makes wrong is put right by the worker within two of its ticks
//! (`proxy/src/listener/steer.rs`).

/// What steering goes by. Worker and program write to cache lines of their own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Seat {
    /// Worker: what it has to do: its open connections, those of other listeners included.
    pub load: u64,
    /// Worker: connections that it has taken of [`given`](Self::given).
    pub taken: u64,
    /// Worker: not 0 when it takes no more connections.
    pub closed: u64,
    /// Unused.
    pub reserved: [u64; 5],
    /// Program: connections (SYN segments) that it chose this seat for. CPUs that choose at
    /// the same moment may lose one of their additions: it is not worth an atomic one.
    pub given: u64,
    /// Unused.
    pub reserved_program: [u64; 7],
}

/// Seats of one listener at most: the program looks at all of them, and the verifier at each
/// turn of its loop.
pub const MAX_SEATS: u32 = 256;

/// [`STEER_MODE`](crate::names::STEER_MODE): the worker of the CPU comes first.
pub const BY_CPU: u32 = 1;

/// What became of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Choice {
    /// The worker with the least to do.
    Load = 0,
    /// The worker that is pinned to the CPU.
    Cpu = 1,
    /// No socket was found: the kernel's own hash.
    Hash = 2,
    /// No worker takes connections any more: refused, as without a listener.
    Refused = 3,
}

impl Choice {
    /// All of them, in the order of their numbers.
    pub const ALL: [Choice; 4] = [Choice::Load, Choice::Cpu, Choice::Hash, Choice::Refused];

    /// What it is called in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Choice::Load => "load",
            Choice::Cpu => "cpu",
            Choice::Hash => "hash",
            Choice::Refused => "refused",
        }
    }
}

const _: () = assert!(size_of::<Seat>() == 128);
