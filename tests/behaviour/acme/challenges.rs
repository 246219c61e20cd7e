//! How names are proved, and who else sees anything of it.

use mantra_macros::req_test;
use tokio::io::AsyncWriteExt as _;
use underpass_tests::{Wire, acme::Prober, eventually, tls::TlsEnd};

use super::{Site, entry, until_orders};

/// Port 80 is nothing but redirects here, and the CA is answered all the same.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn names_are_proved_over_plain_http_before_redirects() {
    let site = Site::new().await;
    let proxy = site.start("contact = [\"ops@example.org\"]", &[&["a.test", "www.a.test"]]);
    let connection = site.served(&proxy, "www.a.test").await;
    drop(connection);
    until_orders(&proxy, [1.0, 0.0]).await;
    assert_eq!(site.ca.faults(), Vec::<String>::new());
    assert_eq!(site.ca.count("order a.test,www.a.test"), 1, "{:?}", site.ca.log());
    assert_eq!(site.ca.count("looked at"), 2, "{:?}", site.ca.log());
    assert_eq!(site.ca.contacts(), [["mailto:ops@example.org"]]);
    let answered = proxy.metrics().await;
    let http = [("challenge", "http-01")];
    assert_eq!(answered.sum("underpass_acme_challenges_answered_total", &http), 2.0);
    let shown = entry(&proxy, "a.test").await;
    assert_eq!(shown["acme"]["failures"], 0, "{shown}");
    assert!(
        shown["not_after"].as_i64() < shown["acme"]["renew_at"].as_i64().map(|at| at + 40 * 86_400)
    );
    proxy.log_line(&["a new certificate for a.test, www.a.test"]).await;
}

/// Where nobody listens on port 80.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn names_are_proved_by_a_handshake_of_their_own() {
    let site = Site::new().await;
    let proxy = site.start("challenge = \"tls-alpn-01\"", &[&["a.test"], &["b.test"]]);
    site.served(&proxy, "a.test").await;
    site.served(&proxy, "b.test").await;
    assert_eq!(site.ca.faults(), Vec::<String>::new());
    let looked = site.ca.count("looked at a.test by tls-alpn-01: Ok");
    assert_eq!(looked, 1, "{:?}", site.ca.log());
    // Nobody else gets anything by that protocol.
    let only = site.ca.client().alpn(&["acme-tls/1"]).forgetful();
    only.try_connect(proxy.listener("web"), "a.test").await.map(|_| ()).unwrap_err();
    let both = site.ca.client().alpn(&["acme-tls/1", "http/1.1"]).forgetful();
    let connection = both.connect(proxy.listener("web"), "a.test").await;
    assert_eq!(connection.protocol().as_deref(), Some("http/1.1"));
    let answered = proxy.metrics().await;
    let tls = [("challenge", "tls-alpn-01")];
    assert_eq!(answered.sum("underpass_acme_challenges_answered_total", &tls), 2.0);
    let failed = [("cause", "protocol")];
    assert_eq!(answered.sum("underpass_tls_handshake_failures_total", &failed), 0.0);
}

/// A stranger who knows the path, and even the token, is told no more than the CA.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn only_what_an_order_waits_for_is_answered_and_only_meanwhile() {
    let site = Site::new().await;
    site.ca.script(|script| script.looks_later = true);
    let proxy = site.start("", &[&["a.test"]]);
    eventually("a token", async || site.ca.open_tokens().len() == 1).await;
    let token = site.ca.open_tokens().remove(0);
    let ask = async |method: &str, target: &str| {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: elsewhere.test\r\nContent-Length: 0\r\n\r\n"
        );
        let mut wire = Wire::open(proxy.listener("plain"), head).await;
        wire.read_response_to(method).await
    };
    let path = format!("/.well-known/acme-challenge/{token}");
    eventually("the answer", async || ask("GET", &path).await.status() == 200).await;
    let answer = ask("GET", &path).await;
    assert!(answer.text().starts_with(&format!("{token}.")), "{}", answer.text());
    assert_eq!(ask("HEAD", &path).await.status(), 200);
    for (method, target) in [
        ("POST", path.as_str()),
        ("GET", "/.well-known/acme-challenge/"),
        ("GET", "/.well-known/acme-challenge/xyz"),
        ("GET", &format!("{path}/")),
        ("GET", &format!("/x/..{path}")),
        ("GET", &path[..path.len() - 1]),
        ("GET", &path.replace("acme-challenge/", "acme-challenge/%2e/")),
    ] {
        let status = ask(method, target).await.status();
        assert!(matches!(status, 308 | 400), "{method} {target}: {status}");
    }
    site.ca.script(|script| script.looks_later = false);
    site.served(&proxy, "a.test").await;
    assert_eq!(ask("GET", &path).await.status(), 308);
    // And never inside TLS.
    let mut inside = site.ca.client().connect(proxy.listener("web"), "a.test").await;
    inside.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
    assert_eq!(inside.read_response().await.text(), "ok");
}

/// Until there is one: an alert that says why, and nothing else is kept from anybody.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn without_a_certificate_yet_clients_are_told_and_the_rest_is_served() {
    let site = Site::new().await;
    site.ca.script(|script| script.down = true);
    let proxy = site.start("", &[&["a.test"]]);
    let refused = site.ca.client().try_connect(proxy.listener("web"), "a.test").await;
    let said = refused.map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("UnrecognisedName"), "{said}");
    proxy.log_line(&["WARN", "`web` has no certificate for a.test yet"]).await;
    eventually("both to be counted", async || {
        let metrics = proxy.metrics().await;
        let cause = [("cause", "no_certificate")];
        metrics.sum("underpass_tls_handshake_failures_total", &cause) == 1.0
            && metrics.sum("underpass_acme_certificate_missing", &[("names", "a.test")]) == 1.0
    })
    .await;
    let mut plain =
        Wire::open(proxy.listener("plain"), "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(plain.read_response().await.status(), 308);
    proxy.log_line(&["ERROR", "no new certificate for a.test", "there is none to show"]).await;
    assert_eq!(entry(&proxy, "a.test").await["not_after"], serde_json::Value::Null);
}

/// A CA that says it is validated has seen nothing but the certificate: the connection ends.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn a_handshake_for_a_proof_carries_nothing() {
    let site = Site::new().await;
    site.ca.script(|script| script.looks_later = true);
    let proxy = site.start("challenge = \"tls-alpn-01\"", &[&["a.test"]]);
    let prober = Prober;
    let address = proxy.listener("web");
    eventually("the proof", async || prober.connect(address, "a.test").await.is_ok()).await;
    let mut connection = prober.connect(address, "a.test").await.expect("a handshake");
    // Whatever is sent inside: not a byte comes back.
    let _ = connection.0.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let (bytes, end) = connection.read_to_end().await;
    assert_eq!((bytes, end), (Vec::new(), TlsEnd::Closed));
    // Another name has no proof, and this one's is for this protocol only.
    prober.connect(address, "b.test").await.map(|_| ()).unwrap_err();
    site.ca.client().try_connect(address, "a.test").await.map(|_| ()).unwrap_err();
    assert!(site.origin.seen().is_empty());
}
