//! What goes on inside: HTTP/1.1 and HTTP/2, as client and server would have spoken without the
//! proxy, and as a record.

use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Records, Version, collect,
    intercept::{LocalCa, inside},
    tls_origin::{Signer, TlsOrigin},
};

/// What the client offers, what the server offers, and what is spoken on both sides.
const SPOKEN: [(&[&str], &[&str], Version, &str); 4] = [
    (&["h2", "http/1.1"], &["h2", "http/1.1"], Version::H2, "h2"),
    (&["h2", "http/1.1"], &["http/1.1"], Version::H1, "http/1.1"),
    (&["http/1.1"], &["h2", "http/1.1"], Version::H1, "http/1.1"),
    (&[], &[], Version::H1, "-"),
];

#[req_test("REQ-REC-007", "REQ-EDGE-005")]
#[tokio::test]
async fn client_and_server_speak_what_they_would_have_spoken() {
    let (ca, signer) = (LocalCa::default(), Signer::default());
    for (client, server, version, alpn) in SPOKEN {
        let records = Records::default();
        let config = signer.server(&signer.good("localhost"), server);
        let origin = TlsOrigin::start(config).await;
        let proxy = ca.proxy(&["localhost"], &signer).args(records.args()).start();
        let authority = format!("localhost:{}", origin.addr().port());
        let stream = inside(&proxy, &ca.client().alpn(client), &authority).await;
        let mut http = HttpClient::over_tls(stream.0, &authority, version).await;
        for _ in 0..3 {
            let answer = http.get("/v1/messages?token=t0ken").await;
            assert_eq!(answer.status(), 200);
            let text = String::from_utf8(collect(answer.into_body()).await.unwrap().0).unwrap();
            assert!(text.starts_with(&format!("sni=localhost alpn={alpn} ")), "{text}");
        }
        for record in records.ended(3).await {
            assert!(record.is_whole(), "{record:?}");
            let begin = record.begin.as_ref().unwrap();
            let wanted = format!("https://{authority}/v1/messages?token=***");
            assert_eq!((begin.url(), begin.method.as_str()), (wanted, "GET"));
            let spoken = if version == Version::H2 { "HTTP/2" } else { "HTTP/1.1" };
            assert_eq!(begin.version, spoken);
            let body = String::from_utf8_lossy(&record.bodies[1].bytes).into_owned();
            assert!(body.starts_with("sni=localhost"), "{body}");
        }
        let most = if version == Version::H2 { 2 } else { 3 };
        assert!(origin.connections() <= most, "kept: {}", origin.connections());
    }
}

/// A server that has spoken HTTP/2 and does not any more, while its client goes on over HTTP/2: the
/// requests are answered, and the next client gets what the server chooses now.
#[req_test("REQ-REC-007", "REQ-EDGE-005")]
#[tokio::test]
async fn a_server_may_choose_otherwise_later() {
    let (ca, signer) = (LocalCa::default(), Signer::default());
    let certificate = signer.good("localhost");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let authority = format!("localhost:{}", listener.local_addr().unwrap().port());
    let both: &[&str] = &["h2", "http/1.1"];
    let before = TlsOrigin::over(listener.try_clone().unwrap(), signer.server(&certificate, both));
    let proxy = ca.proxy(&["localhost"], &signer).start();
    let client = ca.client().alpn(both);
    let stream = inside(&proxy, &client, &authority).await;
    let mut http = HttpClient::over_tls(stream.0, &authority, Version::H2).await;
    assert!(answered(&mut http).await.contains("alpn=h2 "));
    drop(before);
    let _now = TlsOrigin::over(listener, signer.server(&certificate, &["http/1.1"]));
    // Those of before may answer once more while they end.
    for _ in 0..500 {
        if answered(&mut http).await.contains("alpn=http/1.1 ") {
            let next = inside(&proxy, &client, &authority).await;
            assert_eq!(next.0.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the server is still asked as it was");
}

/// The text of an answer, which has to be a good one unless the server is being replaced.
async fn answered(http: &mut HttpClient) -> String {
    let body = collect(http.get("/").await.into_body()).await.unwrap().0;
    String::from_utf8(body.to_vec()).unwrap()
}

/// A server that cannot be believed is nobody's to take: 502, and nothing is sent to it.
#[req_test("REQ-REC-007", "REQ-EDGE-006")]
#[tokio::test]
async fn a_server_with_a_bad_certificate_is_a_502() {
    let (ca, signer, other) = (LocalCa::default(), Signer::default(), Signer::default());
    for certificate in
        [signer.expired("localhost"), signer.good("other.example"), other.good("localhost")]
    {
        let config = signer.server(&certificate, &["h2", "http/1.1"]);
        let origin = TlsOrigin::start(config).await;
        let proxy = ca.proxy(&["localhost"], &signer).start();
        let authority = format!("localhost:{}", origin.addr().port());
        for offers in [&["http/1.1"][..], &["h2", "http/1.1"]] {
            let mut client = inside(&proxy, &ca.client().alpn(offers), &authority).await;
            let answer = client.get(&authority).await;
            assert_eq!((answer.status(), answer.text().as_str()), (502, "502 Bad Gateway\n"));
        }
        proxy.log_line(&["status=502", "error=upstream_tls"]).await;
    }
}

/// A connection is for the host that it was opened to.
#[req_test("REQ-REC-007")]
#[tokio::test]
async fn a_request_for_another_host_is_misdirected() {
    let (ca, signer) = (LocalCa::default(), Signer::default());
    let origin = TlsOrigin::start(signer.server(&signer.good("localhost"), &["h2"])).await;
    let proxy = ca.proxy(&["localhost", "b.example"], &signer).start();
    let port = origin.addr().port();
    let authority = format!("localhost:{port}");
    for host in ["b.example", "localhost", "127.0.0.1", &format!("localhost:{}", port ^ 1)] {
        let mut client = inside(&proxy, &ca.client(), &authority).await;
        assert_eq!(client.get(host).await.status(), 421, "{host}");
    }
    for target in [format!("http://{authority}/"), "https://b.example/".into()] {
        let mut client = inside(&proxy, &ca.client(), &authority).await;
        let (_, rest) = target.split_once("://").unwrap();
        let host = rest.trim_end_matches('/');
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.read_response().await.status(), 421, "{target}");
    }
    let stream = inside(&proxy, &ca.client().alpn(&["h2"]), &authority).await;
    let mut http = HttpClient::over_tls(stream.0, "b.example", Version::H2).await;
    assert_eq!(http.get("/").await.status(), 421);
    for head in ["CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"]
    {
        let mut client = inside(&proxy, &ca.client(), &authority).await;
        client.send(head).await;
        assert_eq!(client.read_response().await.status(), 405, "{head}");
    }
}

/// CONNECT over HTTP/2 to such a host is not a tunnel past the recorder.
#[tokio::test]
async fn connect_over_http2_to_such_a_host_is_refused() {
    let (ca, signer) = (LocalCa::default(), Signer::default());
    let proxy = ca.proxy(&["localhost"], &signer).start();
    let stream = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let ask = http::Request::builder().method("CONNECT").uri("localhost:443").body(()).unwrap();
    let (answer, _) = send.send_request(ask, false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 501);
}
