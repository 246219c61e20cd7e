//! Listeners that come, go, and move.

use std::net::SocketAddr;

use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{Load, Proxy, Served, Version, Wire, eventually};

use super::{ANY, GET, answers, free, head, listener, route};

#[req_test("REQ-EDGE-008", "REQ-EDGE-001")]
#[tokio::test]
async fn an_added_listener_is_served_by_every_worker_and_steered() {
    let origin = Served::ok().await;
    let to = route("one", origin.addr(), "");
    let before = head("workers = 3") + &listener("web", ANY, "") + &to;
    let mut proxy = Proxy::config(&before).start();
    let idle = proxy.descriptors();
    let second = listener("second", ANY, "");
    proxy.reload(&(head("workers = 3") + &listener("web", ANY, "") + &second + &to)).await;
    // A program that gives connections to the least busy worker gives three to three.
    let mut clients = Vec::new();
    for _ in 0..9 {
        let mut client = Wire::open(proxy.listener("second"), GET).await;
        client.expect_status(200).await;
        clients.push(client);
    }
    let metrics = proxy.metrics().await;
    let accepted = [("listener", "second")];
    assert_eq!(metrics.sum("underpass_connections_accepted_total", &accepted), 9.0);
    let steered = |listener| {
        metrics
            .sum("underpass_steering_choices_total", &[("listener", listener), ("choice", "load")])
    };
    if proxy.stderr().contains("the kernel's hash chooses the worker (web)") {
        underpass_tests::skip::say("steering is not to be had");
    } else {
        assert_eq!(steered("second"), 9.0);
        for worker in ["0", "1", "2"] {
            let open = metrics.sum("underpass_worker_connections_open", &[("worker", worker)]);
            assert_eq!(open, 3.0, "worker {worker}");
        }
    }
    drop(clients);
    // With the listener everything goes that it brought.
    proxy.reload(&before).await;
    let pooled = origin.connections();
    eventually("descriptors to be given back", async || proxy.descriptors() <= idle + pooled).await;
    let choices = proxy.metrics().await;
    let gone = choices.sum("underpass_steering_choices_total", &[("listener", "second")]);
    assert_eq!(gone, 0.0);
}

#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn a_listener_moves_to_another_address() {
    let origin = Served::ok().await;
    let (first, second) = (free(), free());
    let at = |address| head("") + &listener("web", address, "") + &route("one", origin.addr(), "");
    let mut proxy = Proxy::config(at(first)).start();
    let mut kept = Wire::open(first, GET).await;
    kept.expect_status(200).await;
    proxy.reload(&at(second)).await;
    assert_eq!(proxy.listener("web"), second);
    Wire::open(second, GET).await.expect_status(200).await;
    assert!(tokio::net::TcpStream::connect(first).await.is_err());
    kept.send(GET).await;
    assert_eq!(kept.expect_status(200).await.head.get("connection"), Some("close"));
    // And back: nothing of it is in the way.
    proxy.reload(&at(first)).await;
    Wire::open(first, GET).await.expect_status(200).await;
}

/// The same port on all addresses instead of one, and the other way round, without a moment in
/// which nobody listens.
#[req_test("REQ-EDGE-008")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_widens_and_narrows_under_load() {
    let origin = Served::ok().await;
    // Of ports that nobody is given who asks for any: others have these with single addresses.
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let is_free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    let port = (first..first + 100).find(is_free).expect("a free port");
    let one = SocketAddr::new(free().ip(), port);
    let at = |address: SocketAddr| {
        head("workers = 2") + &listener("web", address, "") + &route("one", origin.addr(), "")
    };
    let all = SocketAddr::new([0, 0, 0, 0].into(), one.port());
    let mut proxy = Proxy::config(at(one)).start();
    let load = Load::start(one, Version::H1, 4, 3);
    for address in [all, one, all, one] {
        load.goes_on(50).await;
        proxy.reload(&at(address)).await;
    }
    load.goes_on(50).await;
    load.stop().await.assert_whole();
}

/// Two listeners exchange their addresses: the sockets stay, what is behind them changes.
#[req_test("REQ-EDGE-008")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_exchange_their_addresses_under_load() {
    let (left, right) = (answers("left").await, answers("right").await);
    let (one, two) = (free(), free());
    let at = |of_left, of_right| {
        head("workers = 2")
            + &listener("left", of_left, "")
            + &listener("right", of_right, "")
            + &route("left", left.addr(), "listener = \"left\"")
            + &route("right", right.addr(), "listener = \"right\"")
    };
    let mut proxy = Proxy::config(at(one, two)).start();
    let loads = [Load::start(one, Version::H1, 2, 4), Load::start(two, Version::H2, 2, 4)];
    let turns = [(two, one), (one, two), (two, one)];
    for (of_left, of_right) in turns {
        for load in &loads {
            load.goes_on(50).await;
        }
        proxy.reload(&at(of_left, of_right)).await;
        let mut client = Wire::open(of_left, GET).await;
        assert_eq!(client.expect_status(200).await.text(), "left");
        let mut client = Wire::open(of_right, GET).await;
        assert_eq!(client.expect_status(200).await.text(), "right");
    }
    for load in loads {
        load.goes_on(50).await;
        load.stop().await.assert_whole();
    }
}

/// Connections that were established when the listener went, and perhaps not accepted yet.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn who_waits_to_be_accepted_is_served() {
    let origin = Served::ok().await;
    let rest = route("one", origin.addr(), "");
    let web = head("workers = 2") + &listener("web", ANY, "");
    let proxy = Proxy::config(web.clone() + &listener("gone", ANY, "") + &rest).start();
    let address = proxy.listener("gone");
    proxy.signal(Signal::STOP);
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(Wire::open(address, GET).await);
    }
    proxy.write_config(&(web + &rest));
    proxy.signal(Signal::HUP);
    proxy.signal(Signal::CONT);
    for client in &mut waiting {
        client.expect_status(200).await;
    }
    eventually("the listener to be closed", async || {
        tokio::net::TcpStream::connect(address).await.is_err()
    })
    .await;
}

/// A higher limit lets in who waits.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn a_higher_limit_of_connections_holds_at_once() {
    let origin = Served::ok().await;
    let to = route("one", origin.addr(), "");
    let both = |most: usize| {
        let limits = format!("limits = {{ max_connections = {most} }}");
        head("workers = 1") + &listener("web", ANY, "") + &listener("full", ANY, &limits) + &to
    };
    let mut proxy = Proxy::config(both(1)).start();
    let address = proxy.listener("full");
    let mut first = Wire::open(address, GET).await;
    first.expect_status(200).await;
    // Accepting pauses with the second one; those behind it are the kernel's.
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(Wire::open(address, GET).await);
    }
    let pauses = "underpass_accept_pauses_total";
    eventually("accepting to pause", async || proxy.metrics().await.sum(pauses, &[]) >= 1.0).await;
    proxy.reload(&both(10)).await;
    for client in &mut waiting {
        client.expect_status(200).await;
    }
}
