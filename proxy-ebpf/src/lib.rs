//! What the BPF programs and the proxy agree on: names, keys, layouts, version.
//!
//! Compiled twice: for the kernel, into the object, and for the host, into the proxy.
//! Invariant: whatever changes the meaning of a map or a name here changes
//! [`ABI_VERSION`], so that an object built from other sources is refused when it is
//! loaded instead of being misread.
//!
//! Words: an *own* socket is one of the proxy's, an *application's* socket is the other end
//! of a connection of ours on this host. A *lane* is one direction of a tunnel. A *seat* is one
//! worker's place behind one listener.
#![no_std]

pub mod hop;
pub mod input;
pub mod lane;
pub mod names;
pub mod offsets;
pub mod seat;
pub mod without;

pub use hop::{HopReport, HopRequest};
pub use input::{Input, MAX_INPUTS};
pub use lane::{Form, Lane, Route};
pub use offsets::Offsets;
pub use seat::{MAX_SEATS, Seat};
pub use without::Protection;

/// Version of everything in this crate. Each object carries it as the number of entries of
/// the map [`names::ABI`]: readable without running anything, whatever the object's layout.
pub const ABI_VERSION: u32 = 8;

/// Sockets that can be enrolled in one map at once. Allocated by entry, not in advance.
pub const MAX_SOCKETS: u32 = 1 << 17;

/// Key of a socket in the sockhashes: the cookie (`SO_COOKIE`) of the own socket, which is
/// unique as long as the kernel runs, so that a reused descriptor, port or address never
/// meets an older entry. An application's socket goes by the cookie of the own socket that
/// it is connected to.
pub type SocketKey = u64;

/// Address of a `struct sock` in the kernel: what the programs know a sender by.
pub type SocketAddress = u64;
