//! Request targets reach the origin in origin-form, otherwise byte for byte (RFC 9112 3.2).

use http::{Method, Request};
use underpass_tests::{HttpClient, OutBody, Proxy, Served, Version};

async fn target_at_origin(request: &str) -> String {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    proxy.open(request).await.expect_status(200).await;
    let seen = origin.only();
    assert_eq!(seen.head.get("host"), Some("test"), "{request:?}");
    seen.head.start
}

#[tokio::test]
async fn absolute_form_becomes_origin_form() {
    let start = target_at_origin("GET http://test/a?b=c HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(start, "GET /a?b=c HTTP/1.1");
    let start = target_at_origin("GET http://test HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(start, "GET / HTTP/1.1");
    let start = target_at_origin("GET http://test?q HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(start, "GET /?q HTTP/1.1");
}

#[tokio::test]
async fn options_asterisk_stays() {
    let start = target_at_origin("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(start, "OPTIONS * HTTP/1.1");
}

/// Escapes, doubled slashes and dots mean what the origin makes of them.
#[tokio::test]
async fn targets_are_not_normalised() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let targets = [
        "//a//b",
        "/a/../b/./c",
        "/%2e%2e/%2F",
        "/%zz",
        "/a;b=c/d,e",
        "/?",
        "/?a=b&c=%00+d",
        "/'()*!$&~:@",
        "/[x]?{y}|z",
        "/a%20b?http://other/",
    ];
    let mut client = proxy.connect().await;
    for target in targets {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        client.expect_status(200).await;
    }
    assert_eq!(origin.targets(), targets);
}

#[tokio::test]
async fn h2_pseudo_fields_become_target_and_host() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    let request = Request::builder()
        .method(Method::GET)
        .uri("http://name.example:81/p?q=1")
        .version(http::Version::HTTP_2)
        .body(OutBody::Empty)
        .unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 200);
    let head = origin.only().head;
    assert_eq!(head.start, "GET /p?q=1 HTTP/1.1");
    assert_eq!(head.all("host"), ["name.example:81"]);
}

#[tokio::test]
async fn unknown_methods_pass() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.connect().await;
    let methods = ["PATCH", "PROPFIND", "M-SEARCH", "get", "X!#$%&'*+-.^_`|~9"];
    for method in methods {
        client.send(format!("{method} / HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        client.expect_status(200).await;
    }
    let seen: Vec<_> = origin.seen().iter().map(|s| s.message.head.method().to_owned()).collect();
    assert_eq!(seen, methods);
}
