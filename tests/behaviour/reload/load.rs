//! Reloads while requests come as fast as they can be answered.

use mantra_macros::req_test;
use underpass_tests::{Load, Origin, Proxy, Served, Version, Wire, tunnel::Way};

use super::{ANY, answers, head, listener, route};

/// Reloads of one run.
const RELOADS: usize = 20;

#[req_test("REQ-EDGE-008", "REQ-CTRL-005")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_and_no_tunnel_ends() {
    let (one, two) = (answers("one").await, answers("two").await);
    let origin = Origin::bind().await;
    let target = origin.addr();
    let raw = route("raw", target, "listener = \"raw\"");
    let text = |server: &Served, extra: bool| {
        let more = if extra { listener("more", ANY, "") } else { String::new() };
        head("workers = 2")
            + &listener("web", ANY, "")
            + &listener("raw", ANY, "protocol = \"tcp\"")
            + &more
            + &raw
            + &route("one", server.addr(), "")
    };
    let mut proxy = Proxy::config(text(&one, false)).start();
    let mut client = Wire::open(proxy.listener("raw"), "").await;
    let mut server = Way::Tcp.accept(&origin).await;

    let web = proxy.listener("web");
    // Connections that are kept for long, and such that come and go.
    let loads = [(Version::H1, 1000), (Version::H1, 2), (Version::H2, 1000), (Version::H2, 2)]
        .map(|(version, requests)| Load::start(web, version, 2, requests));
    for turn in 0..RELOADS {
        for load in &loads {
            load.goes_on(10).await;
        }
        let server = if turn % 2 == 0 { &two } else { &one };
        proxy.reload(&text(server, turn % 3 == 0)).await;
    }
    for load in loads {
        load.goes_on(10).await;
        let report = load.stop().await;
        report.assert_whole();
        assert!(report.contents["one"] > 0 && report.contents["two"] > 0, "{report:?}");
    }
    client.send("there").await;
    server.expect("there").await;
    server.send("and back").await;
    client.expect("and back").await;
    assert_eq!(proxy.reloads().await, [RELOADS as f64, 0.0]);
}
