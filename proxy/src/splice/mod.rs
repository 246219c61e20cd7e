//! Engines that move the bytes of a tunnel from one socket to the other.
//!
//! A tunnel has two lanes (`engine.rs`), one per direction; each moves bytes by one of
//! these engines and may change between them:
//!
//! - `copy`: read(2) into a buffer, write(2) out of it. Two system calls per message, any
//!   kind of stream. It is the oracle that the others are tested against.
//! - `pipe`: splice(2) from the socket into a pipe and from the pipe into the other socket.
//!   The payload stays in the kernel's pages; only TCP to TCP.
//!
//! Beside them the kernel's programs may move a direction (`tier.rs`, `bypass.rs`,
//! `redirect.rs`); the lane then carries what they pass.
//!
//! **Invariant.** A lane fills only when it holds nothing. So there is one container of
//! bytes per direction at any time (early bytes, a buffer *or* a pipe): nothing can be
//! overtaken, a change of engine finds nothing to carry over, and what a tunnel holds is
//! bounded by [`BUFFER_BYTES`] or [`PIPE_BYTES`] per direction. It also settles what
//! `EAGAIN` means. splice(2) reports an empty socket and a full pipe alike; from an empty
//! pipe's side it can only be the socket, and towards the other socket, with bytes in the
//! pipe, only that socket's send queue. The container goes back to its worker's pool as
//! soon as it is empty and nothing is there to be read: an idle tunnel holds none.
//!
//! **Who chooses.** `--splice copy` and `pipe` say it; `auto` goes by what the lane does.
//! It starts with `copy`, because a message costs two system calls there and three with
//! `pipe` (into the pipe, out of it, and once more to see `EAGAIN`: a short splice says
//! nothing about what is left in the socket, a short read does). In bulk
//! `pipe` saves both copies between kernel and userspace. After [`BULK_READS`] reads in a row that filled
//! the buffer the sender is ahead of us, and the lane changes to `pipe`; after
//! [`SMALL_FILLS`] fills in a row of less than [`SMALL_FILL_BYTES`] it changes back. An
//! HTTP/2 stream has no socket of its own, and what TLS has on its socket are records, so
//! those tunnels stay with `copy`, unless the kernel has the keys (`ktls/`). When no pipe
//! is to be had (EMFILE, or the worker's budget is spent) a lane copies and asks again
//! after [`RETRY_FILLS`] fills; where splice(2) itself is refused it copies for good.

pub(crate) mod anchor;
mod buffer;
pub(crate) mod bypass;
mod copy;
pub(crate) mod endpoint;
pub(crate) mod engine;
pub(crate) mod figures;
mod hop;
pub mod hop_bypass;
pub mod kernel;
pub(crate) mod ktls;
mod leave;
mod look_again;
mod meter;
mod picker;
mod pipe;
pub mod pipe_pool;
pub mod probe;
pub(crate) mod redirect;
mod room;
pub(crate) mod socket;
pub(crate) mod socket_end;
mod stream;
pub(crate) mod tcp_end;
pub(crate) mod tier;
mod tls_end;
mod why;
pub(crate) mod without;

pub use buffer::in_use as buffers_in_use;
pub use meter::{Engine, KernelShare};
pub use why::Why;

pub(crate) use endpoint::Endpoint;
pub(crate) use engine::{Fault, Lane};
pub use ktls::Ktls;
pub(crate) use meter::Meter;
pub(crate) use socket_end::SocketEnd;
pub(crate) use tcp_end::TcpEnd;

/// Bytes of one copy buffer: what one read takes and one lane holds. The size that the
/// figures above were measured with; several fit into an L2 cache.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Empty copy buffers that a worker keeps (2 MiB). Only as many are in use at once as
/// lanes stand with unsent bytes, so this covers the lanes of one turn of the event loop.
pub const IDLE_BUFFERS: usize = 32;

/// Bytes asked for with F_SETPIPE_SZ. Four times the default: fewer changes between the
/// two sockets per byte. A quarter of fs.pipe-max-size, the most an unprivileged user may
/// ask for. It bounds the payload in a pipe; each of its 64 slots may keep a larger page of
/// the network stack alive while it waits.
pub const PIPE_BYTES: usize = 256 * 1024;

/// Empty pipes that a worker keeps (64 descriptors). An empty pipe holds no pages.
pub const IDLE_PIPES: usize = 32;

/// Pipes that a worker has at once, in use or kept (512 descriptors). 256 pipes of
/// [`PIPE_BYTES`] are the 64 MiB of fs.pipe-user-pages-soft; beyond it an unprivileged
/// user gets pipes of two pages, which are worse than copying.
pub const OPEN_PIPES: usize = 256;

/// Reads in a row that filled the buffer before `auto` takes a pipe: 256 KiB, more than a
/// message that is answered before the next one comes.
pub const BULK_READS: u32 = 4;

/// Small fills in a row before `auto` gives the pipe up. More than one, because the last
/// fill of every burst is small.
pub const SMALL_FILLS: u32 = 8;

/// Bytes below which a fill is small. An estimate: copying 16 KiB twice takes a few
/// microseconds, and less than that the third system call with its page handling is not
/// sure to win back.
pub const SMALL_FILL_BYTES: usize = 16 * 1024;

/// Fills that a lane copies after it got no pipe, before it asks again: at most 4 MiB, so
/// the failed system call is lost in the noise.
pub const RETRY_FILLS: u32 = 64;

/// Bytes after which a lane lets the other tunnels of its thread go first, even though it
/// could go on: about a third of a millisecond at the rates above.
pub const TURN_BYTES: usize = 512 * 1024;
