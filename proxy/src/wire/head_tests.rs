//! Tables of heads that pass and heads that must not.

use super::*;

const BOUNDS: Bounds = Bounds { max_bytes: 4096, max_headers: 8, max_uri_bytes: 64 };

fn judge(head: &str) -> Result<RequestFacts, Kind> {
    request(head.as_bytes(), &BOUNDS)
}

#[test]
fn the_end_of_a_head_is_found_in_any_number_of_pieces() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore";
    for cut in 1..head.len() {
        let mut searched = 0;
        let first = find_end(&head[..cut], &mut searched);
        let found = first.or_else(|| find_end(head, &mut searched));
        assert_eq!(found, Some(head.len() - 4), "cut at {cut}");
    }
    assert_eq!(find_end(b"GET / HTTP/1.1\nHost: a\n\n", &mut 0), Some(24));
    assert_eq!(find_end(b"GET / HTTP/1.1\r\n\n", &mut 0), Some(17));
    assert_eq!(find_end(b"GET / HTTP/1.1\r\nHost: a\r\n\r", &mut 0), None);
}

#[test]
fn good_requests_pass() {
    for (head, framing, may_tunnel) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Empty, false),
        ("GET / HTTP/1.0\r\n\r\n", Framing::Empty, false),
        (
            "POST /x?y=%20 HTTP/1.1\r\nhOST:a:81\r\nContent-Length: 12\r\n\r\n",
            Framing::Length(12),
            false,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Framing::Empty, false),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  Chunked \r\n\r\n",
            Framing::Chunked,
            false,
        ),
        ("GET http://a/x HTTP/1.1\r\nHost: A\r\n\r\n", Framing::Empty, false),
        ("GET http://a:80/x HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Empty, false),
        ("GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Empty, false),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Empty, false),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Framing::Empty, true),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Empty, true),
        ("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n", Framing::Empty, true),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: keep-alive, Upgrade\r\n\r\n",
            Framing::Empty,
            true,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n", Framing::Empty, false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-mine, close\r\n\r\n", Framing::Empty, false),
    ] {
        assert_eq!(
            judge(head),
            Ok(RequestFacts { framing, may_tunnel, for_server: false }),
            "{head}"
        );
    }
}

#[test]
fn ambiguous_requests_are_refused() {
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    for (head, rule) in [
        (post("Content-Length: 1\r\nContent-Length: 2"), "more than one Content-Length"),
        (post("Content-Length: 1\r\nContent-Length: 1"), "more than one Content-Length"),
        (post("Content-Length: 5, 5"), "bad Content-Length"),
        (post("Content-Length: +5"), "bad Content-Length"),
        (post("Content-Length:"), "bad Content-Length"),
        (post("Content-Length: 1\r\nTransfer-Encoding: chunked"), "beside"),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 0"), "beside"),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), "more than one"),
        (post("Transfer-Encoding: chunked, chunked"), "more than once"),
        (post("Transfer-Encoding: chunked, gzip"), "does not end"),
        (post("Transfer-Encoding: gzip"), "does not end"),
        (post("Transfer-Encoding: xchunked"), "does not end"),
        (post("Transfer-Encoding: chunked;a=b"), "does not end"),
        (post("Transfer-Encoding: \x0bchunked"), "control byte"),
        (post("Transfer-Encoding:"), "bad Transfer-Encoding"),
        (post("Transfer-Encoding: chunked,"), "bad Transfer-Encoding"),
        (post("X: a\n Y: b"), "bare LF"),
        (post("X: a\rb"), "control byte"),
        (post("X: a\r\n folded"), "folded"),
        (post("X : a"), "before the colon"),
        (post("X: a\0b"), "control byte"),
        (post(": a"), "empty field name"),
        (post("Host: b"), "more than one Host"),
        (post("Connection: content-length"), "end-to-end"),
        (post("Connection: close, Host"), "end-to-end"),
        (post("Connection: transfer-encoding"), "end-to-end"),
        (post("Connection: a b"), "Connection option"),
        ("GET / HTTP/1.1\r\n\r\n".into(), "Host is missing"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), "bad Host"),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(), "bad Host"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), "bad Host"),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), "bad Host"),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n".into(), "bad Host"),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n".into(), "bad Host"),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), "differs"),
        ("GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), "differs"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:2\r\n\r\n".into(), "differs"),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), "bad authority"),
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n".into(), "host:port"),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 4\r\n\r\n".into(),
            "CONNECT with a body",
        ),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), "in HTTP/1.0"),
        ("GET / HTTP/1.1\nHost: a\n\n".into(), "bare LF"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "bad request target"),
        ("GET / x HTTP/1.1\r\nHost: a\r\n\r\n".into(), "bad HTTP version"),
        ("GET /\t HTTP/1.1\r\nHost: a\r\n\r\n".into(), "bad request target"),
        ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n".into(), "bad request target"),
        ("GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".into(), "bad request target"),
        ("GET x HTTP/1.1\r\nHost: a\r\n\r\n".into(), "bad request target"),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".into(), "bad request target"),
        ("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "bad method"),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "bad method"),
        ("GET / http/1.1\r\nHost: a\r\n\r\n".into(), "bad HTTP version"),
        ("GET / HTTP/1.1x\r\nHost: a\r\n\r\n".into(), "bad HTTP version"),
        ("GET /\r\nHost: a\r\n\r\n".into(), "bad request line"),
    ] {
        match judge(&head) {
            Err(Kind::BadRequest(why)) => assert!(why.contains(rule), "{head:?}: {why}"),
            other => panic!("{head:?}: {other:?}"),
        }
    }
}

#[test]
fn other_refusals_have_statuses_of_their_own() {
    let long = "x".repeat(64);
    assert_eq!(judge(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")), Err(Kind::UriTooLong));
    assert_eq!(judge("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Err(Kind::VersionNotSupported));
    let many = "X: 1\r\n".repeat(8);
    assert_eq!(judge(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), Err(Kind::HeadTooLarge));
    let gzip = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n";
    assert_eq!(judge(gzip), Err(Kind::NotImplemented("transfer coding")));
}
