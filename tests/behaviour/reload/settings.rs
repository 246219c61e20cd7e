//! Settings of listeners and of the process: which change, and which wait for a restart.

use std::fs;

use mantra_macros::req_test;
use underpass_tests::{Proxy, Served, Wire, eventually, proxy::scratch};

use super::{ANY, GET, free, head, listener, route};

#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn limits_hold_for_connections_that_come_after() {
    let origin = Served::ok().await;
    let with = |limits: &str| {
        head("")
            + &listener("web", ANY, &format!("limits = {{ {limits} }}"))
            + &route("one", origin.addr(), "")
    };
    let mut proxy = Proxy::config(with("max_request_body_bytes = 10")).start();
    let post = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 20\r\n\r\n01234567890123456789";
    Wire::open(proxy.listener("web"), post).await.expect_status(413).await;
    proxy.reload(&with("max_request_body_bytes = 20")).await;
    Wire::open(proxy.listener("web"), post).await.expect_status(200).await;
    // A short one is kept to as soon as it is in force.
    proxy.reload(&with("idle_timeout = \"100ms\"")).await;
    let mut idle = Wire::open(proxy.listener("web"), GET).await;
    idle.expect_status(200).await;
    idle.expect_fin().await;
}

/// Said by name, and the rest is carried out.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn what_needs_a_restart_is_told_and_stays() {
    let (one, two) = (Served::ok().await, Served::ok().await);
    let with = |top: &str, keys: &str, log: &str, server: &Served| {
        head(top) + log + &listener("web", ANY, keys) + &route("one", server.addr(), "")
    };
    let mut proxy = Proxy::config(with("workers = 1\nsplice = \"copy\"", "", "", &one)).start();
    proxy
        .reload(&with(
            "workers = 2\nsplice = \"pipe\"\npin_workers = true",
            "steering = \"hash\"",
            "[log]\nformat = \"json\"\n",
            &two,
        ))
        .await;
    for key in ["workers = 2", "splice = \"pipe\"", "pin_workers = true", "format = \"json\""] {
        proxy.log_line(&["WARN", key, "needs a restart"]).await;
    }
    proxy.log_line(&["WARN", "`web`", "steering", "needs a restart"]).await;
    let shown = proxy.ask_admin("GET", "/config").await.text();
    for stays in ["workers = 1", "splice = \"copy\"", "pin_workers = false", "steering = \"load\""]
    {
        assert!(shown.contains(stays), "no {stays} in {shown}");
    }
    Wire::open(proxy.listener("web"), GET).await.expect_status(200).await;
    assert_eq!((one.targets().len(), two.targets().len()), (0, 1));
    assert_eq!(proxy.metrics().await.sum("underpass_workers", &[]), 1.0);
}

/// What logrotate does.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn an_access_log_that_was_moved_away_is_opened_anew() {
    let origin = Served::ok().await;
    let (path, moved) = (scratch("log"), scratch("log"));
    let with = |access: &str| {
        head("")
            + &format!("[log]\naccess = \"{access}\"\n")
            + &listener("web", ANY, "")
            + &route("one", origin.addr(), "")
    };
    let file = with(path.to_str().unwrap());
    let mut proxy = Proxy::config(&file).start();
    let ask = async |proxy: &Proxy, target: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        Wire::open(proxy.listener("web"), request).await.expect_status(200).await;
    };
    let holds = async |path: &std::path::Path, target: &str| {
        eventually(&format!("{target} in the log"), async || {
            fs::read_to_string(path).is_ok_and(|text| text.contains(target))
        })
        .await;
    };
    ask(&proxy, "/before").await;
    holds(&path, "/before").await;
    fs::rename(&path, &moved).unwrap();
    proxy.reload(&file).await;
    // The file is there at once; what is logged just then may go to either.
    assert!(path.exists());
    eventually("the new file to be written to", async || {
        ask(&proxy, "/after").await;
        fs::read_to_string(&path).is_ok_and(|text| text.contains("/after"))
    })
    .await;
    proxy.reload(&with("off")).await;
    ask(&proxy, "/silent").await;
    proxy.reload(&file).await;
    eventually("the log to be on again", async || {
        ask(&proxy, "/again").await;
        fs::read_to_string(&path).is_ok_and(|text| text.contains("/again"))
    })
    .await;
    assert!(!fs::read_to_string(&path).unwrap().contains("/silent"));
    for path in [path, moved] {
        fs::remove_file(path).unwrap();
    }
}

#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn the_admin_endpoint_moves() {
    let origin = Served::ok().await;
    let rest = listener("web", ANY, "") + &route("one", origin.addr(), "");
    let mut proxy = Proxy::config(head("") + &rest).start();
    let first = proxy.admin();
    let second = free();
    proxy.write_config(&(format!("[admin]\naddress = \"{second}\"\n") + &rest));
    proxy.signal(rustix::process::Signal::HUP);
    proxy.log_line(&["configuration reloaded", &second.to_string()]).await;
    proxy.until_told(|told| told.is_listening(|_, address| address == second)).await;
    assert_eq!(proxy.admin(), second);
    assert_eq!(proxy.reloads().await, [1.0, 0.0]);
    eventually("the old one to be closed", async || {
        tokio::net::TcpStream::connect(first).await.is_err()
    })
    .await;
}
