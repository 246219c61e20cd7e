//! A soak: the proxy under steady load for long, and what it holds meanwhile (`run/soak.rs`
//! runs it).
//!
//! `load` is the traffic, with `tunnels` and `http2` for what takes more than a request,
//! `stage` starts who takes part, `sample` reads what the kernel and the proxy say of it,
//! `fit` turns samples into a trend and its confidence, `verdict` judges. Tasks of the
//! proxy's runtimes are not watched: it does not tell them.

pub(crate) mod fit;
mod http2;
pub(crate) mod load;
pub(crate) mod sample;
pub(crate) mod stage;
mod tunnels;
pub(crate) mod verdict;
