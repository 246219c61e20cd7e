//! Engines that move the bytes of tunnels.

pub mod loader;
pub mod probe;
mod probe_sockets;
