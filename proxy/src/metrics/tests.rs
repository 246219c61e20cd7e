//! What a scrape shows after workers have counted.

use std::time::Duration;

use http::StatusCode;

use super::{
    cells::{KINDS, index},
    *,
};
use crate::{error::Kind, splice::Engine};

/// Value of the one series that is written exactly so.
fn value(text: &str, series: &str) -> f64 {
    let prefix = format!("{series} ");
    let mut found = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let value = found.next().unwrap_or_else(|| panic!("no {series} in\n{text}"));
    assert_eq!(found.next(), None, "{series} twice");
    value.parse().unwrap()
}

#[test]
fn every_kind_of_error_has_its_own_cell() {
    for (i, kind) in KINDS.into_iter().enumerate() {
        assert_eq!(index(kind), i, "{kind:?}");
    }
}

#[test]
fn a_scrape_adds_up_the_workers() {
    let metrics = Metrics::new(2, Tunnels::new());
    for worker in 0..2 {
        let web = metrics.worker(worker).listener("web");
        web.request(StatusCode::OK, Some(Duration::from_millis(2)), Duration::from_millis(40));
        web.request(StatusCode::NOT_FOUND, None, Duration::from_millis(1));
        web.received(10);
        web.sent(1_000);
        web.accept_paused();
        let api = metrics.worker(worker).upstream("api");
        api.connected();
        api.reused();
        api.reused();
        api.connect_failed();
        api.stale_retry();
        metrics.worker(worker).error(Kind::BadRequest("two lengths"));
    }
    metrics.worker(1).listener("web").accept_error();
    metrics.placed(1, &Place { cpus: vec![2, 3], node: Some(1) });
    let _open = metrics.worker(1).listener("web").connection();
    metrics.access_log_dropped().inc_by(7);

    let text = metrics.encode();
    let expected = [
        (r#"underpass_requests_total{listener="web",status="2xx"}"#, 2.0),
        (r#"underpass_requests_total{listener="web",status="4xx"}"#, 2.0),
        (r#"underpass_requests_total{listener="web",status="5xx"}"#, 0.0),
        (r#"underpass_request_duration_seconds_count{listener="web"}"#, 4.0),
        (r#"underpass_request_duration_seconds_sum{listener="web"}"#, 0.082),
        (r#"underpass_request_duration_seconds_bucket{le="0.001",listener="web"}"#, 2.0),
        (r#"underpass_request_duration_seconds_bucket{le="+Inf",listener="web"}"#, 4.0),
        (r#"underpass_time_to_first_byte_seconds_count{listener="web"}"#, 2.0),
        (r#"underpass_request_body_bytes_total{listener="web"}"#, 20.0),
        (r#"underpass_response_body_bytes_total{listener="web"}"#, 2_000.0),
        (r#"underpass_accept_pauses_total{listener="web"}"#, 2.0),
        (r#"underpass_accept_errors_total{listener="web"}"#, 1.0),
        (r#"underpass_upstream_connects_total{upstream="api"}"#, 2.0),
        (r#"underpass_upstream_reuses_total{upstream="api"}"#, 4.0),
        (r#"underpass_upstream_connect_failures_total{upstream="api"}"#, 2.0),
        (r#"underpass_upstream_stale_retries_total{upstream="api"}"#, 2.0),
        (r#"underpass_errors_total{kind="bad_request"}"#, 2.0),
        (r#"underpass_errors_total{kind="connect"}"#, 0.0),
        ("underpass_access_log_lines_dropped_total", 7.0),
        ("underpass_workers", 2.0),
        (r#"underpass_worker_place{worker="1",cpus="2-3",node="1"}"#, 1.0),
        (r#"underpass_worker_connections_accepted_total{worker="0"}"#, 0.0),
        (r#"underpass_worker_connections_open{worker="1"}"#, 1.0),
        (concat!(r#"underpass_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""}"#), 1.0),
    ];
    for (series, count) in expected {
        assert!((value(&text, series) - count).abs() < 1e-9, "{series}: {}", value(&text, series));
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn what_is_open_is_given_back_when_dropped() {
    let metrics = Metrics::new(1, Tunnels::new());
    let worker = metrics.worker(0);
    let connection = worker.listener("web").connection();
    let mut tunnel = worker.tunnel(Engine::Copy);
    tunnel.switched(Engine::Pipe);

    let text = metrics.encode();
    assert_eq!(value(&text, r#"underpass_connections_open{listener="web"}"#), 1.0);
    assert_eq!(value(&text, r#"underpass_tunnels_open{engine="copy"}"#), 0.0);
    assert_eq!(value(&text, r#"underpass_tunnels_open{engine="pipe"}"#), 1.0);

    drop((connection, tunnel));
    let text = metrics.encode();
    assert_eq!(value(&text, r#"underpass_connections_open{listener="web"}"#), 0.0);
    assert_eq!(value(&text, r#"underpass_connections_accepted_total{listener="web"}"#), 1.0);
    assert_eq!(value(&text, r#"underpass_tunnels_open{engine="pipe"}"#), 0.0);
    assert_eq!(value(&text, r#"underpass_tunnels_opened_total{engine="copy"}"#), 1.0);
}

#[test]
fn a_listener_bound_again_goes_on_counting() {
    let metrics = Metrics::new(1, Tunnels::new());
    for _ in 0..2 {
        metrics.worker(0).listener("web").sent(1);
    }
    let text = metrics.encode();
    assert_eq!(value(&text, r#"underpass_response_body_bytes_total{listener="web"}"#), 2.0);
}

#[test]
fn the_process_is_measured() {
    let text = Metrics::new(1, Tunnels::new()).encode();
    assert!(value(&text, "process_resident_memory_bytes") > 100_000.0);
    assert!(value(&text, "process_open_fds") >= 3.0);
    assert!(value(&text, "process_cpu_seconds_total") >= 0.0);
    assert!(value(&text, "process_max_fds") > 0.0);
    assert!(value(&text, "process_start_time_seconds") > 1.7e9);
}
