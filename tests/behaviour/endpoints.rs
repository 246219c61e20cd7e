//! The admin endpoint: health, metrics, effective configuration.

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Reply, Served, Version, collect, eventually, over_versions,
};

over_versions!(requests_and_bytes_are_counted);

#[tokio::test]
async fn health_and_readiness() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(proxy.ask_admin("GET", path).await.status(), 200, "{path}");
        assert_eq!(proxy.ask_admin("HEAD", path).await.status(), 200, "{path}");
    }
    assert_eq!(proxy.ask_admin("GET", "/nothing").await.status(), 404);
    assert_eq!(proxy.ask_admin("POST", "/metrics").await.status(), 405);
}

#[req_test("REQ-CTRL-005")]
async fn requests_and_bytes_are_counted(version: Version) {
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.target() {
        "/missing" => Reply::from("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone"),
        _ => Reply::ok("answer!"),
    });
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    for _ in 0..3 {
        let out = OutBody::Full("hello".into());
        let answer = client.send(client.request(Method::POST, "/").body(out).unwrap()).await;
        collect(answer.unwrap().into_body()).await.unwrap();
    }
    collect(client.get("/missing").await.into_body()).await.unwrap();
    eventually("all requests to be counted", async || {
        proxy.metrics().await.sum("underpass_requests_total", &[]) == 4.0
    })
    .await;
    let metrics = proxy.metrics().await;
    let of = |name: &str| metrics.sum(&format!("underpass_{name}"), &[("listener", "reverse")]);
    assert_eq!(metrics.sum("underpass_requests_total", &[("status", "2xx")]), 3.0);
    assert_eq!(metrics.sum("underpass_requests_total", &[("status", "4xx")]), 1.0);
    assert_eq!(of("request_body_bytes_total"), 15.0);
    assert_eq!(of("response_body_bytes_total"), 25.0);
    assert_eq!(of("connections_accepted_total"), 1.0);
    assert_eq!(of("connections_open"), 1.0);
    assert_eq!(of("request_duration_seconds_count"), 4.0);
    assert_eq!(of("time_to_first_byte_seconds_count"), 4.0);
    assert_eq!(metrics.sum("underpass_upstream_connects_total", &[]), 1.0);
    assert_eq!(metrics.sum("underpass_upstream_reuses_total", &[]), 3.0);
    assert_eq!(metrics.sum("underpass_workers", &[]), 1.0);
    drop(client);
    eventually("the connection to be gone", async || {
        proxy.metrics().await.sum("underpass_connections_open", &[]) == 0.0
    })
    .await;
}

/// The format that Prometheus scrapes: TYPE and HELP for all, the prefix on all of ours.
#[tokio::test]
async fn metrics_are_well_formed() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let answer = proxy.ask_admin("GET", "/metrics").await;
    let kind = answer.head.get("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"));
    let metrics = underpass_tests::Metrics::parse(&text);
    for name in metrics.names() {
        assert!(name.starts_with("underpass_") || name.starts_with("process_"), "{name}");
    }
}

/// The control plane answers while every worker is busy, and the other way round.
#[req_test("REQ-CTRL-005")]
#[tokio::test]
async fn a_busy_data_plane_does_not_silence_the_admin_endpoint() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    // Admin connections that say nothing hold nobody up.
    let _silent = [
        underpass_tests::Wire::connect(proxy.admin()).await,
        underpass_tests::Wire::open(proxy.admin(), "GET /metr").await,
    ];
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    let size: u64 = 50 << 20;
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")).await;
    let moving = async {
        client.read_head().await;
        tokio::join!(server.exchange_pattern(size, false, 0), client.check_pattern(0, size))
    };
    let asking = async {
        for _ in 0..5 {
            assert_eq!(proxy.ask_admin("GET", "/healthz").await.status(), 200);
        }
    };
    tokio::join!(moving, asking);
}

#[tokio::test]
async fn the_configuration_in_force_is_shown() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("max_headers", "77").start();
    let shown = proxy.ask_admin("GET", "/config").await.text();
    assert!(shown.contains("77") && shown.contains(&origin.addr().to_string()), "{shown}");
}

/// A page of another site must neither read nor change anything (DNS rebinding, CSRF).
#[tokio::test]
async fn other_sites_are_kept_out() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let foreign = "GET /config HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let mut client = underpass_tests::Wire::open(proxy.admin(), foreign).await;
    assert_eq!(client.read_response().await.status(), 403);
    let delete = format!(
        "DELETE /tunnels/1 HTTP/1.1\r\nHost: {}\r\nOrigin: http://evil.example\r\n\
         Connection: close\r\n\r\n",
        proxy.admin()
    );
    let mut client = underpass_tests::Wire::open(proxy.admin(), delete).await;
    assert_eq!(client.read_response().await.status(), 403);
}

#[tokio::test]
async fn the_live_page_is_there() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let answer = proxy.ask_admin("GET", "/").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.head.get("content-type").is_some_and(|kind| kind.starts_with("text/html")));
}
