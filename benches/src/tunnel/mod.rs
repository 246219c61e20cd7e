//! Tunnels side by side: what the bench `tunnel` is made of (`run/tunnel.rs` runs it).
//!
//! Three kinds of processes take part, each where the topology puts it:
//!
//! - a server peer (`serve`) and a client peer (`ask` with `pingpong`, `bulk` and
//!   `tokens`), which are this binary again, told what to do over their standard input
//!   (`protocol`, `peer`);
//! - the proxies between them (`proxies`), one worker each.
//!
//! `cells` names what is measured, `netns` and `network` make the topologies,
//! `opener` opens a tunnel, `figures` and `report` turn measurements into tables.
//!
//! Invariant: whatever is made here ends with this process, however that ends. Namespaces
//! have no name and live by a descriptor, interfaces live in namespaces, children are
//! killed by the kernel when the parent is gone (`spawn`).

pub(crate) mod ask;
mod bulk;
pub(crate) mod cells;
pub(crate) mod figures;
pub(crate) mod netns;
pub(crate) mod network;
pub(crate) mod opener;
pub(crate) mod peer;
mod pingpong;
pub(crate) mod protocol;
pub(crate) mod proxies;
pub(crate) mod report;
pub(crate) mod serve;
pub(crate) mod spawn;
mod tokens;

pub use ask::run as ask;
pub(crate) use protocol::now_ns;
pub use serve::run as serve;
