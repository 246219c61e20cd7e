//! The endpoint over a real socket, asked by a client that writes what it likes.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{config, error::Kind, metrics::Metrics};

struct Endpoint {
    address: SocketAddr,
    state: Arc<State>,
    drain: drain::Drain,
}

async fn endpoint() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tunnels = Arc::new(Registry::default());
    let metrics = Metrics::new(1, Registry::clone(&tunnels));
    let state = State::new(metrics, tunnels, Arc::default(), "workers = 1\n".into());
    let (drain, watch) = drain::channel();
    tokio::spawn(serve(listener, state.clone(), watch));
    Endpoint { address, state, drain }
}

impl Endpoint {
    /// Sends `head` and returns all that comes until the end.
    async fn raw(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn ask(&self, method: &str, path: &str, more: &str) -> String {
        let host = self.address;
        self.raw(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n"
        ))
        .await
    }

    async fn get(&self, path: &str) -> String {
        self.ask("GET", path, "").await
    }
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let endpoint = endpoint().await;
    endpoint.state.metrics.worker(0).error(Kind::Connect);
    let answer = endpoint.get("/metrics").await;
    assert_eq!(status(&answer), "200");
    assert!(
        answer.contains(
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
        )
    );
    assert!(answer.contains("\nunderpass_errors_total{kind=\"connect\"} 1\n"));
    assert!(answer.ends_with("# EOF\n"));
}

#[tokio::test]
async fn alive_always_ready_only_between_start_and_drain() {
    let endpoint = endpoint().await;
    for (stage, code, reason) in [
        (Stage::Starting, "503", "starting\n"),
        (Stage::Ready, "200", "ready\n"),
        (Stage::Draining, "503", "draining\n"),
        // There is no way back.
        (Stage::Ready, "503", "draining\n"),
    ] {
        endpoint.state.readiness.reach(stage);
        let answer = endpoint.get("/readyz").await;
        assert_eq!((status(&answer), body(&answer)), (code, reason));
        assert_eq!(status(&endpoint.get("/healthz").await), "200");
    }
}

#[tokio::test]
async fn tunnels_are_json_and_end_by_number() {
    let endpoint = endpoint().await;
    let answer = endpoint.get("/tunnels").await;
    assert_eq!((status(&answer), body(&answer)), ("200", "[]"));
    assert!(answer.contains("content-type: application/json\r\n"));
    assert_eq!(status(&endpoint.ask("DELETE", "/tunnels/7", "").await), "404");
    for bad in ["", "x", "-1", "+1", "1/2", "99999999999999999999", "%31"] {
        let answer = endpoint.ask("DELETE", &format!("/tunnels/{bad}"), "").await;
        assert_eq!(status(&answer), "400", "{bad:?}");
    }
    let answer = endpoint.ask("GET", "/tunnels/7", "").await;
    assert_eq!(status(&answer), "405");
    assert!(answer.contains("allow: DELETE\r\n"), "{answer}");
}

#[tokio::test]
async fn upstreams_are_json() {
    let endpoint = endpoint().await;
    assert_eq!(body(&endpoint.get("/upstreams").await), "[]");
    let group =
        config::Upstream::with_defaults("api", vec![config::value::server("a:80").unwrap()]);
    let group = endpoint.state.upstreams.apply(&[group]).remove(0);
    group.set_weight("a:80", Some(3));
    group.set_drain("a:80", Some(true));
    assert_eq!(
        body(&endpoint.get("/upstreams").await),
        r#"[{"name":"api","balance":"round_robin","servers":[{"address":"a:80","name":null,"state":"draining","weight":3,"configured_weight":1,"backup":false,"draining":true,"in_flight":null,"latency_ms":null,"errors":null,"ejections":0,"ejected_for_ms":null,"checks":null}]}]"#
    );
}

#[tokio::test]
async fn the_configuration_shown_is_the_one_in_force() {
    let endpoint = endpoint().await;
    assert_eq!(body(&endpoint.get("/config").await), "workers = 1\n");
    endpoint.state.config_text.store(Arc::new("workers = 2\n".into()));
    assert_eq!(body(&endpoint.get("/config").await), "workers = 2\n");
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let endpoint = endpoint().await;
    let page = endpoint.get("/").await;
    assert_eq!(status(&page), "200");
    assert!(page.contains("content-security-policy: default-src 'none'; script-src 'self'"));
    for part in ["/live.js", "/live.css"] {
        let answer = endpoint.get(part).await;
        assert_eq!(status(&answer), "200", "{part}");
        assert!(!answer.contains("://"), "{part}");
        assert!(!answer.contains("innerHTML"), "{part}");
    }
    assert!(!body(&page).contains("://"));
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let endpoint = endpoint().await;
    assert_eq!(status(&endpoint.get("/nothing").await), "404");
    let answer = endpoint.ask("POST", "/metrics", "Content-Length: 0\r\n").await;
    assert_eq!(status(&answer), "405");
    assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    let answer = endpoint.ask("HEAD", "/config", "").await;
    assert_eq!((status(&answer), body(&answer)), ("200", ""));
}

#[tokio::test]
async fn other_sites_are_kept_out() {
    let endpoint = endpoint().await;
    let rebound = "GET /tunnels HTTP/1.1\r\nHost: rebound.example.org\r\nConnection: close\r\n\r\n";
    let answer = endpoint.raw(rebound).await;
    assert_eq!(status(&answer), "403");
    assert!(!answer.contains("access-control"), "{answer}");
    let answer = endpoint.ask("DELETE", "/tunnels/1", "Origin: http://example.org\r\n").await;
    assert_eq!(status(&answer), "403");
    let own = format!("Origin: http://{}\r\n", endpoint.address);
    let answer = endpoint.ask("DELETE", "/tunnels/1", &own).await;
    assert_eq!(status(&answer), "404");
}

#[tokio::test]
async fn a_place_is_free_again_when_its_connection_has_gone() {
    let endpoint = endpoint().await;
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        // Answered, so it has its place.
        let host = endpoint.address;
        let ask = format!("HEAD /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        held.push(stream);
    }
    let waiting = endpoint.get("/healthz");
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_millis(50), waiting.as_mut()).await.is_err());
    held.pop();
    assert_eq!(status(&waiting.await), "200");
}

#[tokio::test]
async fn it_ends_with_its_drain_and_idle_connections_do_not_hold_it() {
    let mut endpoint = endpoint().await;
    let mut idle = TcpStream::connect(endpoint.address).await.unwrap();
    let ask = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", endpoint.address);
    idle.write_all(ask.as_bytes()).await.unwrap();
    idle.read_exact(&mut [0]).await.unwrap();
    assert!(endpoint.drain.wait(Duration::from_secs(5)).await);
    assert!(TcpStream::connect(endpoint.address).await.is_err());
}

// The clock is paused, so it leaps to the next timer once nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn half_a_head_and_an_idle_connection_are_closed_in_time() {
    let endpoint = endpoint().await;
    let begun = tokio::time::Instant::now();
    for head in ["GET /healthz HTTP/1.1\r\nHost:", "HEAD /healthz HTTP/1.1\r\nHost: [::1]\r\n\r\n"]
    {
        endpoint.raw(head).await;
    }
    assert!(begun.elapsed() <= 2 * HEAD_TIMEOUT + Duration::from_secs(1), "{:?}", begun.elapsed());
}
