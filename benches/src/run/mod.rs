//! One file per measurement. Each prints what it does, its table, and fails only by a
//! memory figure or a count, never by a time.

use std::path::PathBuf;

pub mod allocs;
pub mod cache;
pub mod fast_open;
pub mod peers;
pub mod pinned;
pub mod record;
pub mod routes;
pub mod rss;
pub mod soak;
pub mod steer;
pub mod tls;
pub mod ttfb;
pub mod tunnel;

/// What the command line said.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Fewer and shorter rounds.
    pub quick: bool,
    /// The proxy's binary, if not the one beside ours.
    pub proxy: Option<PathBuf>,
}

impl Settings {
    /// One of two sizes.
    pub fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// What the command line said about a measurement of many cells.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which cells, by the names of the bench.
    pub only: Option<String>,
    /// Measurements as lines of JSON.
    pub json: Option<PathBuf>,
    /// Rounds, if not the default.
    pub rounds: Option<usize>,
    /// Of one measurement, if not the default.
    pub seconds: Option<f64>,
}
