//! Side-by-side measurements of the proxy: what it costs to have it in between.
//!
//! Every figure is a difference or a ratio of two things measured in the same run, in
//! turns; a figure alone says more about the machine than about the proxy. What may be
//! asserted (memory, counts) is; times never are.
//!
//! - [`origin`] answers, [`load`] and [`client`] ask, [`server`] starts what stands between.
//! - [`process`] reads what the kernel knows of a process, [`counting`] what the heap does.
//! - [`tunnel`] is what tunnels are measured with, between network namespaces too.
//! - [`run`] holds one file per measurement, [`stats`] turns samples into tables.
//!
//! Implements: REQ-CTRL-003

pub mod client;
pub mod counting;
pub mod load;
pub mod origin;
pub mod process;
pub mod run;
pub mod server;
pub mod stats;
pub mod tunnel;
