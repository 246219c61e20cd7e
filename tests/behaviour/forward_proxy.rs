//! The forward proxy at work: CONNECT and absolute-form, by hand and by curl.

use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Nginx, Origin, Proxy, Refusing, Reply, Saturated, Served, Version, collect,
    curl::{curl, peer},
};

#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn connect_opens_a_tunnel() {
    let origin = Origin::bind().await;
    let proxy = Proxy::forward().start();
    let authority = origin.addr();
    let mut client =
        proxy.open(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")).await;
    let mut server = origin.accept().await;
    let head = client.read_head().await;
    assert_eq!(head.status(), 200);
    client.send("anything\0\r\n").await;
    server.expect("anything\0\r\n").await;
    server.send("else").await;
    client.expect("else").await;
}

#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn connect_by_name() {
    let origin = Origin::bind().await;
    let proxy = Proxy::forward().start();
    let authority = format!("localhost:{}", origin.addr().port());
    let mut client =
        proxy.open(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")).await;
    let mut server = origin.accept().await;
    assert_eq!(client.read_head().await.status(), 200);
    client.send("ping").await;
    server.expect("ping").await;
}

#[tokio::test]
async fn absolute_form_is_fetched() {
    let origin = Served::always(Reply::ok("fetched")).await;
    let proxy = Proxy::forward().start();
    let authority = origin.addr();
    let request = format!(
        "POST http://{authority}/a?b HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 2\r\n\
         Proxy-Connection: keep-alive\r\n\r\nhi"
    );
    let mut client = proxy.open(request).await;
    assert_eq!(client.expect_status(200).await.text(), "fetched");
    let seen = origin.only();
    assert_eq!(seen.head.start, "POST /a?b HTTP/1.1");
    assert_eq!(seen.head.all("host"), [authority.to_string()]);
    assert_eq!(seen.text(), "hi");
    assert!(!seen.head.has("proxy-connection"));
}

/// The last proxy turns an absolute target without a path into an asterisk (RFC 9112 3.2.4).
#[tokio::test]
async fn options_for_the_whole_server() {
    let origin = Served::ok().await;
    let proxy = Proxy::forward().start();
    let authority = origin.addr();
    let request = format!("OPTIONS http://{authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    proxy.open(request).await.expect_status(200).await;
    assert_eq!(origin.only().head.start, "OPTIONS * HTTP/1.1");
}

/// Who asks is nobody's business behind a forward proxy.
#[tokio::test]
async fn requests_to_different_origins_share_a_client_connection() {
    let (a, b) = (Served::always(Reply::ok("a")).await, Served::always(Reply::ok("b")).await);
    let proxy = Proxy::forward().start();
    let mut client = proxy.connect().await;
    for (origin, content) in [(&a, "a"), (&b, "b"), (&a, "a"), (&b, "b")] {
        let authority = origin.addr();
        let request = format!("GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        client.send(request).await;
        assert_eq!(client.expect_status(200).await.text(), content);
    }
    assert_eq!((a.connections(), b.connections()), (1, 1));
}

#[tokio::test]
async fn a_request_that_names_no_server_is_refused() {
    let origin = Served::ok().await;
    let proxy = Proxy::forward().start();
    let rows = [
        format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", origin.addr()),
        format!("GET https://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr()),
        format!("GET ftp://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr()),
        "CONNECT localhost HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "CONNECT /path HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "CONNECT http://localhost:80/ HTTP/1.1\r\nHost: localhost:80\r\n\r\n".to_owned(),
        "CONNECT localhost:0 HTTP/1.1\r\nHost: localhost:0\r\n\r\n".to_owned(),
        "CONNECT localhost:99999 HTTP/1.1\r\nHost: localhost:99999\r\n\r\n".to_owned(),
        "CONNECT :80 HTTP/1.1\r\nHost: :80\r\n\r\n".to_owned(),
    ];
    let mut wrong = Vec::new();
    for request in rows {
        let status = proxy.open(&request).await.read_head().await.status();
        // A scheme that nobody fetches here may also be called not implemented.
        if status != 400 && !(status == 501 && request.starts_with("GET ")) {
            wrong.push(format!("{status} for {request:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn h2_requests_are_fetched() {
    let origin = Served::always(Reply::ok("fetched")).await;
    let proxy = Proxy::forward().start();
    let stream = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
    let mut client = HttpClient::over(stream, &origin.addr().to_string(), Version::H2).await;
    let answer = client.get("/a?b").await;
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"fetched");
    let head = origin.only().head;
    assert_eq!(head.start, "GET /a?b HTTP/1.1");
    assert_eq!(head.all("host"), [origin.addr().to_string()]);
}

/// CONNECT is for forward proxies.
#[tokio::test]
async fn a_reverse_proxy_does_not_connect() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr());
    let status = proxy.open(request).await.read_head().await.status();
    assert!([400, 405, 501].contains(&status), "{status}");
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn unreachable_destinations_are_answered() {
    let (refusing, saturated) = (Refusing::bind(), Saturated::bind());
    let proxy = Proxy::forward().limit("connect_timeout", "500ms").start();
    let rows = [
        (refusing.addr().to_string(), 502),
        (saturated.addr().to_string(), 504),
        ("no-such-host.invalid:80".to_owned(), 502),
    ];
    for (authority, status) in rows {
        let connect = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        let got = proxy.open(connect).await.read_response().await.status();
        // A resolver that is out of reach itself may take until the timeout.
        let slow = authority.contains("invalid") && got == 504;
        assert!(got == status || slow, "CONNECT {authority}: {got}");
        let get = format!("GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        let got = proxy.open(get).await.read_response().await.status();
        let slow = authority.contains("invalid") && got == 504;
        assert!(got == status || slow, "GET {authority}: {got}");
    }
}

/// After a refused CONNECT the connection is still HTTP.
#[tokio::test]
async fn a_refused_connect_leaves_the_connection_usable() {
    let (refusing, origin) = (Refusing::bind(), Served::ok().await);
    let proxy = Proxy::forward().start();
    let mut client = proxy.connect().await;
    client.send(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", refusing.addr())).await;
    let answer = client.expect_status(502).await;
    if answer.head.get("connection") == Some("close") {
        return client.expect_fin().await;
    }
    client.send(format!("GET http://{0}/ HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr())).await;
    client.expect_status(200).await;
}

#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn curl_fetches_through_both_ways() {
    if !peer("curl") {
        return;
    }
    let Some(nginx) = Nginx::serve(&[("a.txt", b"through the proxy")]) else { return };
    let proxy = Proxy::forward().start();
    let (through, url) =
        (format!("http://{}", proxy.addr()), format!("http://{}/a.txt", nginx.addr()));
    for way in ["--proxytunnel", "--no-progress-meter"] {
        let got = curl(&["--noproxy", "", "--proxy", &through, way, &url]).await;
        assert_eq!(got.text(), "through the proxy", "{way}");
    }
}

#[tokio::test]
async fn curl_authenticates() {
    if !peer("curl") {
        return;
    }
    let origin = Served::always(Reply::ok("let in")).await;
    let proxy = Proxy::forward().args(["--user", "alice:s:same"]).start();
    let (through, url) = (format!("http://{}", proxy.addr()), format!("http://{}/", origin.addr()));
    let base = ["--noproxy", "", "--proxy", &through, &url];
    for way in ["--proxytunnel", "--no-progress-meter"] {
        let with = [&base[..], &[way, "--proxy-user", "alice:s:same"]].concat();
        assert_eq!(curl(&with).await.text(), "let in");
        let without = [&base[..], &[way, "-w", "%{http_code} %{http_connect}", "-o", "/dev/null"]];
        let refused = curl(&without.concat()).await;
        assert!(String::from_utf8_lossy(&refused.stdout).contains("407"), "{refused:?}");
    }
    assert!(origin.seen().iter().all(|seen| !seen.message.head.has("proxy-authorization")));
}
