//! The cache: answers that are kept, and used again where HTTP allows it.
//!
//! * `policy/`: what may be stored and used (RFC 9111, RFC 5861), pure
//! * `key.rs`: by what it is found; `range.rs`: parts of it; `meta.rs`: what is kept beside bytes
//! * `store/`: bytes in memory, on disk and where a fleet shares them, which knows nothing of HTTP
//! * `flight.rs`, `flights.rs`: what is on its way, and those who share it; `pull.rs`: the task
//!   that brings it; `reader.rs`: a body out of all that
//! * `uncacheable.rs`: what nobody waits for; `ways.rs`: which upstreams routes have had;
//!   `outcome.rs`: what clients are told; `metrics.rs`
//!
//! What a request goes through is `relay/cached/`. A route that is not cached has none of it.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config;

pub mod flight;
pub mod flights;
pub mod key;
pub mod meta;
mod metrics;
pub mod origin;
pub mod outcome;
pub mod policy;
pub mod pull;
pub mod range;
pub mod reader;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod uncacheable;
mod wakers;
mod ways;

pub use metrics::{Counters, Tier};

use flights::Flights;
use key::KeyRules;
use meta::Meta;
use store::{Purged, Store, What};
use uncacheable::Uncacheable;
use ways::Ways;

/// The cache of the process.
#[derive(Debug)]
pub struct Cache {
    /// Where it is.
    pub store: Store<Meta>,
    /// What is under way.
    pub flights: Arc<Flights>,
    /// What is not stored.
    pub uncacheable: Uncacheable,
    /// What happens.
    pub counters: Counters,
    /// The rules by which routes spell a target, each once: who purges one does not know of them.
    pub spellings: ArcSwap<Vec<KeyRules>>,
    /// The upstreams of routes, those of before as well.
    pub ways: Ways,
}

impl Cache {
    /// One with what is on the disk, where there is one; else empty.
    pub fn new(config: &config::Cache, counters: Counters) -> Arc<Self> {
        let store = Store::new(&store::Options {
            memory_bytes: config.memory_bytes,
            block_bytes: config.block_bytes,
            disk: config.disk.as_ref().map(|disk| store::DiskOptions {
                directory: disk.directory.clone(),
                bytes: disk.bytes,
                index_bytes: disk.index_bytes,
            }),
            fleet: config.fleet.clone(),
        });
        let this = Arc::new(Self {
            store,
            flights: Arc::default(),
            uncacheable: Uncacheable::new(config.uncacheable_ttl),
            counters: counters.clone(),
            spellings: ArcSwap::default(),
            ways: Ways::default(),
        });
        counters.of(&this);
        let flights = Arc::clone(&this.flights);
        this.store.on_purge_elsewhere(move |what| forget_under_way(&flights, what));
        this
    }

    /// Forgets all that is meant; what is on its way is neither stored nor joined any more.
    pub fn purge(&self, what: &What) -> Purged {
        let purged = self.store.purge(what);
        forget_under_way(&self.flights, what);
        purged
    }

    /// Goes by the routes of this configuration from now on.
    pub fn follow(&self, config: &config::Config) {
        self.ways.follow(config);
        let mut all: Vec<KeyRules> = Vec::new();
        for rules in config.routes.iter().filter_map(|route| Some(&route.cache.as_ref()?.key)) {
            // What is beside the target does not matter.
            let rules = KeyRules { headers: Vec::new(), cookies: Vec::new(), ..rules.clone() };
            if !all.contains(&rules) {
                all.push(rules);
            }
        }
        self.spellings.store(Arc::new(all));
    }
}

/// What is under way is not joined any more. Of that the tags are not known, so with these
/// everybody asks anew.
fn forget_under_way(flights: &Flights, what: &What) {
    flights.forget(|text| match what {
        What::Prefix(prefix) => text.starts_with(&**prefix),
        What::All | What::Tag(_) => true,
    });
}
