//! Servers that are not well: found by checks or by requests, left alone, and taken back.

use std::time::Duration;

use mantra_macros::req_test;
use serde_json::Value;
use underpass_tests::{Fickle, Mode, Proxy, eventually};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// Checks that come quickly.
const CHECKS: &str = "[upstream.health]\npath = \"/health\"\ninterval = \"250ms\"\n\
                      timeout = \"250ms\"\nrise = 2\nfall = 2\n";

/// A proxy with so many workers and one upstream of these servers.
fn proxy(workers: usize, servers: &[&Fickle], lines: &str) -> Proxy {
    Proxy::config(text(workers, servers, lines)).start()
}

/// Its configuration.
fn text(workers: usize, servers: &[&Fickle], lines: &str) -> String {
    let servers: Vec<String> = servers.iter().map(|s| format!("\"{}\"", s.addr())).collect();
    format!(
        "workers = {workers}\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [limits]\nresponse_timeout = \"1s\"\nconnect_timeout = \"500ms\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"api\"\n[[upstream]]\nname = \"api\"\n\
         servers = [{}]\n{lines}\n",
        servers.join(", ")
    )
}

async fn three() -> [Fickle; 3] {
    [Fickle::up("a").await, Fickle::up("b").await, Fickle::up("c").await]
}

/// What `/upstreams` says of a server.
async fn server(proxy: &Proxy, server: &Fickle) -> Value {
    let answer = proxy.ask_admin("GET", "/upstreams").await;
    let upstreams: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let servers = upstreams[0]["servers"].as_array().expect("servers");
    let address = server.addr().to_string();
    servers.iter().find(|s| s["address"] == address.as_str()).expect("the server").clone()
}

/// Waits until a server stands so, in `/upstreams` and in the metrics.
async fn until(proxy: &Proxy, fickle: &Fickle, state: &str) {
    let address = fickle.addr().to_string();
    let labels = [("server", address.as_str()), ("state", state)];
    eventually(&format!("a server that is {state}"), async || {
        server(proxy, fickle).await["state"] == state
            && proxy.metrics().await.sum("underpass_server_state", &labels) == 1.0
    })
    .await;
}

/// Asks as often, each time on a connection of its own, and returns the statuses.
async fn statuses(proxy: &Proxy, times: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..times {
        statuses.push(proxy.open(GET).await.read_response().await.status());
    }
    statuses
}

/// Whatever ails it: checks find it, nobody is sent there, and they find it well again.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn checks_take_a_server_out_and_back() {
    for mode in [
        Mode::Refusing,
        Mode::Silent,
        Mode::Closing,
        Mode::Status(503),
        Mode::Raw("SSH-2.0-nothing of the kind\r\n"),
        Mode::Slow(Duration::from_secs(5)),
    ] {
        let [a, b, c] = three().await;
        let proxy = proxy(1, &[&a, &b, &c], CHECKS);
        until(&proxy, &a, "up").await;
        a.become_(mode.clone());
        until(&proxy, &a, "down").await;
        let view = server(&proxy, &a).await;
        assert!(view["checks"]["finding"].is_string(), "{mode:?}: {view}");
        let before = a.requests();
        assert_eq!(statuses(&proxy, 9).await, [200; 9], "{mode:?}");
        assert_eq!(a.requests(), before, "{mode:?}: a request to a server that is down");

        a.become_(Mode::Up);
        until(&proxy, &a, "up").await;
        assert_eq!(statuses(&proxy, 9).await, [200; 9], "{mode:?}");
        assert!(a.requests() > before, "{mode:?}: no request after its return");
    }
}

/// Other settings: the checks of before end, and nothing that they would find counts.
#[req_test("REQ-EDGE-003", "REQ-EDGE-008")]
#[tokio::test]
async fn a_reload_with_other_checks_ends_those_of_before() {
    let a = Fickle::up("a").await;
    let mut proxy = proxy(1, &[&a], CHECKS);
    until(&proxy, &a, "up").await;
    // To this path checks are counted as requests.
    proxy.reload(&text(1, &[&a], &CHECKS.replace("/health", "/ready"))).await;
    let more = async |times: usize| {
        let before = a.requests();
        eventually("checks of the other path", async || a.requests() >= before + times).await;
    };
    more(1).await;
    let before = a.checks();
    more(6).await;
    assert_eq!(a.checks(), before, "the checks of before go on");
}

/// Checks are the process's: more workers make no more of them.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn checks_are_made_once_for_all_workers() {
    let a = Fickle::up("a").await;
    let proxy = proxy(4, &[&a], CHECKS);
    until(&proxy, &a, "up").await;
    let before = a.checks();
    let begin = std::time::Instant::now();
    tokio::time::sleep(Duration::from_millis(900)).await;
    let most = begin.elapsed().as_millis() as usize / 225 + 2;
    let made = a.checks() - before;
    assert!((2..=most).contains(&made), "{made} checks, at most {most}");
    assert_eq!(a.requests(), 0);
    eventually("the checks to be counted", async || {
        let metrics = proxy.metrics().await;
        metrics.sum("underpass_server_checks_total", &[("result", "passed")]) >= made as f64
    })
    .await;
}

#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_check_asks_what_it_is_told_to() {
    let [a, b, c] = three().await;
    b.become_(Mode::Status(204));
    let checks = |more: &str| format!("{CHECKS}{more}");
    // Its status is good, its body is another.
    let by_body = proxy(1, &[&a, &c], &checks("contains = \"a\"\n"));
    until(&by_body, &c, "down").await;
    until(&by_body, &a, "up").await;
    let by_status = proxy(1, &[&a, &b], &checks("expect = [\"204-299\"]\n"));
    until(&by_status, &a, "down").await;
    until(&by_status, &b, "up").await;
    // By TCP any server is well that takes a connection.
    a.become_(Mode::Status(500));
    let tcp = "[upstream.health]\ntype = \"tcp\"\ninterval = \"50ms\"\n";
    let by_tcp = proxy(1, &[&a, &b], tcp);
    eventually("a check", async || server(&by_tcp, &a).await["checks"]["passed"] != 0).await;
    until(&by_tcp, &a, "up").await;
    b.become_(Mode::Refusing);
    until(&by_tcp, &b, "down").await;
}

/// With nobody well the checks may be what is wrong.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn with_no_server_well_all_are_asked() {
    let [a, b, _] = three().await;
    let proxy = proxy(1, &[&a, &b], &format!("{CHECKS}contains = \"never\"\n"));
    until(&proxy, &a, "down").await;
    until(&proxy, &b, "down").await;
    assert_eq!(statuses(&proxy, 4).await, [200; 4]);
    assert_eq!((a.requests(), b.requests()), (2, 2));
}

const EJECTION: &str =
    "[upstream.ejection]\nconsecutive_errors = 3\non_5xx = true\ntime = \"3s\"\n";

/// Requests show that a server is not well; the others are unharmed meanwhile.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn requests_that_fail_eject_a_server_until_its_time_is_over() {
    for mode in [
        Mode::Refusing,
        Mode::Closing,
        Mode::Silent,
        Mode::Status(500),
        Mode::Raw("SSH-2.0-nothing of the kind\r\n"),
    ] {
        let [a, b, c] = three().await;
        let proxy = proxy(1, &[&a, &b, &c], EJECTION);
        a.become_(mode.clone());
        let said = statuses(&proxy, 9).await;
        // A refused connection is tried elsewhere.
        let failed = if mode == Mode::Refusing { 0 } else { 3 };
        let bad = said.iter().filter(|status| **status != 200).count();
        assert_eq!(bad, failed, "{mode:?}: {said:?}");
        until(&proxy, &a, "ejected").await;
        let address = a.addr().to_string();
        let labels = [("server", address.as_str())];
        let count = proxy.metrics().await.sum("underpass_server_ejections_total", &labels);
        assert_eq!(count, 1.0, "{mode:?}");
        let before = a.requests();
        assert_eq!(statuses(&proxy, 6).await, [200; 6], "{mode:?}");
        assert_eq!(a.requests(), before, "{mode:?}: a request to an ejected server");

        a.become_(Mode::Up);
        until(&proxy, &a, "up").await;
        assert_eq!(statuses(&proxy, 6).await, [200; 6], "{mode:?}");
        assert!(a.requests() > before, "{mode:?}: it has not come back");
    }
}

/// One failure after its return is enough, and it is for longer.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_server_that_flaps_is_ejected_sooner_and_for_longer() {
    let [a, b, c] = three().await;
    let proxy = proxy(1, &[&a, &b, &c], EJECTION);
    a.become_(Mode::Status(500));
    statuses(&proxy, 9).await;
    eventually("a second ejection", async || {
        let bad = statuses(&proxy, 3).await.iter().filter(|status| **status != 200).count();
        assert!(bad <= 1, "{bad} of three failed");
        server(&proxy, &a).await["ejections"] == 2
    })
    .await;
    let left = server(&proxy, &a).await["ejected_for_ms"].as_u64().expect("ejected");
    assert!((3001..=6000).contains(&left), "{left} ms left");
    // 3 failures, and 1.
    assert_eq!(a.requests(), 4);
}

/// Half of four at most: when more fail, they are asked on.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn no_more_than_so_many_are_ejected() {
    let [a, b, c] = three().await;
    let d = Fickle::up("d").await;
    let proxy = proxy(1, &[&a, &b, &c, &d], &EJECTION.replace("3s", "1h"));
    for server in [&a, &b, &c] {
        server.become_(Mode::Status(500));
    }
    statuses(&proxy, 40).await;
    let mut ejected = 0;
    for fickle in [&a, &b, &c, &d] {
        ejected += usize::from(server(&proxy, fickle).await["state"] == "ejected");
    }
    assert_eq!(ejected, 2);
}

/// Connections of tcp listeners take part: one that is refused counts, and goes elsewhere.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn tcp_listeners_share_health_with_everybody() {
    let [a, b, _] = three().await;
    a.become_(Mode::Refusing);
    // What it accepts until then it resets, and that is passed on.
    eventually("a server to refuse", async || {
        tokio::net::TcpStream::connect(a.addr()).await.is_err()
    })
    .await;
    let proxy = Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"db\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         [[route]]\nlistener = \"db\"\nupstream = \"api\"\n[[upstream]]\nname = \"api\"\n\
         servers = [\"{}\", \"{}\"]\n{EJECTION}",
        a.addr(),
        b.addr()
    ))
    .start();
    assert_eq!(statuses(&proxy, 6).await, [200; 6]);
    until(&proxy, &a, "ejected").await;
}

/// What is back gets its full share by and by.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_server_that_is_well_again_starts_slowly() {
    let [a, b, _] = three().await;
    let proxy = proxy(1, &[&a, &b], &format!("slow_start = \"1h\"\n{CHECKS}"));
    a.become_(Mode::Refusing);
    until(&proxy, &a, "down").await;
    a.become_(Mode::Up);
    until(&proxy, &a, "up").await;
    assert_eq!(statuses(&proxy, 44).await, [200; 44]);
    // A tenth of the other's weight: 4 of 44.
    assert!((3..=5).contains(&a.requests()), "{}", a.requests());
}
