//! The kernel tier: BPF programs that move bytes from socket to socket.
//!
//! `load.rs` brings the programs in and holds them ([`Kernel`]); `btf.rs` tells them where
//! the fields of this kernel's structures lie; `lanes.rs` maps what they count. Everything
//! that is decided is decided above this folder: here are only the system calls.

mod abilities;
mod btf;
mod lanes;
mod load;
mod log;
mod question;
mod reason;
mod trim;

pub use load::{Enrolled, Ids, Kernel, Set, embedded};
pub use log::{KernelLog, LOG_TARGET};
pub use reason::Unavailable;

pub(crate) use abilities::Abilities;
pub(crate) use lanes::LaneSlot;
pub(crate) use load::{RouteGuard, describes_itself};
pub(crate) use reason::has_capabilities;
pub(crate) use trim::give_back;
