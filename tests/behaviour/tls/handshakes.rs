//! Handshakes that do not come to an end, and what is no handshake at all.

use std::{sync::Arc, time::Duration};

use mantra_macros::req_test;
use underpass_tests::{
    Served, Wire, eventually,
    tls::{Authority, Folder, TlsClient},
};

use super::{certificates, failures, handshakes, proxy};

/// The beginning of a record that never goes on.
const PART: &[u8] = &[22, 3, 1, 2, 0, 1, 0];

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let tls = certificates(&folder, &["site"]) + "handshake_timeout = \"1s\"";
    let origin = Served::ok().await;
    let proxy = proxy("", &tls, origin.addr()).start();
    let mut silent = Wire::connect(proxy.listener("web")).await;
    let mut slow = Wire::open(proxy.listener("web"), PART).await;
    silent.expect_end().await;
    slow.expect_end().await;
    eventually("both to be counted", async || failures(&proxy, "timeout").await == 2.0).await;
    // It is the handshake's alone: what comes after it has limits of its own.
    let client = TlsClient::trusting(&authority);
    let mut connection = client.connect(proxy.listener("web"), "a.test").await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(connection.get("a.test").await.text(), "ok");
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn plain_http_is_told_that_it_is_plain() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let origin = Served::ok().await;
    let proxy = proxy("", &certificates(&folder, &["site"]), origin.addr()).start();
    for request in ["GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut plain = Wire::open(proxy.listener("web"), request).await;
        let answer = plain.expect_status(400).await;
        assert!(answer.text().contains("plain HTTP was sent to a port that speaks TLS"));
        plain.expect_fin().await;
    }
    // Nor is what is neither answered.
    let mut other = Wire::open(proxy.listener("web"), [0x80, 0x2e, 1, 3, 1]).await;
    assert_eq!(other.read_to_end().await.0, b"");
    eventually("all to be counted", async || failures(&proxy, "not_tls").await == 3.0).await;
    let mut broken = Wire::open(proxy.listener("web"), [22, 3, 1, 0, 4, 1, 0, 0, 0]).await;
    // An alert says so: a record of type 21.
    let (said, _) = broken.read_to_end().await;
    assert_eq!(said.first(), Some(&21), "{said:?}");
    eventually("it to be counted", async || failures(&proxy, "protocol").await == 1.0).await;
    assert_eq!(origin.connections(), 0);
}

/// A turn is for what is computed: clients that stall, before their hello is whole or after it was
/// answered, hold up nobody, and all of many that come at once have theirs.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_client_that_stalls_holds_no_turn() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let tls = certificates(&folder, &["site"]) + "handshake_timeout = \"60s\"\nmax_handshakes = 1";
    let origin = Served::ok().await;
    let proxy = proxy("", &tls, origin.addr()).start();
    let address = proxy.listener("web");
    // More of each kind than there are turns at both workers together.
    let mut stuck = Vec::new();
    for _ in 0..4 {
        stuck.push(Wire::open(address, PART).await);
        let mut answered = Wire::open(address, hello()).await;
        // The server's flight is there, and is never answered.
        assert_eq!(answered.read_exact(1).await, [22]);
        stuck.push(answered);
    }
    let client = TlsClient::trusting(&authority).forgetful();
    let clients = (0..20).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut connection = client.connect(address, "a.test").await;
            assert_eq!(connection.get("a.test").await.text(), "ok");
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a client that is served");
    }
    assert_eq!(handshakes(&proxy, &[]).await, 20.0);
    assert_eq!(failures(&proxy, "timeout").await, 0.0);
    drop(stuck);
}

/// What a client of TLS sends first.
fn hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("a.test").expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a hello");
    bytes
}

/// What is not offered, or was not chosen, is not spoken (RFC 7301 section 3.1).
#[req_test("REQ-EDGE-006", "REQ-EDGE-005")]
#[tokio::test]
async fn http2_is_not_spoken_where_it_is_not_offered() {
    const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let origin = Served::ok().await;
    for (offered, of_client, served) in [
        ("alpn = [\"http/1.1\"]", &[][..], false),
        ("alpn = [\"http/1.1\"]", &["http/1.1"], false),
        ("", &["http/1.1"], false),
        ("", &[], true),
        ("", &["h2"], true),
    ] {
        let tls = certificates(&folder, &["site"]) + offered;
        let proxy = proxy("", &tls, origin.addr()).start();
        let client = TlsClient::trusting(&authority).alpn(of_client);
        let mut connection = client.connect(proxy.listener("web"), "a.test").await;
        connection.send(PREFACE).await;
        connection.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        let begin = connection.read_exact(12).await;
        match served {
            // A frame of SETTINGS.
            true => assert_eq!(begin[3], 4, "{offered} {of_client:?}: {begin:?}"),
            false => assert_eq!(begin, b"HTTP/1.1 505", "{offered} {of_client:?}"),
        }
    }
    assert_eq!(origin.seen().len(), 0);
}
