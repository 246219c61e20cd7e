//! What is sent again and what is not, within which budget, and that a server in trouble harms
//! nobody who can be spared.

use std::time::{Duration, Instant};

use mantra_macros::req_test;
use underpass_tests::{Fickle, Mode, Proxy, Version, Wire, eventually, load::Load};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi";

/// A proxy with so many workers and one upstream of these servers.
fn proxy(workers: usize, servers: &[&Fickle], lines: &str) -> Proxy {
    let servers: Vec<String> = servers.iter().map(|s| format!("\"{}\"", s.addr())).collect();
    Proxy::config(format!(
        "workers = {workers}\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [limits]\nconnect_timeout = \"5s\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"api\"\n[[upstream]]\nname = \"api\"\n\
         servers = [{}]\n{lines}\n",
        servers.join(", ")
    ))
    .start()
}

async fn three() -> [Fickle; 3] {
    [Fickle::up("a").await, Fickle::up("b").await, Fickle::up("c").await]
}

async fn status(client: &mut Wire, request: &str) -> u16 {
    client.send(request).await;
    client.read_response().await.status()
}

async fn state(proxy: &Proxy, server: &Fickle, state: &str) -> bool {
    let address = server.addr().to_string();
    let labels = [("server", address.as_str()), ("state", state)];
    proxy.metrics().await.sum("underpass_server_state", &labels) == 1.0
}

/// Each server in turn resets all it has, is gone for a while, and comes back.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_rolling_restart_fails_no_request_that_was_safe_to_send_again() {
    let [a, b, c] = three().await;
    let lines = "[upstream.retry]\nmax_retries = 3\nbudget_percent = 100\n\
                 budget_min_per_second = 1000\n";
    let proxy = proxy(2, &[&a, &b, &c], lines);
    let load = Load::start(proxy.addr(), Version::H1, 6, 20);
    for _ in 0..2 {
        for server in [&a, &b, &c] {
            load.goes_on(60).await;
            server.become_(Mode::Refusing);
            load.goes_on(60).await;
            server.become_(Mode::Up);
        }
    }
    load.goes_on(60).await;
    let report = load.stop().await;
    report.assert_whole();
    assert!(["a", "b", "c"].iter().all(|name| report.contents[*name] > 20), "{report:?}");
}

/// One of three is in trouble: no request fails, it is left alone and taken back, and what is
/// sent again keeps to its budget.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_server_in_trouble_harms_nobody_else() {
    for mode in [
        Mode::Refusing,
        Mode::Silent,
        Mode::Closing,
        Mode::Status(503),
        Mode::Raw("SSH-2.0-nothing of the kind\r\n"),
        Mode::Slow(Duration::from_secs(60)),
    ] {
        let [a, b, c] = three().await;
        let lines = "[upstream.retry]\nmax_retries = 2\non_status = [503]\n\
                     per_try_timeout = \"500ms\"\nbudget_percent = 20\nbudget_min_per_second = 10\n\
                     [upstream.ejection]\nconsecutive_errors = 3\non_5xx = true\ntime = \"500ms\"\n";
        let proxy = proxy(2, &[&a, &b, &c], lines);
        let begin = Instant::now();
        let load = Load::start(proxy.addr(), Version::H1, 4, 50);
        load.goes_on(60).await;
        a.become_(mode.clone());
        eventually("the server to be ejected", async || state(&proxy, &a, "ejected").await).await;
        load.goes_on(100).await;
        a.become_(Mode::Up);
        eventually("the server to be back", async || state(&proxy, &a, "up").await).await;
        let had = a.requests();
        eventually("requests to the server", async || a.requests() > had + 5).await;
        let report = load.stop().await;
        report.assert_whole();

        let metrics = proxy.metrics().await;
        let retries = ["failure", "status", "timeout"]
            .map(|reason| metrics.sum("underpass_upstream_retries_total", &[("reason", reason)]));
        let sent = retries.iter().sum::<f64>();
        let most = report.answers() as f64 * 0.2 + 10.0 * (begin.elapsed().as_secs_f64() + 1.0);
        assert!(sent <= most, "{mode:?}: {sent} of {} sent again", report.answers());
        if mode != Mode::Refusing {
            assert!(sent > 0.0, "{mode:?}: nothing was sent again");
        }
    }
}

/// When all servers fail, retries stay a part of the load and do not multiply it.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn retries_are_within_the_budget() {
    let [a, b, _] = three().await;
    a.become_(Mode::Status(503));
    b.become_(Mode::Status(503));
    let lines = "[upstream.retry]\nmax_retries = 3\non_status = [502, 503]\nbudget_percent = 20\n\
                 budget_min_per_second = 0\n";
    let proxy = proxy(1, &[&a, &b], lines);
    let mut client = proxy.connect().await;
    for _ in 0..100 {
        assert_eq!(status(&mut client, GET).await, 503);
    }
    assert_eq!(a.requests() + b.requests(), 120);
    let metrics = proxy.metrics().await;
    let of = |name: &str| metrics.sum(&format!("underpass_upstream_{name}"), &[]);
    assert_eq!(of("retries_total"), 20.0);
    assert_eq!(of("retries_denied_total"), 100.0 - 20.0 + 20.0);
}

/// Only what is idempotent, has no body and was not answered; and at another server.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn only_what_is_safe_is_sent_again_and_elsewhere() {
    let lines = "[upstream.retry]\non_status = [503]\n";
    for mode in [Mode::Status(503), Mode::Closing, Mode::Raw("nonsense\r\n\r\n")] {
        let [a, b, _] = three().await;
        a.become_(mode.clone());
        let proxy = proxy(1, &[&a, &b], lines);
        let mut client = proxy.connect().await;
        for _ in 0..6 {
            assert_eq!(status(&mut client, GET).await, 200, "{mode:?}");
        }
        let (at_a, at_b) = (a.requests(), b.requests());
        assert_eq!(at_b, 6, "{mode:?}: all were answered by the other one");
        let said = [status(&mut client, POST).await, status(&mut client, POST).await];
        let failed = said.iter().filter(|status| **status != 200).count();
        assert_eq!(failed, 1, "{mode:?}: {said:?}");
        assert_eq!((a.requests(), b.requests()), (at_a + 1, at_b + 1), "{mode:?}");
    }
    // Other statuses are passed on, and so is all where nothing is said.
    let [a, b, _] = three().await;
    a.become_(Mode::Status(500));
    b.become_(Mode::Status(503));
    let other = proxy(1, &[&a], lines);
    assert_eq!(status(&mut other.connect().await, GET).await, 500);
    let none = proxy(1, &[&b, &a], "");
    assert_eq!(status(&mut none.connect().await, GET).await, 503);
}

#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_request_does_not_wait_for_a_silent_server_for_ever() {
    let [a, b, _] = three().await;
    a.become_(Mode::Silent);
    let proxy = proxy(1, &[&a, &b], "[upstream.retry]\nper_try_timeout = \"1s\"\n");
    let mut client = proxy.connect().await;
    assert_eq!([status(&mut client, GET).await, status(&mut client, GET).await], [200; 2]);
    assert_eq!(a.requests(), 1);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_upstream_retries_total", &[("reason", "timeout")]), 1.0);
}
