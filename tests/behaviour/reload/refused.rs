//! A configuration that cannot come into force, and the one that stays.

use mantra_macros::req_test;
use underpass_tests::{Proxy, Served, Wire};

use super::{ANY, GET, answers, free, head, listener, route};

#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn one_line_says_where_and_what_would_be_right() {
    let origin = Served::ok().await;
    let right = head("") + &listener("web", ANY, "") + &route("one", origin.addr(), "");
    let mut proxy = Proxy::config(&right).start();
    let in_force = proxy.ask_admin("GET", "/config").await.text();
    let mut kept = Wire::open(proxy.listener("web"), GET).await;
    kept.expect_status(200).await;

    let wrong = right.replace("upstream = \"one\"", "upstream = \"onne\"");
    proxy.refuse(&wrong).await;
    let line = 1 + wrong.lines().position(|line| line.contains("onne")).unwrap();
    let place = format!("{}:{line}:", proxy.config_path().display());
    proxy.log_line(&["ERROR", &place, "did you mean `one`?"]).await;
    assert_eq!(proxy.stderr().matches("ERROR").count(), 1, "{}", proxy.stderr());
    assert_eq!(proxy.ask_admin("GET", "/config").await.text(), in_force);
    let successful = "underpass_config_last_reload_successful";
    assert_eq!(proxy.metrics().await.sum(successful, &[]), 0.0);
    kept.send(GET).await;
    kept.expect_status(200).await;

    std::fs::remove_file(proxy.config_path()).unwrap();
    proxy.signal(rustix::process::Signal::HUP);
    proxy.log_line(&["ERROR", "the file cannot be read"]).await;
    proxy.reload(&right).await;
    assert_eq!(proxy.metrics().await.sum(successful, &[]), 1.0);
    let since = "underpass_config_last_reload_success_timestamp_seconds";
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let age = now - proxy.metrics().await.sum(since, &[]);
    assert!((0.0..60.0).contains(&age), "in force for {age} s");
    assert_eq!(proxy.reloads().await, [1.0, 2.0]);
}

/// An address that another process has: the listeners before it in the file are not opened
/// either, and the routes are the old ones.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn an_address_that_is_taken_changes_nothing() {
    let (old, new) = (answers("old").await, answers("new").await);
    let text = |listeners: &str, server: &Served| {
        head("workers = 2")
            + &listener("web", ANY, "")
            + listeners
            + &route("one", server.addr(), "")
    };
    let mut proxy = Proxy::config(text("", &old)).start();
    let idle = proxy.descriptors();
    let taken = std::net::TcpListener::bind(ANY).unwrap();
    let free = free();
    let address = taken.local_addr().unwrap();
    let both = listener("free", free, "") + &listener("taken", address, "");
    proxy.refuse(&text(&both, &new)).await;
    proxy.log_line(&["ERROR", &format!("taken: cannot listen on {address}"), "in use"]).await;
    assert!(tokio::net::TcpStream::connect(free).await.is_err(), "it listens on what it gave up");
    let what = "descriptors of what it gave up";
    underpass_tests::eventually(what, async || proxy.descriptors() <= idle).await;
    let mut client = Wire::open(proxy.listener("web"), GET).await;
    assert_eq!(client.expect_status(200).await.text(), "old");
    drop(taken);
    proxy.reload(&text(&both, &new)).await;
    let mut client = Wire::open(address, GET).await;
    assert_eq!(client.expect_status(200).await.text(), "new");
}

/// A log that cannot be opened, an admin address that is taken.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn what_is_beside_the_listeners_is_part_of_it() {
    let origin = Served::ok().await;
    let rest = listener("web", ANY, "") + &route("one", origin.addr(), "");
    let mut proxy = Proxy::config(head("") + &rest).start();
    let free = free();
    let more = listener("more", free, "");
    let log = "[log]\naccess = \"/nowhere/at/all.log\"\n";
    proxy.refuse(&(head("") + log + &rest + &more)).await;
    proxy.log_line(&["ERROR", "opening the access log"]).await;
    let taken = std::net::TcpListener::bind(ANY).unwrap();
    let admin = format!("[admin]\naddress = \"{}\"\n", taken.local_addr().unwrap());
    proxy.refuse(&(admin + &rest + &more)).await;
    proxy.log_line(&["ERROR", "admin: cannot listen on"]).await;
    assert!(tokio::net::TcpStream::connect(free).await.is_err());
}
