//! The kernel tier: BPF programs that move bytes from socket to socket, and beside it the one
//! that chooses the worker of a new connection.
//!
//! `load.rs` brings the programs in and holds them ([`Kernel`]); `btf.rs` tells them where
//! the fields of this kernel's structures lie; `lanes.rs` maps what they count.
//! `steering.rs` and `seats.rs` are the same for accepts, and need none of the rest. Everything
//! that is decided is decided above this folder: here are only the system calls.

mod abilities;
mod btf;
mod ids;
mod lanes;
mod load;
mod log;
mod question;
mod reason;
mod seats;
mod steering;
mod trim;

pub use ids::Ids;
pub use load::{Enrolled, Kernel, Set, embedded};
pub use log::{KernelLog, LOG_TARGET};
pub use reason::Unavailable;
pub use seats::Seat;
pub use steering::{Steering, embedded_steering};

pub(crate) use abilities::Abilities;
pub(crate) use lanes::LaneSlot;
pub(crate) use load::{RouteGuard, describes_itself};
pub(crate) use reason::has_capabilities;
pub(crate) use trim::give_back;
