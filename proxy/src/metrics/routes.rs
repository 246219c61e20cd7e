//! Requests by route: status, duration and faults.
//!
//! Names of routes come from the configuration, never from traffic, and at most
//! [`MOST_SERIES`] of them have series of their own; what others do is added up under
//! [`OTHERS`]. Series of routes that a reload took away stay until their place is needed.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::{
    Named, WorkerMetrics,
    export::{CLASSES, counter, sum},
    histogram::{Histogram, Totals},
    lock,
};
use crate::error::{Kind, Side};

/// Routes with series of their own: some 30 each, and a scrape has to stay readable.
pub(super) const MOST_SERIES: usize = 1_000;

/// The name of all routes beyond that; no route can be called so.
pub(super) const OTHERS: &str = "(others)";

/// Counters of one route at one worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RouteMetrics(Arc<RouteCells>);

#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct RouteCells {
    /// By first digit of the status, 1 to 5.
    requests: [AtomicU64; 5],
    /// By [`Side`].
    errors: [AtomicU64; 3],
    duration: Histogram,
}

const SIDES: [(Side, &str); 3] =
    [(Side::Downstream, "downstream"), (Side::Upstream, "upstream"), (Side::Internal, "internal")];

impl WorkerMetrics {
    /// Counters of a route, by its name. Takes a lock: once per route and configuration, not
    /// per request.
    pub fn route(&self, name: &str) -> RouteMetrics {
        let mut all = lock(&self.shared.routes);
        if all.len() >= MOST_SERIES && !all.contains_key(name) {
            // Whatever no worker holds any more belongs to a route that is gone.
            all.retain(|_, workers| workers.values().any(|cells| Arc::strong_count(cells) > 1));
        }
        // One more, because the others are one of them.
        let has_room = all.len() < MOST_SERIES + usize::from(all.contains_key(OTHERS));
        let name = if has_room || all.contains_key(name) { name } else { OTHERS };
        let workers = all.entry(name.into()).or_default();
        RouteMetrics(workers.entry(self.index).or_default().clone())
    }
}

/// Implements: REQ-CTRL-006
impl RouteMetrics {
    /// A request has ended, answered with `status`; `fault`: what went wrong.
    pub fn request(&self, status: StatusCode, duration: Duration, fault: Option<Kind>) {
        let class = (status.as_u16() / 100).clamp(1, 5) as usize;
        self.0.requests[class - 1].fetch_add(1, Relaxed);
        self.0.duration.observe(duration);
        if let Some(kind) = fault {
            self.0.errors[kind.side() as usize].fetch_add(1, Relaxed);
        }
    }
}

pub(super) fn encode(out: &mut DescriptorEncoder<'_>, all: &Named<RouteCells>) -> fmt::Result {
    let help = "Requests that have ended, by route and class of status";
    counter(out, "route_requests", help, None, |one| {
        all.iter().try_for_each(|(route, workers)| {
            CLASSES.iter().enumerate().try_for_each(|(class, name)| {
                let count = sum(workers.values().map(|cells| &cells.requests[class]));
                one(&[("route", &**route), ("status", *name)], count)
            })
        })
    })?;
    let help = "Exchanges that went wrong, by route and by whose fault it was";
    counter(out, "route_errors", help, None, |one| {
        all.iter().try_for_each(|(route, workers)| {
            SIDES.iter().try_for_each(|(side, name)| {
                let count = sum(workers.values().map(|cells| &cells.errors[*side as usize]));
                one(&[("route", &**route), ("side", *name)], count)
            })
        })
    })?;
    let help = "From the head of a request to the end of its answer, by route";
    let name = "route_request_duration";
    let mut metric =
        out.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for (route, workers) in all {
        let mut totals = Totals::default();
        workers.values().for_each(|cells| totals.add(&cells.duration));
        metric.encode_family(&[("route", &**route)])?.encode_histogram::<NoLabelSet>(
            totals.sum_seconds(),
            totals.count(),
            &totals.buckets(),
            None,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::{super::Metrics, *};
    use crate::tunnel::registry::Registry as Tunnels;

    fn has(text: &str, series: &str) -> bool {
        text.lines().any(|line| line == series)
    }

    #[req_test("REQ-CTRL-006")]
    #[test]
    fn workers_are_added_up_by_route() {
        let metrics = Metrics::new(2, Tunnels::new());
        for worker in 0..2 {
            let api = metrics.worker(worker).route("api");
            api.request(StatusCode::OK, Duration::from_millis(2), None);
            api.request(StatusCode::BAD_GATEWAY, Duration::from_millis(2), Some(Kind::Connect));
            let gone = StatusCode::from_u16(499).unwrap();
            api.request(gone, Duration::from_millis(2), Some(Kind::ClientGone));
        }
        let text = metrics.encode();
        for series in [
            r#"underpass_route_requests_total{route="api",status="2xx"} 2"#,
            r#"underpass_route_requests_total{route="api",status="4xx"} 2"#,
            r#"underpass_route_requests_total{route="api",status="5xx"} 2"#,
            r#"underpass_route_errors_total{route="api",side="downstream"} 2"#,
            r#"underpass_route_errors_total{route="api",side="upstream"} 2"#,
            r#"underpass_route_errors_total{route="api",side="internal"} 0"#,
            r#"underpass_route_request_duration_seconds_count{route="api"} 6"#,
        ] {
            assert!(has(&text, series), "no {series} in\n{text}");
        }
    }

    /// However many routes there are and however often they change.
    #[req_test("REQ-CTRL-006")]
    #[test]
    fn the_number_of_series_is_bounded() {
        let metrics = Metrics::new(2, Tunnels::new());
        let series = |metrics: &Metrics| lock(&metrics.shared.routes).len();
        let routes = |prefix: &str| -> Vec<RouteMetrics> {
            let names = (0..MOST_SERIES + 50).map(|at| format!("{prefix}{at}"));
            let names: Vec<String> = names.collect();
            let workers = [0, 1].map(|worker| metrics.worker(worker));
            workers.iter().flat_map(|w| names.iter().map(|name| w.route(name))).collect()
        };
        let first = routes("a");
        assert_eq!(series(&metrics), MOST_SERIES + 1);
        first.iter().for_each(|route| route.request(StatusCode::OK, Duration::ZERO, None));
        let text = metrics.encode();
        assert!(has(&text, r#"underpass_route_requests_total{route="(others)",status="2xx"} 100"#));
        assert!(has(&text, r#"underpass_route_requests_total{route="a999",status="2xx"} 2"#));

        // While the routes before are in use, new ones find no room; afterwards they do.
        let second = routes("b");
        assert_eq!(series(&metrics), MOST_SERIES + 1);
        drop((first, second));
        let _third = routes("c");
        assert_eq!(series(&metrics), MOST_SERIES + 1);
        assert!(metrics.encode().contains(r#"route="c999""#));
    }
}
