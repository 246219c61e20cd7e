//! One direction of a tunnel, as programs and proxy see it.
//!
//! Two halves. The [`Route`] is what a program goes by, in a hash that only system calls
//! change. The [`Lane`] is what it did, in an array that the proxy has mapped: looking at
//! it wakes nobody and costs no system call.

/// How the bytes of a direction are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Form {
    /// From one application's socket into the other's receive queue: `up_msg`,
    /// `BPF_F_INGRESS`.
    Bypass = 1,
    /// From an application's socket out on our connection to the remote peer: `up_msg`.
    HalfBypass = 2,
    /// From one own socket out on the other: `up_skb`.
    Skb = 3,
    /// Between the two ends of one connection, into the receive queue of the other: `up_msg`,
    /// `BPF_F_INGRESS`.
    Hop = 4,
}

/// Where the bytes of a socket go, and when.
///
/// `up_msg` redirects only if everything sent earlier has gone its way:
///
/// - [`Form::Bypass`]: `sender.write_seq - k == receiver.copied_seq`. What was sent by TCP
///   has been read by the application; `k` is `D.copied_seq - U.write_seq` (or `U`, `D`),
///   taken while the proxy holds no byte of this direction.
/// - [`Form::HalfBypass`]: `sender.write_seq - k == receiver.write_seq - moved`. What was
///   sent by TCP has been written to our socket, and each redirect has been, too; `k` is
///   taken as above, while nothing has been moved.
///
/// - [`Form::Hop`]: as [`Form::Bypass`], and `k` is 0: both ends count the same bytes. What
///   waits for the receiver stays below half of its limit, so that the other half is TCP's:
///   whoever writes here does not ask for room.
///
/// `up_skb` redirects only if everything passed to the proxy has been sent on
/// (`passed_bytes == taken_bytes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Route {
    /// Key of the receiving socket.
    pub target: u64,
    /// Its address, for reading its fields.
    pub receiver: u64,
    /// The sender's, which is also the key of this entry: a program may not calculate with
    /// the pointer that it is given.
    pub sender: u64,
    /// [`Form`].
    pub form: u32,
    /// Index of the [`Lane`].
    pub lane: u32,
    /// See above; sequence numbers, modulo 2^32. For [`Form::Skb`] `receiver.write_seq` less
    /// `moved` and `taken` when the lane was armed.
    pub k: u32,
    /// Bytes that may be on their way in the kernel ([`Form::Skb`]), or that a receiver may
    /// have unread even if that is more than its receive buffer ([`Form::Bypass`]).
    pub budget_bytes: u32,
}

/// What happened to a direction, and what is allowed to. Each field has one writer.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Lane {
    /// Program: bytes redirected.
    pub moved_bytes: u64,
    /// Program: messages redirected.
    pub moved_messages: u64,
    /// Program: `CLOCK_MONOTONIC` of the last redirect, nanoseconds.
    pub moved_at: u64,
    /// Program: messages passed because of the order.
    pub refused_order: u64,
    /// Program: messages passed because the receiver's memory was at its limit, or because it
    /// waits for more than a byte.
    pub refused_bound: u64,
    /// Program: messages passed because the receiver's socket was not there any more.
    pub refused_target: u64,
    /// Program: bytes that `up_skb` passed to the proxy.
    pub passed_bytes: u64,
    /// Program: redirects since the receiver's queue was seen empty (`up_skb`).
    pub pieces: u64,
    /// Proxy: bytes of those that it has written to the receiver.
    pub taken_bytes: u64,
    /// Proxy: 1 while redirects are allowed.
    pub open: u32,
    /// Unused.
    pub reserved: u32,
}

/// Lanes of the array: the directions that can be in the kernel at once.
pub const MAX_LANES: u32 = 1 << 15;

const _: () = assert!(size_of::<Lane>() == 128);
