//! Which connections are taken apart, and as whom: by the authority of CONNECT, which the
//! handshake and each request inside have to agree with.

use mantra_macros::req_test;
use rustls::pki_types::CertificateDer;
use underpass_tests::{
    Origin, Proxy, Records, Wire, eventually,
    intercept::{LocalCa, connect, inside},
    tls::TlsClient,
    tls_origin::{Signer, TlsOrigin},
};

/// The host is not named: the client sees the server's own certificate, and the server every
/// byte of the client.
#[req_test("REQ-REC-007")]
#[tokio::test]
async fn what_is_not_named_goes_through_untouched() {
    let (ca, signer) = (LocalCa::default(), Signer::default());
    let certificate = signer.good("localhost");
    let origin = TlsOrigin::start(signer.server(&certificate, &["http/1.1"])).await;
    let proxy = ca.proxy(&["other.example"], &signer).start();
    let authority = format!("localhost:{}", origin.addr().port());
    let client = TlsClient::trusting_pem(&std::fs::read_to_string(signer.ca()).unwrap());
    let mut through = inside(&proxy, &client, &authority).await;
    assert_eq!(through.certificate(), CertificateDer::from(certificate.der()));
    assert_eq!(through.get(&authority).await.status(), 200);

    let raw = Origin::bind().await;
    let authority = format!("localhost:{}", raw.addr().port());
    let mut wire = connect(&proxy, &authority).await;
    let mut server = raw.accept().await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and what is no TLS at all";
    wire.send(hello).await;
    server.expect(hello).await;
    server.send("\x15\x03\x01\x00\x02\x02\x28").await;
    wire.expect("\x15\x03\x01\x00\x02\x02\x28").await;
}

#[req_test("REQ-REC-007")]
#[tokio::test]
async fn hosts_are_taken_by_name_wildcard_and_address() {
    let (ca, signer) = (LocalCa::default(), Signer::default());
    let proxy = ca.proxy(&["a.example", "*.wild.example", "127.0.0.1", "::1"], &signer).start();
    for host in ["a.example", "x.wild.example", "x.y.wild.example", "127.0.0.1", "[::1]"] {
        let client = inside(&proxy, &ca.client(), &format!("{host}:443")).await;
        let shown = client.certificate();
        let issued = String::from_utf8_lossy(&shown).into_owned();
        assert!(issued.contains("Underpass local CA"), "{host}");
        assert!(!issued.contains("*."), "a certificate is for one host: {host}");
    }
    // Not these: nobody is there, and CONNECT is told so.
    for host in ["b.a.example", "wild.example", "notwild.example"] {
        let ask = format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n");
        let status = proxy.open(ask).await.read_head().await.status();
        assert!([502, 504].contains(&status), "{host}: {status}");
    }
}

/// Whoever says one host to the proxy and another to TLS is refused, and neither is reached.
#[req_test("REQ-REC-007")]
#[tokio::test]
async fn the_name_of_the_handshake_has_to_be_that_of_connect() {
    let (ca, signer) = (LocalCa::default(), Signer::default());
    let origin = TlsOrigin::start(signer.server(&signer.good("localhost"), &[])).await;
    let proxy = ca.proxy(&["localhost", "*.example", "127.0.0.1"], &signer).start();
    let port = origin.addr().port();
    for (authority, name) in [
        (format!("localhost:{port}"), "b.example"),
        ("a.example:443".to_owned(), "b.example"),
        (format!("127.0.0.1:{port}"), "localhost"),
    ] {
        let wire = connect(&proxy, &authority).await;
        let refused = ca.client().over(wire.into_stream(), name).await.unwrap_err();
        assert!(refused.to_string().contains("UnrecognisedName"), "{authority}: {refused}");
    }
    proxy.log_line(&["WARN", "a.example:443", "b.example", "refused"]).await;
    // No name at all contradicts nothing.
    let wire = connect(&proxy, &format!("localhost:{port}")).await;
    let mut client = ca.client().nameless().over(wire.into_stream(), "localhost").await.unwrap();
    assert_eq!(client.get(&format!("localhost:{port}")).await.status(), 200);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_intercepts_total", &[("outcome", "other_name")]), 3.0);
    assert_eq!(origin.connections(), 1);
}

/// Told once of each host, however often a client tries.
#[req_test("REQ-REC-007")]
#[tokio::test]
async fn a_client_that_does_not_trust_the_authority_is_told_of_once() {
    let (ca, other, signer) = (LocalCa::default(), LocalCa::default(), Signer::default());
    let proxy = ca.proxy(&["*.example"], &signer).start();
    for _ in 0..3 {
        let wire = connect(&proxy, "a.example:443").await;
        assert!(other.client().over(wire.into_stream(), "a.example").await.is_err());
    }
    let refused = |metrics: underpass_tests::Metrics| {
        metrics.sum("underpass_intercepts_total", &[("outcome", "certificate_refused")])
    };
    eventually("three to be counted", async || refused(proxy.metrics().await) == 3.0).await;
    let pem = ca.certificate();
    let line = proxy
        .log_line(&["client refused our certificate for a.example", &pem.display().to_string()])
        .await;
    assert!(line.contains("underpass record ca export"), "{line}");
    assert_eq!(proxy.stderr().matches("client refused our certificate").count(), 1);
}

/// A wildcard leaves it to clients how many hosts there are.
#[req_test("REQ-REC-007")]
#[tokio::test]
async fn the_certificates_that_are_kept_are_bounded_and_used_again() {
    let (ca, signer) = (LocalCa::default(), Signer::default());
    let proxy = ca.proxy(&["*.example"], &signer).start();
    let client = ca.client();
    let figures = async || {
        let metrics = proxy.metrics().await;
        let made = metrics.sum("underpass_intercept_certificates_made_total", &[]);
        (made, metrics.sum("underpass_intercept_certificates", &[]))
    };
    for _ in 0..3 {
        inside(&proxy, &client, "same.example:443").await;
    }
    assert_eq!(figures().await, (1.0, 1.0));
    for number in 0..1100 {
        inside(&proxy, &client, &format!("h{number}.example:443")).await;
    }
    assert_eq!(figures().await, (1101.0, 1024.0));
    // The one that has not been asked for longest has gone.
    inside(&proxy, &client, "h1099.example:443").await;
    assert_eq!(figures().await, (1101.0, 1024.0));
    inside(&proxy, &client, "same.example:443").await;
    assert_eq!(figures().await, (1102.0, 1024.0));
}

/// What is not TLS is passed on byte for byte, from the first; or refused, where that is asked
/// for. What begins as TLS is never passed on.
#[req_test("REQ-REC-007")]
#[tokio::test]
async fn what_is_no_tls_is_a_tunnel_or_refused() {
    let (ca, signer, records) = (LocalCa::default(), Signer::default(), Records::default());
    let proxy = ca.proxy(&["localhost"], &signer).args(records.args()).start();
    for first in [&b"SSH-2.0-x\r\n"[..], b"\0\0\0"] {
        let origin = Origin::bind().await;
        let authority = format!("localhost:{}", origin.addr().port());
        let mut client = connect(&proxy, &authority).await;
        client.send(first).await;
        let mut server = origin.accept().await;
        server.expect(first).await;
        server.send("answer").await;
        client.expect("answer").await;
        client.finish().await;
        server.expect_fin().await;
        server.finish().await;
        client.expect_fin().await;
    }
    for record in records.ended(2).await {
        let end = record.end.expect("an end");
        assert_eq!(
            (record.begin.unwrap().method.as_str(), end.how.as_str()),
            ("CONNECT", "tunnel")
        );
    }
    proxy.log_line(&["localhost", "is not TLS: passed on as it is"]).await;

    // What a server might take for TLS is no way around.
    let oversized = [&b"\x16\x03\x01\x40\x00\x01\xff\xff\xff"[..], &[0; 0x3ffc]].concat();
    for first in [&b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff"[..], &oversized] {
        let origin = Origin::bind().await;
        let mut client = connect(&proxy, &format!("localhost:{}", origin.addr().port())).await;
        client.send(first).await;
        let (got, end) = client.read_to_end().await;
        assert!(got.is_empty(), "{end:?}");
        let reached = tokio::time::timeout(underpass_tests::clock::STALL, origin.accept()).await;
        assert!(reached.is_err(), "nobody is to be connected to");
    }
    proxy.log_line(&["localhost", "begins as TLS and is no hello that we read: closed"]).await;

    let origin = Origin::bind().await;
    let strict = strict(&ca, "localhost");
    let mut client = connect(&strict, &format!("localhost:{}", origin.addr().port())).await;
    client.send("SSH-2.0-x\r\n").await;
    let (got, end) = client.read_to_end().await;
    assert!(got.is_empty(), "{end:?}");
    strict.log_line(&["is not TLS: closed"]).await;
}

fn strict(ca: &LocalCa, host: &str) -> Proxy {
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"forward\"\naddress = \"127.0.0.1:0\"\nprotocol = \"forward\"\n\
         [listener.intercept]\nhosts = [\"{host}\"]\nca = \"{}\"\nnot_tls = \"refuse\"\n",
        ca.path().display()
    ))
    .start()
}

/// The rules of the forward proxy hold for what is inside.
#[req_test("REQ-REC-007")]
#[tokio::test]
async fn what_may_not_be_reached_is_not_reached_by_interception() {
    let (ca, signer) = (LocalCa::default(), Signer::default());
    let origin = TlsOrigin::start(signer.server(&signer.good("localhost"), &[])).await;
    let port = origin.addr().port();
    let hosts = ["localhost", "127.0.0.1", "169.254.169.254"];
    let denying = ca.proxy(&hosts, &signer).args(["--deny", "127.0.0.0/8"]);
    let proxy = denying.args(["--deny", "::1/128", "--deny-port", "25"]).start();
    for authority in
        [format!("127.0.0.1:{port}"), "169.254.169.254:443".into(), "localhost:25".into()]
    {
        let ask = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        let mut refused: Wire = proxy.open(ask).await;
        assert_eq!(refused.read_head().await.status(), 403, "{authority}");
    }
    // What a name leads to is known when it is connected.
    let authority = format!("localhost:{port}");
    for protocols in [&["http/1.1"][..], &["h2", "http/1.1"]] {
        let mut client = inside(&proxy, &ca.client().alpn(protocols), &authority).await;
        assert_eq!(client.get(&authority).await.status(), 403);
    }
    assert_eq!(origin.connections(), 0);
}
