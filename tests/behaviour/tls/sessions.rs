//! Versions, cipher suites, and sessions that go on.

use mantra_macros::req_test;
use rustls::version::{TLS12, TLS13};
use underpass_tests::{
    Served, eventually,
    tls::{Authority, Folder, TlsClient},
};

use super::{certificates, failures, handshakes, proxy};

/// At whichever worker: all have the same keys. And over reloads, which change none.
#[req_test("REQ-EDGE-006", "REQ-EDGE-008")]
#[tokio::test]
async fn a_session_is_resumed_at_any_worker_and_over_a_reload() {
    for (version, name) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        let (authority, folder) = (Authority::new("ca"), Folder::default());
        folder.put("site", &authority.server(&["a.test"]));
        let tls = certificates(&folder, &["site"]);
        let origin = Served::ok().await;
        let mut proxy = proxy("", &tls, origin.addr()).start();
        let client = TlsClient::speaking(&authority, version);
        let mut open = Vec::new();
        for number in 0..20 {
            if number == 10 {
                let config = std::fs::read_to_string(proxy.config_path()).unwrap();
                proxy.reload(&config).await;
            }
            let mut connection = client.connect(proxy.listener("web"), "a.test").await;
            assert_eq!(connection.is_resumed(), number > 0, "{name}, {number}");
            assert_eq!(connection.get("a.test").await.text(), "ok");
            // Kept open, so that the next one comes to the other worker.
            open.push(connection);
        }
        assert_eq!(handshakes(&proxy, &[("version", name), ("kind", "full")]).await, 1.0);
        assert_eq!(handshakes(&proxy, &[("version", name), ("kind", "resumed")]).await, 19.0);
        let metrics = proxy.metrics().await;
        for worker in ["0", "1"] {
            let took = metrics.sum("underpass_worker_connections_open", &[("worker", worker)]);
            assert!(took > 0.0, "worker {worker} has none: {:?}", metrics.names());
        }
    }
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn versions_and_suites_that_are_not_allowed_are_refused() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let tls = certificates(&folder, &["site"]);
    let origin = Served::ok().await;
    let new = proxy("", &format!("{tls}min_version = \"1.3\""), origin.addr()).start();
    let one = "cipher_suites = [\"TLS_CHACHA20_POLY1305_SHA256\", \
               \"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\"]";
    let few = proxy("", &format!("{tls}{one}"), origin.addr()).start();
    let [old_client, new_client] =
        [&TLS12, &TLS13].map(|version| TlsClient::speaking(&authority, version));
    old_client.try_connect(new.listener("web"), "a.test").await.unwrap_err();
    eventually("it to be counted", async || failures(&new, "incompatible").await == 1.0).await;
    new_client.connect(new.listener("web"), "a.test").await;
    for (client, suite) in [
        (old_client, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        (new_client, "TLS13_CHACHA20_POLY1305_SHA256"),
    ] {
        let connection = client.connect(few.listener("web"), "a.test").await;
        let chosen = connection.0.get_ref().1.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(chosen.as_str(), Some(suite));
    }
}
