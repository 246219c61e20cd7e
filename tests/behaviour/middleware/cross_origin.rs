//! Browsers on pages of other origins: preflights, and what answers say.

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{HttpClient, OutBody, Served, Version, collect};

use super::with;

const POLICY: &str = "cors = { origins = [\"https://app.test\"], methods = [\"GET\", \"PUT\"], \
                      headers = [\"x-token\"], credentials = true, max_age = \"10m\" }";

#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn preflights_are_answered_here() {
    let served = Served::ok().await;
    let proxy = with(&served, &[("m", POLICY)]).start();
    for version in [Version::H1, Version::H2] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        for (origin, allowed) in [("https://app.test", true), ("https://evil.test", false)] {
            let request = client
                .request(Method::OPTIONS, "/x")
                .header("origin", origin)
                .header("access-control-request-method", "PUT");
            let answer = client.send(request.body(OutBody::Empty).unwrap()).await.unwrap();
            assert_eq!(answer.status(), 204);
            let told = |name: &str| answer.headers().get(name).map(|it| it.to_str().unwrap());
            assert_eq!(told("access-control-allow-origin"), allowed.then_some(origin));
            assert_eq!(told("access-control-allow-methods"), allowed.then_some("GET, PUT"));
            assert_eq!(told("access-control-max-age"), allowed.then_some("600"));
            assert_eq!(told("content-length"), None, "RFC 9110 section 8.6");
            collect(answer.into_body()).await.unwrap();
        }
    }
    assert_eq!(served.targets(), [""; 0]);
}

#[tokio::test]
async fn other_requests_pass_and_the_answer_has_our_policy() {
    // All of it, that of an answer to a preflight too.
    let reply = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Max-Age: 5\r\n\
                 Access-Control-Allow-Credentials: false\r\nContent-Length: 0\r\n\r\n";
    let served = Served::always(reply).await;
    let proxy = with(&served, &[("m", POLICY)]).start();
    for (method, origin, allowed) in [
        ("GET", "Origin: https://app.test\r\n", Some("https://app.test")),
        ("GET", "Origin: https://evil.test\r\n", None),
        ("GET", "", None),
        ("OPTIONS", "Origin: https://app.test\r\n", Some("https://app.test")),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: t\r\n{origin}\r\n");
        let answer = proxy.open(request).await.read_response_to(method).await;
        assert_eq!(answer.head.get("access-control-allow-origin"), allowed, "{method} {origin}");
        assert!(!answer.head.has("access-control-max-age"), "{method} {origin}");
        let credentials = allowed.map(|_| "true");
        assert_eq!(answer.head.get("access-control-allow-credentials"), credentials);
        assert_eq!(answer.head.all("vary"), ["Origin"]);
    }
    assert_eq!(served.targets().len(), 4);
}
