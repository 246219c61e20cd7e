//! Fields about one connection end with it, all others pass untouched (RFC 9110 7.6.1).

use mantra_macros::req_test;
use underpass_tests::{Head, HttpClient, Origin, Proxy, Served, Version, collect, over_versions};

over_versions!(repeated_set_cookie_stays_repeated, connection_fields_of_the_origin_are_stripped);

/// Fields that belong to one connection, beside those that Connection names.
const HOP_BY_HOP: [&str; 6] =
    ["keep-alive", "proxy-connection", "proxy-authenticate", "te", "upgrade", "x-named"];

fn lower_names(head: &Head) -> Vec<String> {
    head.fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect()
}

#[req_test("REQ-CORE-001.F-003", "REQ-EDGE-004")]
#[tokio::test]
async fn connection_fields_of_the_client_are_stripped() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "GET / HTTP/1.1\r\nHost: test\r\n\
                   Connection: keep-alive, X-Named, x-other,, close\r\n\
                   Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
                   TE: gzip;q=0.5\r\nX-Named: 1\r\nX-OTHER: 2\r\nUpgrade-Insecure-Requests: 1\r\n\
                   X-End-To-End: kept\r\n\r\n";
    proxy.open(request).await.expect_status(200).await;
    let head = origin.only().head;
    for name in HOP_BY_HOP.iter().chain(&["x-other"]) {
        assert!(!head.has(name), "{name} passed: {:?}", head.fields);
    }
    assert_eq!(head.get("x-end-to-end"), Some("kept"));
    assert_eq!(head.get("upgrade-insecure-requests"), Some("1"));
}

#[req_test("REQ-CORE-001.F-003", "REQ-EDGE-004")]
async fn connection_fields_of_the_origin_are_stripped(version: Version) {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Named\r\n\
                 Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-Named: 1\r\n\
                 Upgrade: h2c\r\nX-Kept: 1\r\n\r\nok";
    let origin = Served::always(reply).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let answer = client.get("/").await;
    for name in HOP_BY_HOP {
        assert!(!answer.headers().contains_key(name), "{name} passed: {:?}", answer.headers());
    }
    assert_eq!(answer.headers()["x-kept"], "1");
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
}

/// Only `trailers` survives of TE, since the proxy passes trailers on (RFC 9110 10.1.4).
#[tokio::test]
async fn te_trailers_passes_and_other_codings_do_not() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "GET / HTTP/1.1\r\nHost: test\r\nConnection: TE\r\nTE: trailers, gzip\r\n\r\n";
    proxy.open(request).await.expect_status(200).await;
    let head = origin.only().head;
    assert_eq!(head.all("te"), ["trailers"]);
    // TE speaks about this connection, so Connection has to say so.
    assert!(head.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("te")), "{head:?}");
}

/// Credentials for a proxy are not for the origin.
#[tokio::test]
async fn a_reverse_proxy_passes_authorization_on() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "GET / HTTP/1.1\r\nHost: test\r\nAuthorization: Basic YTpi\r\n\r\n";
    proxy.open(request).await.expect_status(200).await;
    assert_eq!(origin.only().head.get("authorization"), Some("Basic YTpi"));
}

#[req_test("REQ-CORE-001.F-003")]
async fn repeated_set_cookie_stays_repeated(version: Version) {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=1, b\r\n\
                 X-Between: x\r\nSet-Cookie: c=2; Path=/\r\nSet-Cookie: a=3\r\n\r\n";
    let origin = Served::always(reply).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let answer = client.get("/").await;
    let cookies: Vec<_> = answer.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1, b", "c=2; Path=/", "a=3"]);
}

/// Values of one field keep their order and their lines; bytes beyond ASCII pass.
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn end_to_end_fields_pass_byte_for_byte() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "GET / HTTP/1.1\r\nHost: test\r\nX-List: b, a\r\nAccept: */*\r\nX-List:  c\t\r\n\
                   X-Empty:\r\nX-Text: na\u{ef}ve \"quoted\\\" \u{2713}\r\nUser-Agent: x/1 (y; z)\r\n\
                   Accept-Encoding: gzip, br;q=0.5\r\nIf-None-Match: W/\"a\"\r\n\r\n";
    proxy.open(request).await.expect_status(200).await;
    let head = origin.only().head;
    assert_eq!(head.all("x-list"), ["b, a", "c"]);
    assert_eq!(head.all("x-empty"), [""]);
    assert_eq!(head.get("x-text"), Some("na\u{ef}ve \"quoted\\\" \u{2713}"));
    assert_eq!(head.get("user-agent"), Some("x/1 (y; z)"));
    assert_eq!(head.get("accept-encoding"), Some("gzip, br;q=0.5"));
    assert_eq!(head.get("if-none-match"), Some("W/\"a\""));
}

/// Nothing is added that the origin or the client did not send, but what a proxy must add.
#[tokio::test]
async fn the_origins_own_fields_stay_as_they_are() {
    let reply = "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 0\r\nServer: origin/1\r\n\
                 Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n";
    let origin = Served::always(reply).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let head = client.expect_status(418).await.head;
    assert_eq!(head.all("server"), ["origin/1"]);
    assert_eq!(head.all("date"), ["Mon, 01 Jan 2024 00:00:00 GMT"]);
    let known = ["content-length", "server", "date", "via"];
    assert!(lower_names(&head).iter().all(|name| known.contains(&name.as_str())), "{head:?}");
}

fn case_config(origin: &Served) -> String {
    format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\npreserve_header_case = true\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n",
        origin.addr()
    )
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn the_case_of_names_is_kept_where_asked_for() {
    let reply = "HTTP/1.1 200 OK\r\ncontent-LENGTH: 0\r\nX-oDd: 1\r\nETag: \"a\"\r\n\r\n";
    let origin = Served::always(reply).await;
    let proxy = Proxy::config(case_config(&origin)).start();
    let request = "GET / HTTP/1.1\r\nHOST: test\r\nX-CasE: 1\r\naccept: */*\r\n\r\n";
    let answer = proxy.open(request).await.expect_status(200).await;
    let names: Vec<_> = answer.head.fields.iter().map(|(n, _)| n.as_str()).collect();
    assert!(names.contains(&"X-oDd") && names.contains(&"ETag"), "{names:?}");
    let seen = origin.only();
    let names: Vec<_> = seen.head.fields.iter().map(|(n, _)| n.as_str()).collect();
    assert!(names.contains(&"X-CasE") && names.contains(&"accept"), "{names:?}");
}

/// A field that only HTTP/1 knows makes an HTTP/2 request malformed (RFC 9113 8.2.2); hyper's
/// client does not send them, so this looks at what an h2 request becomes.
#[tokio::test]
async fn cookies_of_h2_are_joined_for_http1() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    let request = client.request(http::Method::GET, "/").header("cookie", "a=1");
    let request = request.header("cookie", "b=2").body(underpass_tests::OutBody::Empty).unwrap();
    let answer = client.send(request);
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    // RFC 9113 8.2.3: one field, joined by "; ".
    assert_eq!(head.all("cookie"), ["a=1; b=2"]);
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(answer.await.unwrap().status(), 200);
}
