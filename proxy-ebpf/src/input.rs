//! How far the input of a socket has gone by a `stream_verdict` program.

/// Sockets whose [`Input`] is kept. The kernel allocates them in advance, 64 bytes each, and
/// gives up the one that was used least recently for a new one.
pub const MAX_INPUTS: u32 = 1 << 15;

/// How far the input of a socket has gone by a program, so that no byte goes by it twice.
///
/// TCP queues segments as they come, and a segment may begin with bytes that came before: a
/// sender that repeats itself cuts the stream anew, and the kernel itself joins a repeated
/// segment to the next one while a reader holds the socket (`tcp_add_backlog`). A reader of
/// the receive queue skips what it has (`tcp_recvmsg`); what hands the queue to the programs
/// does not (`tcp_read_skb`; seen on 6.18).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Input {
    /// Sequence number behind the last byte.
    pub next: u32,
    /// 1 once a byte was lost: nothing that follows it may be delivered.
    pub is_broken: u32,
}
