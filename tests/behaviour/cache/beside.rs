//! The cache among what else is done with a request: who is let in comes before it, compression
//! behind it, and what it answers is recorded and logged as any answer.

use std::io::Read as _;

use base64::Engine as _;
use mantra_macros::req_test;
use underpass::record::Side;
use underpass_tests::{Origin, Proxy, Records, Seen, Wire, clock::BOUND, within};

use super::{answer, ask, did, get, with_cache};
use crate::middleware::admission::{token, token_keys};

fn config(origin: &Origin, more: &str, route: &str) -> String {
    format!(
        "workers = 1\n[log]\naccess = \"off\"\n{more}[cache]\n[[listener]]\nname = \"web\"\n\
         address = \"127.0.0.1:0\"\n[[route]]\nupstream = \"o\"\ncache = true\n{route}\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        origin.addr()
    )
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn who_is_not_let_in_is_not_served_from_what_is_kept() {
    let origin = Origin::bind().await;
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    let more =
        format!("[[middleware]]\nname = \"who\"\nbasic_auth = {{ users = [\"me:{hash}\"] }}\n");
    let text = config(&origin, &more, "middleware = [\"who\"]");
    let origin = origin.serve(|_| answer("Cache-Control: max-age=60, public", "body"));
    let proxy = Proxy::config(text).start();
    let me = base64::engine::general_purpose::STANDARD.encode("me:secret");
    let mine = format!("Authorization: Basic {me}");
    let mut wire = proxy.connect().await;
    for outcome in ["MISS", "HIT"] {
        assert_eq!(did(&ask(&mut wire, "GET", "/x", &mine).await), outcome);
        assert_eq!(ask(&mut wire, "GET", "/x", "").await.status(), 401);
    }
    assert_eq!(origin.seen().len(), 1);
}

/// Whom the proxy has let in, as a server that may be told of nothing else.
fn tells_the_user(seen: &Seen) -> String {
    let head = &seen.message.head;
    assert!(!head.has("authorization"));
    let fields = match head.target() {
        "/public" => "Cache-Control: max-age=60, public",
        _ => "Cache-Control: max-age=60",
    };
    answer(fields, head.get("x-user").unwrap_or("nobody"))
}

/// Also where the server is told only who it is, and not by `Authorization`.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_is_for_one_who_was_let_in_is_not_given_to_another() {
    let origin = Origin::bind().await;
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    let more = format!(
        "[[middleware]]\nname = \"who\"\nbasic_auth = {{ users = [\"one:{hash}\", \"two:{hash}\"], \
         remove = true, user_header = \"X-User\" }}\n"
    );
    let text = config(&origin, &more, "middleware = [\"who\"]");
    let origin = origin.serve(tells_the_user);
    let proxy = Proxy::config(text).start();
    let mut wire = proxy.connect().await;
    for (target, user, outcome, body) in [
        ("/x", "one", "UNCACHEABLE", "one"),
        ("/x", "two", "UNCACHEABLE", "two"),
        ("/x", "one", "UNCACHEABLE", "one"),
        ("/public", "one", "MISS", "one"),
        ("/public", "two", "HIT", "one"),
    ] {
        let who = base64::engine::general_purpose::STANDARD.encode(format!("{user}:secret"));
        let got = ask(&mut wire, "GET", target, &format!("Authorization: Basic {who}")).await;
        assert_eq!((did(&got), got.text().as_str()), (outcome, body), "{target} {user}");
    }
    assert_eq!(origin.seen().len(), 4);
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_is_kept_is_compressed_for_who_takes_it() {
    let body: String = (0..2000).map(|line| format!("line {line}\n")).collect();
    let sent = body.clone();
    let origin = Origin::bind().await;
    let more = "[[middleware]]\nname = \"small\"\ncompression = {}\n";
    let text = config(&origin, more, "middleware = [\"small\"]");
    let origin =
        origin.serve(move |_| answer("Cache-Control: max-age=60|Content-Type: text/plain", &sent));
    let proxy = Proxy::config(text).start();
    let mut wire = proxy.connect().await;
    for (outcome, accept) in [("MISS", ""), ("HIT", "Accept-Encoding: gzip"), ("HIT", "")] {
        let got = ask(&mut wire, "GET", "/x", accept).await;
        assert_eq!(did(&got), outcome);
        let plain = match accept {
            "" => got.text(),
            _ => {
                assert_eq!(got.head.get("content-encoding"), Some("gzip"));
                let mut plain = String::new();
                flate2::read::GzDecoder::new(&got.body[..]).read_to_string(&mut plain).unwrap();
                plain
            }
        };
        assert_eq!(plain, body, "{outcome} {accept}");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[req_test("REQ-CACHE-006")]
#[tokio::test]
async fn what_is_answered_from_the_cache_is_recorded_too() {
    let origin = Origin::bind().await;
    let records = Records::default();
    let text = config(&origin, &records.section(""), "");
    let origin = origin.serve(|_| answer("Cache-Control: max-age=60", "body"));
    let proxy = Proxy::config(text).start();
    for outcome in ["MISS", "HIT"] {
        assert_eq!(did(&get(&proxy, "/x", "").await), outcome);
    }
    let all = records.ended(2).await;
    assert_eq!(all.len(), 2);
    for record in &all {
        assert!(record.is_whole());
        assert_eq!(record.body(Side::Response).bytes, b"body");
    }
    assert_eq!(origin.seen().len(), 1);
}

/// A reader who is far behind, in memory that has no room for what it has not read.
#[req_test("REQ-CACHE-005")]
#[tokio::test]
async fn who_is_slow_gets_what_is_gone_from_the_server_or_is_cut() {
    const LENGTH: u64 = 16 << 20;
    for (etag, whole) in [("\"strong\"", true), ("W/\"weak\"", false)] {
        let origin = Origin::bind().await;
        let proxy = with_cache(origin.addr(), "memory_bytes = \"2MiB\"", "").start();
        let ask = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
        let mut slow = Wire::connect_narrow(proxy.addr()).await;
        slow.send(ask).await;
        let mut server = origin.accept().await;
        server.read_request().await;
        let fields = format!("ETag: {etag}\r\nCache-Control: max-age=60\r\n");
        server.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {LENGTH}\r\n\r\n")).await;
        slow.read_head().await;
        let mut fast = proxy.open(ask).await;
        let both = async {
            fast.read_head().await;
            // Bit by bit, or the socket of the slow one could take it faster than the other reads.
            for at in (0..LENGTH).step_by(64 << 10) {
                server.send_rest(at, at + (64 << 10)).await;
                fast.check_pattern(at, 64 << 10).await;
            }
        };
        within(BOUND, "all of it for the one who reads", both).await;
        if !whole {
            let (body, _) = slow.read_to_end().await;
            assert!((body.len() as u64) < LENGTH, "what is gone cannot be had");
            underpass_tests::pattern::check(0, &body);
            continue;
        }
        let ranges = async {
            let mut servers = tokio::task::JoinSet::new();
            // Parts may be asked for on the connection that the whole has come on, or on others.
            let mut server = server;
            loop {
                let fields = fields.clone();
                servers.spawn(async move {
                    while server.readable().await {
                        let asked = server.read_request().await;
                        assert_eq!(asked.head.get("if-range"), Some("\"strong\""));
                        let range =
                            asked.head.get("range").unwrap().strip_prefix("bytes=").unwrap();
                        let (first, last) = range.split_once('-').unwrap();
                        let (first, last): (u64, u64) =
                            (first.parse().unwrap(), last.parse().unwrap());
                        let length = last + 1 - first;
                        server
                            .send(format!(
                                "HTTP/1.1 206 Partial Content\r\n{fields}Content-Range: \
                                 bytes {first}-{last}/{LENGTH}\r\nContent-Length: {length}\r\n\r\n"
                            ))
                            .await;
                        server.send_rest(first, last + 1).await;
                    }
                });
                server = origin.accept().await;
            }
        };
        tokio::select! {
            () = ranges => {}
            () = within(BOUND, "the rest for the slow one", slow.check_pattern(0, LENGTH)) => {}
        }
        assert_eq!(proxy.metrics().await.sum("underpass_cache_cuts_total", &[]), 0.0);
    }
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn clients_of_http_1_0_see_where_a_body_ends() {
    let origin = Origin::bind().await.serve(|_| {
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nbody\r\n0\r\n\r\n"
    });
    let proxy = with_cache(origin.addr(), "", "").start();
    for _ in 0..2 {
        let mut wire = proxy.open("GET /x HTTP/1.0\r\nHost: h\r\n\r\n").await;
        let (bytes, _) = wire.read_to_end().await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.ends_with("\r\n\r\nbody") && !text.contains("chunked"), "{text}");
    }
    // Nobody knows whom it asks for.
    let mut wire = proxy.open("GET /x HTTP/1.0\r\n\r\n").await;
    let (bytes, _) = wire.read_to_end().await;
    assert!(String::from_utf8_lossy(&bytes).contains("BYPASS"));
}

/// Who it is may be said in a cookie as well: then no `Authorization` tells the cache of it.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_is_for_one_whom_a_cookie_has_let_in_is_not_given_to_another() {
    let origin = Origin::bind().await;
    let keys = token_keys();
    let more = format!(
        "[[middleware]]\nname = \"who\"\njwt = {{ keys_file = \"{}\", cookie = \"id\", \
         claims = {{ x-user = \"sub\" }} }}\n",
        keys.display()
    );
    let text = config(&origin, &more, "middleware = [\"who\"]");
    let origin = origin.serve(tells_the_user);
    let proxy = Proxy::config(text).start();
    std::fs::remove_file(keys).unwrap();
    let mut wire = proxy.connect().await;
    for (target, user, outcome, body) in [
        ("/x", "ada", "UNCACHEABLE", "ada"),
        ("/x", "bob", "UNCACHEABLE", "bob"),
        ("/x", "ada", "UNCACHEABLE", "ada"),
        ("/public", "ada", "MISS", "ada"),
        ("/public", "bob", "HIT", "ada"),
    ] {
        let got = ask(&mut wire, "GET", target, &format!("Cookie: id={}", token(user, 60))).await;
        assert_eq!((did(&got), got.text().as_str()), (outcome, body), "{target} {user}");
    }
    assert_eq!(origin.seen().len(), 4);
}
