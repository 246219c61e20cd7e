//! What is counted, and where it is added up.
//!
//! Each worker counts in cells of its own and nobody waits for anybody: a handle is
//! looked up once, when a listener or an upstream starts, and from then on counting is
//! one relaxed atomic addition in memory that no other thread writes. A scrape, on the
//! control plane, reads the cells of all workers and adds them up.
//!
//! Invariant: nothing that is called per request takes a lock, allocates or looks up a
//! label. Names and help texts are in `export.rs` and nowhere else.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{encoding::text, metrics::counter::Counter, registry::Registry};

use crate::{
    cache, middleware::mirror, placement::Place, process_log, record, spans,
    splice::kernel::Steering, tunnel::registry::Registry as Tunnels,
    upstream::directory::Directory,
};

mod cells;
mod certificates;
mod configuration;
mod export;
mod histogram;
mod hops;
mod intercept;
mod process;
mod routes;
mod servers;
#[cfg(test)]
mod tests;
mod tls;
mod tunnels;
mod workers;

pub use cells::{
    Again, ListenerMetrics, OpenConnection, OpenTunnel, ParkedConnection, ParkedUpstream,
    UpstreamMetrics, WorkerMetrics,
};
use cells::{ListenerCells, UpstreamCells, WorkerCells};
pub use certificates::Certificates;
pub use configuration::Configuration;
use routes::RouteCells;
pub use routes::RouteMetrics;
pub use tls::HandshakeFailure;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    shared: Arc<Shared>,
    access_log_dropped: Counter,
    spans: spans::Counters,
    mirrors: mirror::Counters,
    record: record::Counters,
    cache: cache::Counters,
}

/// What scrape and workers both see.
struct Shared {
    workers: Vec<Arc<WorkerCells>>,
    // Locked when a listener or an upstream starts, and during a scrape; never per request.
    listeners: Mutex<Named<ListenerCells>>,
    upstreams: Mutex<Named<UpstreamCells>>,
    routes: Mutex<Named<RouteCells>>,
    tunnels: Tunnels,
    configuration: Configuration,
    certificates: Certificates,
    /// By listener.
    steerings: Mutex<Vec<(Box<str>, Arc<Steering>)>>,
    directory: Mutex<Arc<Directory>>,
}

/// The cells of each name, by number of the worker.
type Named<T> = BTreeMap<Box<str>, BTreeMap<usize, Arc<T>>>;

impl Metrics {
    /// Cells for `workers` data-plane threads, and what their `tunnels` count themselves.
    pub fn new(workers: usize, tunnels: Tunnels) -> Arc<Self> {
        let shared = Arc::new(Shared {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            listeners: Mutex::default(),
            upstreams: Mutex::default(),
            routes: Mutex::default(),
            tunnels,
            configuration: Configuration::default(),
            certificates: Certificates::default(),
            steerings: Mutex::default(),
            directory: Mutex::default(),
        });
        let access_log_dropped = Counter::default();
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix("underpass");
        ours.register(
            "access_log_lines_dropped",
            "Access log lines that found the queue full or could not be written",
            access_log_dropped.clone(),
        );
        ours.register(
            "process_log_lines_dropped",
            "Lines of the process log that found the queue full or could not be written",
            process_log::dropped(),
        );
        let spans = spans::Counters::default();
        ours.register(
            "spans_exported",
            "Spans that the collector has taken",
            spans.exported.clone(),
        );
        ours.register(
            "spans_dropped",
            "Spans that found the queue full, or that the collector did not take",
            spans.dropped.clone(),
        );
        let mirrors = mirror::Counters::default();
        for (name, help, counter) in [
            ("mirror_answered", "Copies of requests that their server answered", &mirrors.answered),
            ("mirror_failed", "Copies of requests that were not answered", &mirrors.failed),
            (
                "mirror_cut",
                "Copies of requests whose body was taken too slowly or broke off",
                &mirrors.cut,
            ),
            ("mirror_skipped", "Copies not begun, for too many were under way", &mirrors.skipped),
        ] {
            ours.register(name, help, counter.clone());
        }
        let record = record::Counters::default();
        record.register(ours);
        let cache = cache::Counters::default();
        cache.register(ours);
        ours.register_collector(Box::new(export::Exporter(shared.clone())));
        registry.register_collector(Box::new(process::Process::starting_now()));
        Arc::new(Self { registry, shared, access_log_dropped, spans, mirrors, record, cache })
    }

    /// The handle of one worker.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn worker(&self, index: usize) -> WorkerMetrics {
        WorkerMetrics {
            index,
            cells: self.shared.workers[index].clone(),
            shared: self.shared.clone(),
        }
    }

    /// Where a worker runs.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn placed(&self, worker: usize, place: &Place) {
        *lock(&self.shared.workers[worker].place) = place.clone();
    }

    /// What chooses the worker for connections of each listener, and counts its choices.
    pub fn steerings(&self, all: Vec<(Box<str>, Arc<Steering>)>) {
        *lock(&self.shared.steerings) = all;
    }

    /// What became of the configurations that were to come into force.
    pub fn configuration(&self) -> &Configuration {
        &self.shared.configuration
    }

    /// Certificates that clients are shown.
    pub fn certificates(&self) -> &Certificates {
        &self.shared.certificates
    }

    /// Whose servers are shown.
    pub fn upstreams(&self, directory: &Arc<Directory>) {
        *lock(&self.shared.directory) = Arc::clone(directory);
    }

    /// What the access log counts its losses in.
    pub fn access_log_dropped(&self) -> Counter {
        self.access_log_dropped.clone()
    }

    /// What becomes of copies of requests.
    pub fn mirrors(&self) -> &mirror::Counters {
        &self.mirrors
    }

    /// What becomes of records.
    pub fn record(&self) -> &record::Counters {
        &self.record
    }

    /// What the cache does.
    pub fn cache(&self) -> &cache::Counters {
        &self.cache
    }

    /// What becomes of spans.
    pub fn spans(&self) -> &spans::Counters {
        &self.spans
    }

    /// Everything, in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        text::encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("workers", &self.shared.workers.len()).finish()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

/// The cells of `name` at `worker`; the same ones each time, so that a listener which is
/// bound again after a reload goes on counting.
fn resolve<T: Default>(all: &Mutex<Named<T>>, name: &str, worker: usize) -> Arc<T> {
    let mut all = lock(all);
    let workers = match all.get_mut(name) {
        Some(workers) => workers,
        None => all.entry(name.into()).or_default(),
    };
    workers.entry(worker).or_default().clone()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are whole after every step, so a panic elsewhere leaves them usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
