//! Engines that move the bytes of tunnels.
