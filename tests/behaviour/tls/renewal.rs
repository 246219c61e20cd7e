//! Certificates that are replaced while clients come.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use mantra_macros::req_test;
use underpass_tests::{
    Proxy, Served, eventually,
    tls::{Authority, Folder, Issued, TlsClient, der},
};

use super::{certificates, proxy};

/// Certificates that were read again, and those that were of no use.
async fn renewals(proxy: &Proxy) -> [f64; 2] {
    let metrics = proxy.metrics().await;
    ["success", "failure"]
        .map(|result| metrics.sum("underpass_tls_certificate_reloads_total", &[("result", result)]))
}

async fn is_shown(proxy: &Proxy, client: &TlsClient, issued: &Issued) {
    eventually("the new certificate", async || {
        client.connect(proxy.listener("web"), "a.test").await.certificate() == der(issued)
    })
    .await;
}

/// Without a signal, without `watch`, and without a client that is turned away meanwhile.
#[req_test("REQ-EDGE-006")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_shown_and_nobody_is_turned_away() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let origin = Served::ok().await;
    let proxy = proxy("", &certificates(&folder, &["site"]), origin.addr()).start();
    let client = TlsClient::trusting(&authority).forgetful();
    let mut kept = client.connect(proxy.listener("web"), "a.test").await;
    assert_eq!(kept.get("a.test").await.text(), "ok");

    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut loads = Vec::new();
    for _ in 0..4 {
        let (stop, served, client) = (Arc::clone(&stop), Arc::clone(&served), client.clone());
        let address = proxy.listener("web");
        loads.push(tokio::spawn(async move {
            while !stop.load(Relaxed) {
                let mut connection = client.connect(address, "a.test").await;
                assert_eq!(connection.get("a.test").await.text(), "ok");
                served.fetch_add(1, Relaxed);
            }
        }));
    }
    for _ in 0..3 {
        let before = served.load(Relaxed);
        let next = authority.server(&["a.test"]);
        folder.put("site", &next);
        is_shown(&proxy, &client, &next).await;
        // Some more with the new one, on both workers.
        eventually("clients to go on", async || served.load(Relaxed) > before + 10).await;
    }
    stop.store(true, Relaxed);
    for load in loads {
        load.await.expect("no handshake and no request fails");
    }
    // Neither was the connection that was open all the time.
    assert_eq!(kept.get("a.test").await.text(), "ok");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_tls_handshake_failures_total", &[]), 0.0);
    assert_eq!(proxy.reloads().await, [0.0, 0.0]);
    assert!(renewals(&proxy).await[0] >= 3.0);
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn what_is_of_no_use_changes_nothing_and_is_told() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    let first = authority.server(&["a.test"]);
    folder.put("site", &first);
    let origin = Served::ok().await;
    let mut proxy = proxy("", &certificates(&folder, &["site"]), origin.addr()).start();
    let client = TlsClient::trusting(&authority).forgetful();
    folder.write("site.pem", "nothing of use");
    eventually("the refusal", async || renewals(&proxy).await == [0.0, 1.0]).await;
    proxy.log_line(&["ERROR", "listener `web` refused", "is not PEM"]).await;
    is_shown(&proxy, &client, &first).await;
    // Told once, not at every look.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(proxy.stderr().matches("ERROR").count(), 1, "{}", proxy.stderr());
    // A reload finds the same, and is refused as a whole.
    let config = std::fs::read_to_string(proxy.config_path()).unwrap();
    proxy.refuse(&config).await;
    is_shown(&proxy, &client, &first).await;
    let second = authority.server(&["a.test"]);
    folder.put("site", &second);
    is_shown(&proxy, &client, &second).await;
    // By a signal as well.
    let third = authority.server(&["a.test"]);
    folder.put("site", &third);
    proxy.reload(&config).await;
    is_shown(&proxy, &client, &third).await;
}

/// When the next one is due can be seen.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn the_metrics_say_when_a_certificate_expires() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    let issued = authority.issue(&["a.test"], |params| {
        params.not_after = rcgen::date_time_ymd(2033, 5, 18);
    });
    folder.put("site", &issued);
    let tls = certificates(&folder, &["site"]);
    let origin = Served::ok().await;
    let proxy = proxy("", &tls, origin.addr()).start();
    let name = "underpass_tls_certificate_not_after_timestamp_seconds";
    let path = folder.path("site.pem").display().to_string();
    let labels = [("listener", "web"), ("certificate", path.as_str())];
    assert_eq!(proxy.metrics().await.sum(name, &labels), 1_999_987_200.0);
}
