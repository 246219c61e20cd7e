//! What the BPF programs and the proxy agree on: names, keys, counters, version.
//!
//! Compiled twice: for the kernel, into the object, and for the host, into the proxy.
//! Invariant: whatever changes the meaning of a map or a name here changes
//! [`ABI_VERSION`], so that an object built from other sources is refused when it is
//! loaded instead of being misread.
#![no_std]

/// Version of everything in this file. The object carries it as the number of entries of
/// the map [`ABI_MAP`]: readable without running anything, whatever the object's layout.
pub const ABI_VERSION: u32 = 1;

/// Name of the map whose number of entries is [`ABI_VERSION`].
///
/// All names fit the kernel's 15 bytes and begin alike, so that what is left of us in a
/// kernel can be told from what belongs to others.
pub const ABI_MAP: &str = "UP_ABI";

/// Name of the sockhash that holds the enrolled sockets, by [`SocketKey`].
pub const SOCKETS_MAP: &str = "UP_SOCKETS";

/// Name of the per-CPU array of [`Counter`]s.
pub const COUNTERS_MAP: &str = "UP_COUNTERS";

/// Name of the program that counts what enrolled sockets receive and passes it on.
pub const COUNT_PROGRAM: &str = "up_count";

/// Sockets that can be enrolled at once. The map is allocated by entry, not in advance.
pub const MAX_SOCKETS: u32 = 1 << 16;

/// Key of a socket: its cookie (`SO_COOKIE`), unique as long as the kernel runs, so that
/// a reused descriptor or port never meets an older entry.
pub type SocketKey = u64;

/// What a program did, one slot each in [`COUNTERS_MAP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Pieces handed on to the socket's own receive queue.
    PassedMessages = 0,
    /// Bytes in them.
    PassedBytes = 1,
    /// Pieces without a byte, which should not occur.
    EmptyMessages = 2,
}

impl Counter {
    /// Number of slots.
    pub const COUNT: u32 = 3;
}
