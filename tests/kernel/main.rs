//! Tests of what runs inside the kernel, with real programs, maps and sockets.
//!
//! They need CAP_BPF and CAP_NET_ADMIN, and an object to load. A skip has to justify
//! itself (see `machine`): on a machine that has it all, there is none.
//!
//! `ktls/` is about tunnels inside TLS whose keys the kernel has: it needs the module `tls`.
//!
//! `steering/` is about the worker that a connection comes to.
//!
//! `tunnel/` holds the law of tunnels over every engine, those of userspace included, with
//! peers on this host and on others.

mod announced;
mod applications;
mod at_rest;
mod degrade;
mod doctor;
mod fast_open;
mod hop;
mod hop_http2;
mod ktls;
mod leftovers;
mod log;
mod look;
mod machine;
mod overlap;
mod placement;
mod protections;
mod random_traffic;
mod sockets;
mod steering;
mod tunnel;
mod unavailable;
