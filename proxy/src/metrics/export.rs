//! A scrape: adds up the cells of all workers and gives them their names.
//!
//! Runs on the control plane. Every name that begins with `underpass_` is here, save the
//! one counter that the access log owns; `_total` and units are appended by the encoder.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::{
    Named, Shared,
    cells::{Again, KINDS, ListenerCells, UpstreamCells, WorkerCells, index},
    histogram::{Histogram, Totals},
    hops, intercept, lock, routes, servers, tls, tunnels, workers,
};
use crate::splice::Engine;

/// First digits of statuses, in the order of the cells.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug)]
pub(super) struct Exporter(pub(super) Arc<Shared>);

impl Collector for Exporter {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        build_info(out)?;
        self.0.configuration.encode(out)?;
        self.0.certificates.encode(out)?;
        workers::encode(out, &self.0)?;
        listeners(out, &lock(&self.0.listeners))?;
        tls::encode(out, &lock(&self.0.listeners))?;
        upstreams(out, &lock(&self.0.upstreams))?;
        routes::encode(out, &lock(&self.0.routes))?;
        let directory = Arc::clone(&lock(&self.0.directory));
        servers::encode(out, &directory)?;
        errors_and_tunnels(out, &self.0.workers)?;
        tunnels::encode(out, &self.0.tunnels.totals())?;
        intercept::encode(out)?;
        hops::encode(out)
    }
}

fn build_info(out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let labels = [("version", env!("CARGO_PKG_VERSION"))];
    out.encode_descriptor("build", "What is running", None, MetricType::Info)?.encode_info(&labels)
}

fn listeners(out: &mut DescriptorEncoder<'_>, all: &Named<ListenerCells>) -> fmt::Result {
    type Count = fn(&ListenerCells) -> &AtomicU64;
    let plain: [(&str, &str, Option<Unit>, Count); 5] = [
        ("connections_accepted", "Connections from clients", None, |c| &c.accepted),
        ("accept_pauses", "Pauses of accept because of the connection limit", None, |c| {
            &c.accept_pauses
        }),
        ("accept_errors", "Failures of accept", None, |c| &c.accept_errors),
        ("request_body", "Body bytes from clients", Some(Unit::Bytes), |c| &c.received_bytes),
        ("response_body", "Body bytes to clients", Some(Unit::Bytes), |c| &c.sent_bytes),
    ];
    for (name, help, unit, cell) in plain {
        counter(out, name, help, unit, |one| {
            all.iter().try_for_each(|(listener, workers)| {
                one(&[("listener", &**listener)], sum(workers.values().map(|c| cell(c))))
            })
        })?;
    }
    type Level = fn(&ListenerCells) -> &AtomicI64;
    let levels: [(&str, &str, Level); 2] = [
        ("connections_open", "Open connections of clients", |c| &c.open),
        ("connections_parked", "Those of them that are idle and hold no more than a socket", {
            |c| &c.parked
        }),
    ];
    for (name, help, cell) in levels {
        gauge(out, name, help, |one| {
            all.iter().try_for_each(|(listener, workers)| {
                one(&[("listener", &**listener)], level(workers.values().map(|c| cell(c))))
            })
        })?;
    }
    counter(out, "requests", "Requests that have ended, by class of status", None, |one| {
        all.iter().try_for_each(|(listener, workers)| {
            CLASSES.iter().enumerate().try_for_each(|(class, name)| {
                let count = sum(workers.values().map(|c| &c.requests[class]));
                one(&[("listener", &**listener), ("status", *name)], count)
            })
        })
    })?;
    type Distribution = fn(&ListenerCells) -> &Histogram;
    let distributions: [(&str, &str, Distribution); 2] = [
        ("request_duration", "From the head of a request to the end of its answer", |c| {
            &c.duration
        }),
        ("time_to_first_byte", "From the head of a request to the head of its answer", |c| &c.ttfb),
    ];
    for (name, help, cell) in distributions {
        let mut metric =
            out.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (listener, workers) in all {
            let mut totals = Totals::default();
            workers.values().for_each(|cells| totals.add(cell(cells)));
            metric.encode_family(&[("listener", &**listener)])?.encode_histogram::<NoLabelSet>(
                totals.sum_seconds(),
                totals.count(),
                &totals.buckets(),
                None,
            )?;
        }
    }
    Ok(())
}

fn upstreams(out: &mut DescriptorEncoder<'_>, all: &Named<UpstreamCells>) -> fmt::Result {
    type Count = fn(&UpstreamCells) -> &AtomicU64;
    let plain: [(&str, &str, Count); 7] = [
        ("upstream_connects", "Connections made to servers", |c| &c.connects),
        ("upstream_reuses", "Requests on a pooled connection", |c| &c.reuses),
        ("upstream_connect_failures", "Connections that could not be made", |c| {
            &c.connect_failures
        }),
        ("upstream_stale_retries", "Requests sent again because a pooled connection was dead", {
            |c| &c.stale_retries
        }),
        ("upstream_fast_opens", "Requests sent with the first segment of a connection", {
            |c| &c.opened_early
        }),
        ("upstream_fast_open_failures", "Of these, sent again on an ordinary connection", {
            |c| &c.early_failed
        }),
        ("upstream_hedges_won", "Requests that a second server was the first to answer", {
            |c| &c.hedges_won
        }),
    ];
    for (name, help, cell) in plain {
        counter(out, name, help, None, |one| {
            all.iter().try_for_each(|(upstream, workers)| {
                one(&[("upstream", &**upstream)], sum(workers.values().map(|c| cell(c))))
            })
        })?;
    }
    let help = "Requests that were sent to another server or once more, by reason";
    counter(out, "upstream_retries", help, None, |one| {
        all.iter().try_for_each(|(upstream, workers)| {
            Again::ALL.iter().try_for_each(|why| {
                let count = sum(workers.values().map(|c| &c.retries[*why as usize]));
                one(&[("upstream", &**upstream), ("reason", why.name())], count)
            })
        })
    })?;
    let help = "Requests that were not sent again because the budget was used up";
    counter(out, "upstream_retries_denied", help, None, |one| {
        all.iter().try_for_each(|(upstream, workers)| {
            let count = sum(workers.values().map(|c| &c.retries_denied));
            one(&[("upstream", &**upstream)], count)
        })
    })?;
    let help = "Idle connections to servers that hold no more than a socket";
    gauge(out, "upstream_connections_parked", help, |one| {
        all.iter().try_for_each(|(upstream, workers)| {
            one(&[("upstream", &**upstream)], level(workers.values().map(|c| &c.parked)))
        })
    })
}

fn errors_and_tunnels(out: &mut DescriptorEncoder<'_>, all: &[Arc<WorkerCells>]) -> fmt::Result {
    counter(out, "errors", "Exchanges that went wrong, by kind", None, |one| {
        KINDS.iter().try_for_each(|kind| {
            one(&[("kind", kind.name())], sum(all.iter().map(|c| &c.errors.0[index(*kind)])))
        })
    })?;
    counter(out, "tunnels_opened", "Tunnels, by the engine they began with", None, |one| {
        Engine::ALL.iter().try_for_each(|engine| {
            let count = sum(all.iter().map(|c| &c.tunnels_opened[*engine as usize]));
            one(&[("engine", engine.name())], count)
        })
    })?;
    gauge(out, "tunnels_open", "Open tunnels, by the engine they began with", |one| {
        Engine::ALL.iter().try_for_each(|engine| {
            let count = level(all.iter().map(|c| &c.tunnels_open[*engine as usize]));
            one(&[("engine", engine.name())], count)
        })
    })
}

/// Name and value of each label of a series.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

/// A counter whose series are what `series` hands to its argument.
pub(super) fn counter(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    series: impl FnOnce(&mut dyn FnMut(Labels<'_>, u64) -> fmt::Result) -> fmt::Result,
) -> fmt::Result {
    let mut metric = out.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
    series(&mut |labels, value| {
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    })
}

/// The same for a gauge.
pub(super) fn gauge(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl FnOnce(&mut dyn FnMut(Labels<'_>, i64) -> fmt::Result) -> fmt::Result,
) -> fmt::Result {
    let mut metric = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
    series(&mut |labels, value| metric.encode_family(&labels)?.encode_gauge(&value))
}

pub(super) fn sum<'a>(cells: impl Iterator<Item = &'a AtomicU64>) -> u64 {
    cells.map(|cell| cell.load(Relaxed)).sum()
}

pub(super) fn level<'a>(cells: impl Iterator<Item = &'a AtomicI64>) -> i64 {
    cells.map(|cell| cell.load(Relaxed)).sum()
}
