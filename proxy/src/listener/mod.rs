//! Where clients arrive: sockets of all workers on one address through SO_REUSEPORT, the
//! choice between them, and the loop that accepts on each.
//!
//! An address with its sockets is a *door*; what is told of it in the configuration is a
//! *listener*. Doors stay over a reload for as long as their address is wanted, and their
//! listener is replaced: connections keep the one that they came by (`door.rs`).
//!
//! Invariant: an error of accept(2) never ends the loop, and never makes it spin.

pub mod accept;
pub mod bind;
pub mod door;
pub mod inherited;
pub mod slots;
pub mod steer;

pub use door::{Door, Listener};
