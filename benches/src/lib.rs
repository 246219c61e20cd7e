//! Side-by-side measurements of the proxy: what it costs to have it in between.
//!
//! Every figure of a bench is a difference or a ratio of two things measured in the same run, in
//! turns; a figure alone says more about the machine than about the proxy. What may be
//! asserted (memory, counts) is; times never are.
//!
//! - [`origin`] answers, [`load`] and [`client`] ask, [`server`] starts what stands between.
//! - [`process`] reads what the kernel knows of a process, `meter` its CPU time and that of
//!   the whole machine, [`counting`] what the heap does.
//! - `peers` is what HTTP is measured with beside other proxies, [`tunnel`] tunnels are, between
//!   network namespaces too; `cache` is what caches are measured with; `soak` is the load of a long run and the judgement of it.
//! - [`run`] holds one file per measurement, [`stats`] turns samples into tables.
//!
//! Implements: REQ-CTRL-003

mod cache;
mod calm;
pub mod client;
pub mod counting;
mod distance;
mod idle;
mod launch;
mod lines;
pub mod load;
mod meter;
mod only;
pub mod origin;
mod patient;
mod peers;
pub mod process;
pub mod run;
mod schedule;
pub mod server;
mod soak;
pub mod stats;
mod tls;
pub mod tunnel;
