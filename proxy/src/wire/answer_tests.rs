//! Tables of answers: what passes, what must not, and what is read out of it.

use super::*;

const BOUNDS: Bounds = Bounds { max_bytes: 4096, max_headers: 8, max_uri_bytes: 64 };

fn answer(head: &str) -> Result<ResponseFacts, &'static str> {
    response(head.as_bytes(), false, &BOUNDS)
}

#[test]
fn responses_are_framed_as_the_rfc_says() {
    for (head, status, framing) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, Framing::Length(3)),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, Framing::Empty),
        ("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", 200, Framing::Chunked),
        ("HTTP/1.0 200 OK\r\n\r\n", 200, Framing::UntilClose),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, Framing::Empty),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, Framing::Empty),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 103, Framing::Empty),
    ] {
        let facts = answer(head).unwrap();
        assert_eq!((facts.status, facts.framing), (status, framing), "{head}");
    }
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(response(head, true, &BOUNDS).unwrap().framing, Framing::Empty);
}

#[test]
fn ambiguous_responses_are_refused() {
    for (head, rule) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", "more than one"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "beside"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "unknown transfer coding"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "does not end"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0"),
        ("HTTP/1.1 204 x\r\nContent-Length: 3\r\n\r\n", "there can be none"),
        ("HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n", "there can be none"),
        ("HTTP/1.1 101 x\r\nContent-Length: 3\r\n\r\n", "there can be none"),
        ("HTTP/1.1 200 OK\nContent-Length: 3\n\n", "bare LF"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "folded"),
        ("HTTP/1.1 200 OK\r\nX : a\r\n\r\n", "before the colon"),
        ("HTTP/1.1 200 O\0K\r\n\r\n", "reason"),
        ("HTTP/1.1 20 OK\r\n\r\n", "status code"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "reason"),
        ("HTTP/2 200 OK\r\n\r\n", "status line"),
        ("ICY 200 OK\r\n\r\n", "status line"),
        ("HTTP/1.1 200 OK\r\nConnection: content-length\r\n\r\n", "end-to-end"),
    ] {
        let why = answer(head).expect_err(head);
        assert!(why.contains(rule), "{head:?}: {why}");
    }
}

#[test]
fn a_connection_goes_on_only_where_both_versions_say_so() {
    for (head, closes) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: x, Close\r\n\r\n", true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nconnection: x\r\nCONNECTION: close\r\n\r\n",
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", true),
    ] {
        assert_eq!(answer(head).unwrap().closes, closes, "{head}");
    }
}

#[test]
fn a_head_is_found_in_any_number_of_pieces() {
    let whole = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody";
    let interim = whole.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
    let mut heads = Heads::new(BOUNDS);
    heads.expect(false);
    for length in 0..interim {
        assert_eq!(heads.find(&whole[..length]), Ok(None));
    }
    let (facts, end) = heads.find(whole).unwrap().unwrap();
    assert_eq!((facts.status, end), (103, interim));
    let (facts, end) = heads.find(&whole[end..]).unwrap().unwrap();
    assert_eq!((facts.status, facts.framing, end), (200, Framing::UntilClose, 19));
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(BOUNDS.max_bytes));
    assert_eq!(Heads::new(BOUNDS).find(long.as_bytes()), Err("head too large"));
}

#[test]
fn fields_are_read_as_they_stand() {
    let head = "HTTP/1.1 418 Short And Stout\r\nX-One:  a b \r\nETag:\r\nx-one: \u{e9}\r\n\r\n";
    let facts = answer(head).unwrap();
    let read = read(&Bytes::from(head.to_owned()), &facts).unwrap();
    assert_eq!((read.status().as_u16(), read.version()), (418, Version::HTTP_11));
    let fields: Vec<_> =
        read.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let both = [("x-one", &b"a b"[..]), ("x-one", "\u{e9}".as_bytes()), ("etag", b"")];
    assert_eq!(fields, both);
    let reason = read.extensions().get::<ReasonPhrase>().unwrap();
    assert_eq!(reason.as_bytes(), b"Short And Stout");
    let plain = "HTTP/1.0 200 OK\r\n\r\n";
    let plain = super::read(&Bytes::from(plain), &answer(plain).unwrap()).unwrap();
    assert_eq!(plain.version(), Version::HTTP_10);
    assert!(plain.extensions().get::<ReasonPhrase>().is_none());
}
