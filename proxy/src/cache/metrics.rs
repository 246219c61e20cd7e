//! What the cache counts.

use std::{sync::Arc, sync::atomic::AtomicU64, time::Duration};

use arc_swap::ArcSwapOption;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{Cache, outcome::Outcome};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct How {
    how: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct From {
    tier: &'static str,
}

/// What the first byte of an answer had to wait for. In the order of how long that may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Nothing but memory.
    Memory,
    /// A read from the disk.
    Disk,
    /// A read from what a fleet shares.
    Fleet,
    /// A fetch of somebody else's.
    Shared,
    /// A server that the request itself has asked, for a part or whether it still holds.
    Server,
}

impl Tier {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Memory, Self::Disk, Self::Fleet, Self::Shared, Self::Server];

    /// For labels. Stable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Fleet => "fleet",
            Self::Shared => "shared",
            Self::Server => "server",
        }
    }
}

/// Counters of the cache.
#[derive(Debug, Clone)]
pub struct Counters {
    requests: Family<Result, Counter>,
    by_outcome: [Counter; Outcome::ALL.len()],
    ends: Family<How, Counter>,
    /// Answers that were stored whole.
    pub stored: Counter,
    /// Fills that broke off, or that nobody wanted any more, or that were too large.
    pub dropped: Counter,
    /// Requests that waited for a fetch of somebody else's and shared it.
    pub joined: Counter,
    /// Requests for blocks that were missing.
    pub parts: Counter,
    /// Answers whose missing blocks could not be had any more, which were cut off.
    pub cut: Counter,
    /// Validations in the background.
    pub background: Counter,
    /// Bytes of bodies that came out of the cache.
    pub served: Counter,
    /// Bytes of bodies that went into it.
    pub filled: Counter,
    first_bytes: Family<From, Histogram, fn() -> Histogram>,
    by_tier: [Histogram; Tier::ALL.len()],
    of: Arc<ArcSwapOption<Cache>>,
}

impl Default for Counters {
    fn default() -> Self {
        let requests = Family::<Result, Counter>::default();
        let of =
            |outcome: Outcome| requests.get_or_create_owned(&Result { result: outcome.name() });
        let by_outcome = Outcome::ALL.map(of);
        let ends = Family::<How, Counter>::default();
        let end = |how| ends.get_or_create_owned(&How { how });
        let first_bytes = Family::new_with_constructor(histogram as fn() -> Histogram);
        let of_tier = |tier: Tier| first_bytes.get_or_create_owned(&From { tier: tier.name() });
        let by_tier = Tier::ALL.map(of_tier);
        Self {
            stored: end("stored"),
            dropped: end("dropped"),
            requests,
            by_outcome,
            ends,
            joined: Counter::default(),
            parts: Counter::default(),
            cut: Counter::default(),
            background: Counter::default(),
            served: Counter::default(),
            filled: Counter::default(),
            first_bytes,
            by_tier,
            of: Arc::default(),
        }
    }
}

impl Counters {
    /// A request has come to this.
    pub fn request(&self, outcome: Outcome) {
        self.by_outcome[outcome as usize].inc();
    }

    /// The first byte of an answer out of the cache is there, so long after its request.
    pub fn answered(&self, tier: Tier, after: Duration) {
        self.by_tier[tier as usize].observe(after.as_secs_f64());
    }

    /// Whose contents are shown.
    pub fn of(&self, cache: &Arc<Cache>) {
        self.of.store(Some(Arc::clone(cache)));
    }

    /// Gives all of them their names.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Requests of routes that are cached, by what came of it";
        registry.register("cache_requests", help, self.requests.clone());
        registry.register("cache_fills", "Fills that have ended, by how", self.ends.clone());
        for (name, help, counter) in [
            ("cache_joins", "Requests that shared a fetch of somebody else's", &self.joined),
            ("cache_part_fetches", "Requests to servers for blocks that were missing", &self.parts),
            ("cache_cuts", "Answers that were cut off, for a block could not be had", &self.cut),
            (
                "cache_background_validations",
                "Validations that nobody waited for",
                &self.background,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        let bytes = || Unit::Bytes;
        let help = "Bytes of bodies that came out of the cache";
        registry.register_with_unit("cache_served", help, bytes(), self.served.clone());
        let help = "Bytes of bodies that went into the cache";
        registry.register_with_unit("cache_filled", help, bytes(), self.filled.clone());
        let help =
            "From a request to the first byte of the cache's answer, by what that waited for";
        registry.register_with_unit(
            "cache_answer_duration",
            help,
            Unit::Seconds,
            self.first_bytes.clone(),
        );
        registry.register_collector(Box::new(Contents(Arc::clone(&self.of))));
    }
}

fn histogram() -> Histogram {
    Histogram::new([0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.025, 0.1, 1.0])
}

/// What is in the cache, looked at by a scrape.
#[derive(Debug)]
struct Contents(Arc<ArcSwapOption<Cache>>);

impl Collector for Contents {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> std::fmt::Result {
        use prometheus_client::encoding::EncodeMetric as _;
        let Some(cache) = self.0.load_full() else { return Ok(()) };
        let now = cache.store.statistics();
        let under_way = cache.flights.count() as u64;
        let disk = now.disk.unwrap_or_default();
        let fleet = now.fleet.unwrap_or_default();
        for (name, help, unit, value) in [
            ("cache_disk", "What the cache has on the disk", Some(Unit::Bytes), disk.bytes),
            ("cache_disk_objects", "Answers on the disk", None, disk.objects),
            (
                "cache_disk_queued",
                "What waits to be written to the disk",
                Some(Unit::Bytes),
                disk.queued_bytes,
            ),
            (
                "cache_fleet_works",
                "Whether what a fleet shares answers, in time: 1, or 0",
                None,
                fleet.works.into(),
            ),
            (
                "cache_fleet_queued",
                "What waits to be given to the fleet",
                Some(Unit::Bytes),
                fleet.queued_bytes,
            ),
            ("cache_memory", "Memory that the cache holds", Some(Unit::Bytes), now.memory_bytes),
            ("cache_memory_objects", "Answers in memory", None, now.memory_objects),
            ("cache_memory_entries", "Answers and blocks in memory", None, now.memory_entries),
            ("cache_under_way", "Fetches that others can join", None, under_way),
        ] {
            let gauge: Gauge<u64, AtomicU64> = Gauge::default();
            gauge.set(value);
            let encoder = out.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?;
            gauge.encode(encoder)?;
        }
        for (name, help, value) in [
            (
                "cache_lent_bytes",
                "Bytes of bodies that sockets were given without a copy",
                crate::lend::lent_bytes(),
            ),
            (
                "cache_reread_bytes",
                "Bytes on the disk that left memory while they were sent, and were read again",
                crate::lend::reread_bytes(),
            ),
            (
                "cache_disk_hits",
                "Answers and blocks that were read, or sent, from the disk",
                disk.promotions + disk.in_files,
            ),
            ("cache_disk_evictions", "Segments on the disk that made room", disk.evictions),
            ("cache_disk_errors", "Reads and writes of the disk that failed", disk.errors),
            (
                "cache_disk_dropped",
                "What was to be written to the disk and found no room",
                disk.dropped,
            ),
            ("cache_fleet_hits", "Answers and blocks that the fleet had", fleet.hits),
            ("cache_fleet_misses", "Answers and blocks that the fleet had not", fleet.misses),
            ("cache_fleet_read_bytes", "Bytes that came from the fleet", fleet.read_bytes),
            ("cache_fleet_writes", "Answers and blocks that the fleet was given", fleet.writes),
            ("cache_fleet_written_bytes", "Bytes that the fleet was given", fleet.written_bytes),
            (
                "cache_fleet_dropped",
                "What was to be given to the fleet and found no room, or no service",
                fleet.dropped,
            ),
            ("cache_fleet_busy", "What was not asked for: too many waited", fleet.busy),
            (
                "cache_fleet_damaged",
                "What came from the fleet and was not what had been written",
                fleet.damaged,
            ),
            (
                "cache_fleet_refused",
                "What came from the fleet and was purged, over or too old",
                fleet.refused,
            ),
            ("cache_fleet_errors", "What the fleet did not do, in time or at all", fleet.errors),
            ("cache_memory_evictions", "Entries that left memory for others", now.memory_evictions),
            (
                "cache_memory_refusals",
                "What was to be stored and found no room in memory",
                now.memory_refusals,
            ),
        ] {
            let counter: Counter = Counter::default();
            counter.inc_by(value);
            let encoder = out.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(encoder)?;
        }
        Ok(())
    }
}
