//! `--take-over`: nobody is refused or reset, whatever the number of workers, and the process
//! before finishes what it has.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{
    HttpClient, Load, Origin, Proxy, Served, Version, Wire, collect, eventually, process,
    proxy::binary, tunnel::Way,
};

use super::{GET, Site};

/// Starts one that takes over, while this thread's runtime goes on with a load.
async fn start(builder: underpass_tests::ProxyBuilder) -> Proxy {
    tokio::task::spawn_blocking(|| builder.start()).await.unwrap()
}

/// From two workers to three, to one, to two: each time what waits in the sockets' queues is the
/// next process's, and tunnels of the one before go on.
#[req_test("REQ-TUN-005", "REQ-EDGE-008")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_processes_follow_each_other() {
    let served = Served::ok().await;
    let origin = Origin::bind().await;
    let site = Site::new("drain_timeout = \"60s\"", served.addr(), origin.addr());
    let mut current = start(site.process().args(["--workers", "2"])).await;
    let (web, raw, admin) = (current.listener("web"), current.listener("raw"), current.admin());
    let loads = [(Version::H1, 10_000), (Version::H1, 1), (Version::H2, 10_000), (Version::H2, 3)]
        .map(|(version, requests)| Load::start(web, version, 2, requests));
    let mut before = Vec::new();
    for workers in ["3", "1", "2"] {
        let mut client = Wire::open(raw, "").await;
        let mut server = Way::Tcp.accept(&origin).await;
        client.send("first").await;
        server.expect("first").await;
        for load in &loads {
            load.goes_on(20).await;
        }
        let next = start(site.successor().args(["--workers", workers])).await;
        assert_eq!((next.listener("web"), next.listener("raw")), (web, raw));
        assert_eq!(next.admin(), admin);
        before.push((std::mem::replace(&mut current, next), client, server));
        for load in &loads {
            load.goes_on(20).await;
        }
    }
    for load in loads {
        load.stop().await.assert_whole();
    }
    // Who asks now is served by the last one alone.
    let accepted = "underpass_connections_accepted_total";
    let count = current.metrics().await.sum(accepted, &[("listener", "web")]);
    for _ in 0..10 {
        Wire::open(web, GET).await.expect_status(200).await;
    }
    assert_eq!(current.metrics().await.sum(accepted, &[("listener", "web")]), count + 10.0);
    for (mut old, mut client, mut server) in before {
        client.send("there").await;
        server.expect("there").await;
        server.send("and back").await;
        client.expect("and back").await;
        drop((client, server));
        assert_eq!(old.exited().await.code(), Some(0), "{}", old.stderr());
    }
}

/// The process before ends when its drain is over, whatever its tunnels do then.
#[req_test("REQ-TUN-005")]
#[tokio::test]
async fn tunnels_of_the_process_before_live_until_its_drain_is_over() {
    let served = Served::ok().await;
    let origin = Origin::bind().await;
    let site = Site::new("workers = 1\ndrain_timeout = \"4s\"", served.addr(), origin.addr());
    let mut old = site.process().start();
    let mut client = Wire::open(old.listener("raw"), "").await;
    let mut server = Way::Tcp.accept(&origin).await;
    // A kept connection ends with its next answer, and not before.
    let mut kept = Wire::open(old.listener("web"), GET).await;
    kept.expect_status(200).await;
    let mut h2 = HttpClient::connect(old.listener("web"), Version::H2).await;
    collect(h2.get("/").await.into_body()).await.unwrap();
    let begin = Instant::now();
    let new = site.successor().start();
    kept.send(GET).await;
    assert_eq!(kept.expect_status(200).await.head.get("connection"), Some("close"));
    kept.expect_fin().await;
    h2.closed().await;
    client.send("still").await;
    server.expect("still").await;
    client.expect_end().await;
    server.expect_end().await;
    assert!(begin.elapsed() > Duration::from_millis(3500), "ended before the deadline");
    assert_eq!(old.exited().await.code(), Some(0));
    Wire::open(new.listener("web"), GET).await.expect_status(200).await;
}

/// A connection that was accepted and waits for a place is in no queue that goes over: the old
/// process serves it.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn a_connection_that_waits_for_a_place_is_served_by_the_old_process() {
    let served = Served::ok().await;
    let site = Site::new("workers = 1", served.addr(), served.addr());
    let text = fs::read_to_string(&site.config).unwrap();
    fs::write(&site.config, text + "[limits]\nmax_connections = 1\n").unwrap();
    let mut old = site.process().start();
    let mut kept = Wire::open(old.listener("web"), GET).await;
    kept.expect_status(200).await;
    let mut waits = Wire::open(old.listener("web"), GET).await;
    eventually("the pause to be counted", async || {
        old.metrics().await.sum("underpass_accept_pauses_total", &[]) > 0.0
    })
    .await;
    let new = site.successor().start();
    assert_eq!(waits.expect_status(200).await.head.get("connection"), Some("close"));
    waits.expect_fin().await;
    drop(kept);
    assert_eq!(old.exited().await.code(), Some(0));
    Wire::open(new.listener("web"), GET).await.expect_status(200).await;
}

/// A new process that cannot start leaves the old one as it was, its program at the sockets
/// included.
#[req_test("REQ-EDGE-008", "REQ-EDGE-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_to_start_changes_nothing() {
    let served = Served::ok().await;
    let site = Site::new("workers = 2", served.addr(), served.addr());
    let old = start(site.process()).await;
    let web = old.listener("web");
    let load = Load::start(web, Version::H1, 3, 2);
    load.goes_on(20).await;
    let text = fs::read_to_string(&site.config).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let more = format!("[[listener]]\nname = \"more\"\naddress = \"{address}\"\n");
    fs::write(&site.config, text.clone() + &more).unwrap();
    for _ in 0..2 {
        // Of more workers, so that it has sockets of its own among the others.
        let config = site.config.to_str().unwrap();
        let args = ["run", "--take-over", "--workers", "4", "--config", config];
        let mut command = tokio::process::Command::new(binary());
        let output = command.args(args).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("more: cannot listen on"), "{said}");
        load.goes_on(20).await;
    }
    old.log_line(&["ERROR", "not handed over, serving on"]).await;
    load.assert_whole();
    if !old.stderr().contains("the kernel's hash chooses the worker") {
        let choices = async || {
            let by = [("listener", "web"), ("choice", "load")];
            old.metrics().await.sum("underpass_steering_choices_total", &by)
        };
        let before = choices().await;
        load.goes_on(20).await;
        eventually("the program to choose again", async || choices().await > before).await;
    }
    load.stop().await.assert_whole();
    // And the next one can.
    fs::write(&site.config, text).unwrap();
    let new = start(site.successor()).await;
    Wire::open(new.listener("web"), GET).await.expect_status(200).await;
}

/// SIGUSR2 starts the successor; the two share their standard output.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn sigusr2_starts_the_binary_that_takes_over() {
    let served = Served::ok().await;
    let site = Site::new("workers = 1\ndrain_timeout = \"5s\"", served.addr(), served.addr());
    let old = site.process().start();
    old.signal(Signal::USR2);
    let line = old.log_line(&["is to take over"]).await;
    let pid = line.split("process ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let new = Successor(pid.parse().unwrap());
    // Its streams are the new one's as well, so that they do not end with it.
    eventually("the process before to end", async || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", old.pid())).unwrap();
        stat.contains(") Z ")
    })
    .await;
    old.log_line(&["handed over to process", pid]).await;
    Wire::open(old.listener("web"), GET).await.expect_status(200).await;
    assert!(process::resident_bytes(new.0) > 0);
}

/// A process that another one has started: ended with the value.
struct Successor(u32);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-9", &self.0.to_string()]).status();
    }
}

/// Where there is nobody yet it is an ordinary start, also over the socket of one that is gone.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn the_first_process_takes_over_from_nobody() {
    let served = Served::ok().await;
    let site = Site::new("workers = 1", served.addr(), served.addr());
    for _ in 0..2 {
        let proxy = site.successor().start();
        proxy.log_line(&["nobody to take over from"]).await;
        Wire::open(proxy.listener("web"), GET).await.expect_status(200).await;
    }
    let proxy = Proxy::reverse(served.addr()).start();
    proxy.signal(Signal::USR2);
    proxy.log_line(&["WARN", "no `handover`"]).await;
    proxy.open(GET).await.expect_status(200).await;
}
