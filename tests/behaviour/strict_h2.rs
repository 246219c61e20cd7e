//! A malformed HTTP/2 request (RFC 9113 8.1.1, 8.2, 8.3) is refused before it becomes an
//! HTTP/1.1 request: here lies what smuggling by downgrade is made of.

use mantra_macros::req_test;
use underpass_tests::{
    Head, Origin, Proxy, Reply, Served, eventually,
    h2_frames::{Fate, Frames},
    process::Growth,
};

type Field = (&'static [u8], &'static [u8]);

const METHOD: Field = (b":method", b"GET");
const SCHEME: Field = (b":scheme", b"http");
const PATH: Field = (b":path", b"/bad");
const AUTHORITY: Field = (b":authority", b"test");

/// A good request with these fields behind.
fn with(more: &[Field]) -> Vec<Field> {
    [&[METHOD, SCHEME, PATH, AUTHORITY], more].concat()
}

fn malformed() -> Vec<(&'static str, Vec<Field>)> {
    vec![
        ("CR LF in a value", with(&[(b"x", b"a\r\nEvil: 1")])),
        ("LF in a value", with(&[(b"x", b"a\nEvil: 1")])),
        ("CR in a value", with(&[(b"x", b"a\rb")])),
        ("NUL in a value", with(&[(b"x", b"a\0b")])),
        ("CR LF in a name", with(&[(b"x\r\nevil", b"1")])),
        ("colon in a name", with(&[(b"x: y", b"1")])),
        ("space in a name", with(&[(b"x y", b"1")])),
        ("empty name", with(&[(b"", b"1")])),
        ("upper case in a name", with(&[(b"X-Upper", b"1")])),
        ("Transfer-Encoding", with(&[(b"transfer-encoding", b"chunked")])),
        ("Connection", with(&[(b"connection", b"close")])),
        ("Keep-Alive", with(&[(b"keep-alive", b"timeout=5")])),
        ("Proxy-Connection", with(&[(b"proxy-connection", b"keep-alive")])),
        ("Upgrade", with(&[(b"upgrade", b"websocket")])),
        ("TE other than trailers", with(&[(b"te", b"gzip")])),
        ("unknown pseudo-field", with(&[(b":evil", b"1")])),
        ("pseudo-field behind a field", vec![METHOD, SCHEME, (b"x", b"y"), PATH, AUTHORITY]),
        ("response pseudo-field", with(&[(b":status", b"200")])),
        ("no method", vec![SCHEME, PATH, AUTHORITY]),
        ("no path", vec![METHOD, SCHEME, AUTHORITY]),
        ("no scheme", vec![METHOD, PATH, AUTHORITY]),
        ("two paths", with(&[(b":path", b"/other")])),
        ("two methods", with(&[(b":method", b"POST")])),
        ("empty path", vec![METHOD, SCHEME, (b":path", b""), AUTHORITY]),
        ("path without a slash", vec![METHOD, SCHEME, (b":path", b"bad"), AUTHORITY]),
        ("absolute path", vec![METHOD, SCHEME, (b":path", b"http://other/bad"), AUTHORITY]),
        ("space in the path", vec![METHOD, SCHEME, (b":path", b"/a HTTP/1.1"), AUTHORITY]),
        (
            "CR LF in the path",
            vec![METHOD, SCHEME, (b":path", b"/ HTTP/1.1\r\nEvil: 1\r\nX: y"), AUTHORITY],
        ),
        ("beyond ASCII in the path", vec![METHOD, SCHEME, (b":path", b"/b\xc3\xa4d"), AUTHORITY]),
        ("asterisk for GET", vec![METHOD, SCHEME, (b":path", b"*"), AUTHORITY]),
        ("space in the method", vec![(b":method", b"GET /x"), SCHEME, PATH, AUTHORITY]),
        (
            "CR LF in the method",
            vec![(b":method", b"GET / HTTP/1.1\r\nX: y\r\n\r\nGET"), SCHEME, PATH, AUTHORITY],
        ),
        ("userinfo", vec![METHOD, SCHEME, PATH, (b":authority", b"user@test")]),
        ("path in the authority", vec![METHOD, SCHEME, PATH, (b":authority", b"test/x")]),
        ("space in the authority", vec![METHOD, SCHEME, PATH, (b":authority", b"te st")]),
        ("empty authority", vec![METHOD, SCHEME, PATH, (b":authority", b"")]),
        ("no host at all", vec![METHOD, SCHEME, PATH]),
        ("authority and Host differ", with(&[(b"host", b"other")])),
        ("two Hosts", vec![METHOD, SCHEME, PATH, (b"host", b"a"), (b"host", b"a")]),
        ("bad Host alone", vec![METHOD, SCHEME, PATH, (b"host", b"a b")]),
        ("two lengths", with(&[(b"content-length", b"5"), (b"content-length", b"6")])),
        ("a list of lengths", with(&[(b"content-length", b"0, 0")])),
        ("signed length", with(&[(b"content-length", b"+0")])),
        ("a length without a body", with(&[(b"content-length", b"5")])),
    ]
}

/// Reset as malformed, or answered with 400; the origin sees nothing either way.
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn malformed_heads_are_refused() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let (mut wrong, mut leaked) = (Vec::new(), 0);
    for (n, (why, fields)) in malformed().into_iter().enumerate() {
        let mut client = Frames::open(proxy.connect().await).await;
        let stream = client.request(&fields, true).await;
        match client.fate(stream).await {
            Fate::Answered(Some(400)) | Fate::Reset(_) | Fate::GoneAway(_) | Fate::Ended(_) => {}
            other => wrong.push(format!("{why}: {other:?}")),
        }
        proxy
            .open(format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n"))
            .await
            .expect_status(200)
            .await;
        // All that the origin sees are the markers.
        let seen = origin.seen();
        let is_marker = |head: &Head| head.target()[1..].bytes().all(|b| b.is_ascii_digit());
        let more: Vec<_> = seen.iter().filter(|s| !is_marker(&s.message.head)).collect();
        if more.len() > leaked {
            leaked = more.len();
            wrong.push(format!(
                "{why}: reached the origin as {:?}",
                more[leaked - 1].message.head.start
            ));
        }
    }
    assert!(wrong.is_empty(), "not refused:\n{}", wrong.join("\n"));
}

/// What is announced must be what comes (RFC 9113 8.1.1).
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn bodies_must_have_the_length_they_announce() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    for body in [&b"four"[..], b"sixsix", b"five\r\nGET /smuggled HTTP/1.1\r\n\r\n"] {
        let mut client = Frames::open(proxy.connect().await).await;
        let post = [(b":method".as_slice(), b"POST".as_slice()), SCHEME, PATH, AUTHORITY];
        let fields = [&post[..], &[(b"content-length", b"5")]].concat();
        let stream = client.request(&fields, false).await;
        client.data(stream, body, true).await;
        match client.fate(stream).await {
            Fate::Answered(Some(400)) | Fate::Reset(_) | Fate::GoneAway(_) | Fate::Ended(_) => {}
            other => panic!("{} bytes for 5: {other:?}", body.len()),
        }
    }
    drop(proxy);
    origin.deserted().await;
    assert!(origin.seen().iter().all(|seen| seen.message.cut.is_some()), "{:#?}", origin.seen());
}

#[tokio::test]
async fn malformed_trailers_are_refused() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let rows: [Field; 5] = [
        (b"content-length", b"5"),
        (b"transfer-encoding", b"chunked"),
        (b":path", b"/other"),
        (b"x", b"a\r\nb"),
        (b"host", b"other"),
    ];
    for field in rows {
        let mut client = Frames::open(proxy.connect().await).await;
        let post = [(b":method".as_slice(), b"POST".as_slice()), SCHEME, PATH, AUTHORITY];
        let stream = client.request(&post, false).await;
        client.data(stream, b"hello", false).await;
        client.trailers(stream, &[field]).await;
        client.fate(stream).await;
    }
    drop(proxy);
    origin.deserted().await;
    // Refused, or without what may not be there: never as it came.
    for seen in origin.seen() {
        let trailers = &seen.message.trailers;
        assert!(seen.message.cut.is_some() || trailers.is_empty(), "{trailers:?}");
    }
}

/// Odd but well-formed.
#[tokio::test]
async fn clear_heads_pass() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let rows: [(&str, Vec<Field>); 6] = [
        ("plain", with(&[])),
        ("Host as well", with(&[(b"host", b"test")])),
        ("Host alone", vec![METHOD, SCHEME, PATH, (b"host", b"test")]),
        ("TE: trailers", with(&[(b"te", b"trailers")])),
        ("length zero", with(&[(b"content-length", b"0")])),
        ("beyond ASCII in a value", with(&[(b"x", b"\xc3\xa4")])),
    ];
    for (why, fields) in rows {
        let mut client = Frames::open(proxy.connect().await).await;
        let stream = client.request(&fields, true).await;
        assert_eq!(client.fate(stream).await, Fate::Answered(Some(200)), "{why}");
    }
    for seen in origin.seen() {
        assert_eq!(seen.message.head.all("host"), ["test"], "{seen:?}");
    }
}

/// Streams opened and given up at once (CVE-2023-44487) cost the client, not us.
#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn rapid_resets_are_survived() {
    let origin = Origin::bind().await.serve(|_| Reply::ok("ok"));
    let proxy = Proxy::reverse(origin.addr()).start();
    proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.expect_status(200).await;
    let descriptors = proxy.descriptors();
    let mut growth = Growth::of(proxy.pid());
    let mut client = Frames::open(proxy.connect().await).await;
    let flooding = async {
        for _ in 0..3000 {
            let stream = client.request(&with(&[]), true).await;
            client.reset(stream).await;
        }
    };
    growth.during(flooding).await;
    // Others are served meanwhile and afterwards.
    proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.expect_status(200).await;
    drop(client);
    growth.assert_below(20 << 20);
    eventually("descriptors to be given back", async || proxy.descriptors() <= descriptors + 64)
        .await;
}
