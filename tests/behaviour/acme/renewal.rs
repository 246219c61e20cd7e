//! Certificates that are followed by others while clients come, and when.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use mantra_macros::req_test;
use underpass_tests::eventually;

use super::{Site, entry, orders, until_failed, until_orders};

/// Good for so much longer than `renew_before` that each is renewed some seconds after it came.
const SHORT: Duration = Duration::from_secs(3600 + 3);
const BEFORE: &str = "renew_before = \"1h\"";

/// Without a signal, and without a client that is turned away.
#[req_test("REQ-EDGE-011", "REQ-EDGE-006")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_under_load_and_nobody_is_turned_away() {
    let site = Site::new().await;
    site.ca.script(|script| script.lifetime = SHORT);
    let proxy = site.start(BEFORE, &[&["a.test"]]);
    let mut kept = site.served(&proxy, "a.test").await;
    let first = kept.certificate();

    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut loads = Vec::new();
    for _ in 0..3 {
        let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
        let (client, address) = (site.ca.client().forgetful(), proxy.listener("web"));
        loads.push(tokio::spawn(async move {
            while !stop.load(Relaxed) {
                let mut connection = client.connect(address, "a.test").await;
                assert_eq!(connection.get("a.test").await.text(), "ok");
                served.fetch_add(1, Relaxed);
            }
        }));
    }
    let client = site.ca.client().forgetful();
    let mut shown = first.clone();
    for _ in 0..2 {
        eventually("the next certificate", async || {
            client.connect(proxy.listener("web"), "a.test").await.certificate() != shown
        })
        .await;
        shown = client.connect(proxy.listener("web"), "a.test").await.certificate();
    }
    let before = served.load(Relaxed);
    eventually("more with the last one", async || served.load(Relaxed) >= before + 10).await;
    stop.store(true, Relaxed);
    for load in loads {
        load.await.expect("no client is turned away");
    }
    // A connection goes on with what it began with.
    assert_eq!(kept.get("a.test").await.text(), "ok");
    assert!(orders(&proxy).await[0] >= 3.0);
    assert_eq!(site.ca.faults(), Vec::<String>::new());
}

/// A CA that is gone takes nothing with it: what is stored is shown, before and after a restart.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn what_is_stored_is_shown_at_once_while_the_ca_is_gone() {
    let site = Site::new().await;
    let proxy = site.start("", &[&["a.test"]]);
    let first = site.served(&proxy, "a.test").await.certificate();
    eventually("the order to end", async || orders(&proxy).await[0] == 1.0).await;
    drop(proxy);
    site.ca.script(|script| script.down = true);

    // Not a moment without: the first handshake is good.
    let proxy = site.start("", &[&["a.test"]]);
    let client = site.ca.client().forgetful();
    let mut connection = client.connect(proxy.listener("web"), "a.test").await;
    assert_eq!(connection.certificate(), first);
    assert_eq!(connection.get("a.test").await.text(), "ok");
    assert_eq!(orders(&proxy).await, [0.0, 0.0]);
    drop(proxy);

    // One that is due, and cannot be renewed, is shown on.
    // Half a minute before the certificate was given.
    let due = "renew_before = \"7776030s\"";
    let proxy = site.start(due, &[&["a.test"]]);
    until_failed(&proxy, 1.0).await;
    assert_eq!(client.connect(proxy.listener("web"), "a.test").await.certificate(), first);
    proxy.log_line(&["ERROR", "a.test", "the one before is shown on and ends at"]).await;
    // Counted in the metrics first.
    eventually("the failure to be shown", async || {
        entry(&proxy, "a.test").await["acme"]["failures"] == 1
    })
    .await;
    drop(proxy);

    // And is renewed when the CA is back, with the same account.
    site.ca.script(|script| script.down = false);
    let proxy = site.start(due, &[&["a.test"]]);
    eventually("the next certificate", async || {
        client.connect(proxy.listener("web"), "a.test").await.certificate() != first
    })
    .await;
    assert_eq!(site.ca.count("account "), 1, "{:?}", site.ca.log());
    assert_eq!(site.ca.faults(), Vec::<String>::new());
}

/// By RFC 9773, where the CA has it: it says when, and is told what is replaced.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn a_ca_that_wants_a_certificate_replaced_gets_its_way() {
    let site = Site::new().await;
    site.ca.script(|script| script.window = Some((86_400 * 30, 86_400 * 31)));
    let proxy = site.start("", &[&["a.test"]]);
    let first = site.served(&proxy, "a.test").await.certificate();
    eventually("the question", async || site.ca.count("renewal ") > 0).await;
    proxy.log_line(&["the CA would like a.test to be renewed from"]).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    eventually("the time that the CA has said", async || {
        let at = entry(&proxy, "a.test").await["acme"]["renew_at"].as_i64().expect("a time");
        (29..=31).contains(&((at - now.as_secs() as i64) / 86_400))
    })
    .await;
    drop(proxy);

    // All certificates of some day have to go: the window is over already.
    site.ca.script(|script| script.window = Some((-7200, -3600)));
    let proxy = site.start("", &[&["a.test"]]);
    let client = site.ca.client().forgetful();
    eventually("the next certificate", async || {
        client.connect(proxy.listener("web"), "a.test").await.certificate() != first
    })
    .await;
    let log = site.ca.log();
    let asked = log.iter().find_map(|line| line.strip_prefix("renewal ")).expect("a question");
    let order = log.iter().rfind(|line| line.starts_with("order ")).expect("an order");
    assert_eq!(*order, format!("order a.test replaces {asked}"), "{log:?}");
    // The window of the new one is over, too, says this CA; it is not asked again and again.
    eventually("the order to end", async || orders(&proxy).await[0] == 1.0).await;
    let before = site.ca.count("order ");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(site.ca.count("order "), before);
}

/// What is not wanted any more is not ordered any more, in the middle of it.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn a_reload_ends_an_order_for_what_is_gone_and_begins_one_for_what_is_new() {
    let site = Site::new().await;
    site.ca.script(|script| script.looks_later = true);
    let mut proxy = site.start("", &[&["a.test"], &["b.test"]]);
    eventually("the first order", async || site.ca.open_tokens().len() == 1).await;
    let token = site.ca.open_tokens().remove(0);
    let ask = async |proxy: &underpass_tests::Proxy| {
        let head =
            format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let mut wire = underpass_tests::Wire::open(proxy.listener("plain"), head).await;
        wire.read_response().await.status()
    };
    eventually("the answer", async || ask(&proxy).await == 200).await;
    proxy.reload(&site.text("", &[&["b.test"], &["c.test"]])).await;
    site.ca.looks_at(proxy.listener("plain"), proxy.listener("web"));
    eventually("no answer any more", async || ask(&proxy).await == 308).await;
    site.ca.script(|script| script.looks_later = false);
    site.served(&proxy, "b.test").await;
    site.served(&proxy, "c.test").await;
    assert_eq!(site.ca.count("certificate a.test"), 0, "{:?}", site.ca.log());
    until_orders(&proxy, [2.0, 0.0]).await;
    // The same configuration once more orders nothing.
    proxy.reload(&site.text("", &[&["b.test"], &["c.test"]])).await;
    site.served(&proxy, "c.test").await;
    assert_eq!(site.ca.count("order "), 3, "{:?}", site.ca.log());
}
