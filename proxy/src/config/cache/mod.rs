//! `[cache]`: how much is kept, and the rules of routes that are cached; `cache` and
//! `[route.cache]`: which those are, and what each has of its own.
//!
//! `read.rs` reads the sections, `write.rs` writes them back; `fleet.rs` does both for
//! `[cache.fleet]`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::HeaderName;

use super::errors::{Errors, Placed, Wrong};
use crate::cache::{key::KeyRules, policy::Rules, store::FleetOptions};

mod fleet;
#[cfg(test)]
mod fleet_tests;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub(super) use read::{of_route, read};
pub(super) use write::{route as write_route, write};

/// The cache of the process.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Bytes of memory, tables included.
    pub memory_bytes: usize,
    /// The second tier, if there is one.
    pub disk: Option<CacheDisk>,
    /// What several proxies share, if they do.
    pub fleet: Option<FleetOptions>,
    /// Bytes of a block: the unit of what is kept, evicted, and fetched for a range.
    pub block_bytes: usize,
    /// Whether routes are cached that say nothing of it.
    pub all_routes: bool,
    /// How long it is remembered that an answer could not be stored, so that nobody waits for
    /// the next one.
    pub uncacheable_ttl: Duration,
    /// What holds for routes that say nothing else.
    pub rules: RouteCache,
}

/// What is kept on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDisk {
    /// The folder.
    pub directory: PathBuf,
    /// What its files may take, in bytes.
    pub bytes: u64,
    /// What its index may take in memory, in bytes, beside the memory of the first tier.
    pub index_bytes: usize,
}

impl CacheDisk {
    /// With the defaults of everything but the folder.
    pub fn with_defaults(directory: PathBuf) -> Self {
        Self { directory, bytes: 10 << 30, index_bytes: 64 << 20 }
    }
}

/// How a route is cached.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteCache {
    /// What is stored, and for how long.
    pub policy: Rules,
    /// By what it is found.
    pub key: KeyRules,
    /// Requests with one of these fields pass by the cache.
    pub bypass_headers: Vec<HeaderName>,
    /// Requests with one of these cookies pass by the cache.
    pub bypass_cookies: Vec<String>,
    /// Bodies that are longer are not stored.
    pub max_object_bytes: u64,
    /// Whether an answer is fetched to its end when nobody waits for it any more.
    pub finish_fills: bool,
    /// Whether of what is asked for in ranges the blocks are stored.
    pub slices: bool,
    /// Whether answers have `X-Cache` and `Cache-Status`.
    pub status_headers: bool,
}

/// What a route said of the cache.
#[derive(Debug, Clone, Default)]
pub(crate) enum DraftCache {
    /// Nothing.
    #[default]
    Unsaid,
    /// `false`.
    Off,
    /// `true`, or a section of its own.
    On(Box<Placed<RouteCache>>),
}

impl Cache {
    /// With the defaults.
    pub fn with_defaults() -> Self {
        Self {
            memory_bytes: 256 << 20,
            disk: None,
            fleet: None,
            block_bytes: 256 << 10,
            all_routes: false,
            uncacheable_ttl: Duration::from_secs(10),
            rules: RouteCache::default(),
        }
    }
}

impl Default for RouteCache {
    fn default() -> Self {
        Self {
            policy: Rules::default(),
            key: KeyRules::default(),
            bypass_headers: Vec::new(),
            bypass_cookies: Vec::new(),
            max_object_bytes: 1 << 30,
            finish_fills: false,
            slices: true,
            status_headers: true,
        }
    }
}

impl DraftCache {
    /// What holds for the route in the end. `None`: it is not cached.
    pub(super) fn resolve(
        &self,
        cache: Option<&Cache>,
        errors: &mut Errors,
    ) -> Option<Arc<RouteCache>> {
        match (self, cache) {
            (Self::On(rules), Some(_)) => Some(Arc::new(rules.value.clone())),
            (Self::On(rules), None) => {
                let what = "a route is to be cached, and there is no [cache]";
                errors.add(&rules.place, Wrong::new(what, "add a section [cache]"));
                None
            }
            (Self::Unsaid, Some(cache)) if cache.all_routes => Some(Arc::new(cache.rules.clone())),
            (Self::Unsaid | Self::Off, _) => None,
        }
    }
}
