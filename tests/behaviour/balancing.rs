//! Which of several servers is asked: weights, backups, servers that drain.

use mantra_macros::req_test;
use serde_json::Value;
use underpass_tests::{Proxy, Refusing, Reply, Served, Wire};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A proxy with one worker and one upstream, `api`, of which these are the lines.
fn proxy(lines: &str) -> Proxy {
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"api\"\n[[upstream]]\nname = \"api\"\n{lines}"
    ))
    .start()
}

/// Asks as often, on one connection.
async fn ask(client: &mut Wire, times: usize) {
    for _ in 0..times {
        client.send(GET).await;
        client.expect_status(200).await;
    }
}

/// The servers of the only upstream.
async fn servers(proxy: &Proxy) -> Vec<Value> {
    let answer = proxy.ask_admin("GET", "/upstreams").await;
    let upstreams: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(upstreams[0]["name"], "api");
    upstreams[0]["servers"].as_array().expect("servers").clone()
}

#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn requests_are_shared_in_proportion_to_weights() {
    let (a, b) = (Served::always(Reply::ok("a")).await, Served::always(Reply::ok("b")).await);
    let proxy = proxy(&format!(
        "servers = [\"{}\", {{ address = \"{}\", weight = 3 }}]\n",
        a.addr(),
        b.addr()
    ));
    ask(&mut proxy.connect().await, 40).await;
    assert_eq!((a.seen().len(), b.seen().len()), (10, 30));
    let servers = servers(&proxy).await;
    assert_eq!(servers[1]["address"], b.addr().to_string());
    assert_eq!((&servers[1]["weight"], &servers[1]["state"]), (&3.into(), &"up".into()));
}

/// A backup is for when there is nobody else: not while others do, but behind those that
/// refuse.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_backup_is_asked_when_the_others_are_gone() {
    let (a, spare) = (Served::ok().await, Served::ok().await);
    let lines = |first: std::net::SocketAddr| {
        format!(
            "servers = [\"{first}\"]\n[[upstream.server]]\naddress = \"{}\"\nbackup = true\n",
            spare.addr()
        )
    };
    let whole = proxy(&lines(a.addr()));
    ask(&mut whole.connect().await, 5).await;
    assert_eq!((a.seen().len(), spare.seen().len()), (5, 0));

    let refusing = Refusing::bind();
    let broken = proxy(&lines(refusing.addr()));
    ask(&mut broken.connect().await, 5).await;
    assert_eq!(spare.seen().len(), 5);
}

#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_server_that_drains_gets_nothing_and_without_any_other_503() {
    let (a, b) = (Served::ok().await, Served::ok().await);
    let lines = |b_too: bool| {
        format!(
            "servers = [{{ address = \"{}\", drain = true }}, {{ address = \"{}\", drain = {b_too} }}]\n",
            a.addr(),
            b.addr()
        )
    };
    let one = proxy(&lines(false));
    ask(&mut one.connect().await, 5).await;
    assert_eq!((a.seen().len(), b.seen().len()), (0, 5));
    let states = servers(&one).await;
    assert_eq!((&states[0]["state"], &states[1]["state"]), (&"draining".into(), &"up".into()));

    let none = proxy(&lines(true));
    let mut client = none.connect().await;
    client.send(GET).await;
    client.expect_status(503).await;
    let metrics = none.metrics().await;
    assert_eq!(metrics.sum("underpass_errors_total", &[("kind", "no_server")]), 1.0);
}
