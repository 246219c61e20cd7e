//! Answers compressed on their way: whole, at once, and only where it is right.

use std::io::Read;

use http::{HeaderMap, HeaderValue, Method};
use mantra_macros::req_test;
use underpass_tests::{HttpClient, Origin, OutBody, Proxy, Reply, Served, Version, collect};

use super::{config, with};

fn decoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let whole = match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain),
        "zstd" => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut plain),
        other => panic!("{other}"),
    };
    whole.unwrap_or_else(|error| panic!("{coding}: {error}"));
    plain
}

/// Text that shrinks, and no two stretches of it the same.
fn text(lines: usize) -> String {
    (0..lines).map(|line| format!("{{\"line\": {line}, \"square\": {}}}\n", line * line)).collect()
}

fn json(content: &str, more: &str) -> Reply {
    let length = content.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n{content}")
        .into()
}

#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn what_the_client_takes_is_what_it_gets() {
    let content = text(2000);
    let served = Served::always(json(&content, "ETag: \"v1\"\r\n")).await;
    let text = config(&served, &[("m", "compression = {}")]).replace("workers = 2", "workers = 1");
    let proxy = Proxy::config(text).start();
    for version in [Version::H1, Version::H2] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        for (accept, coding) in [
            ("gzip, br, zstd", Some("zstd")),
            ("gzip, br;q=0.9", Some("gzip")),
            ("br", Some("br")),
            ("deflate", None),
            ("gzip;q=0", None),
        ] {
            let request = client.request(Method::GET, "/").header("accept-encoding", accept);
            let answer = client.send(request.body(OutBody::Empty).unwrap()).await.unwrap();
            let told =
                |name: &str| answer.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
            assert_eq!(told("content-encoding").as_deref(), coding, "{version:?} {accept}");
            assert_eq!(told("vary").as_deref(), Some("Accept-Encoding"));
            let (tag, length) = (told("etag").unwrap(), told("content-length"));
            let (body, _) = collect(answer.into_body()).await.unwrap();
            match coding {
                Some(coding) => {
                    assert_eq!((tag.as_str(), length), ("W/\"v1\"", None));
                    assert!(body.len() < content.len() / 2);
                    assert_eq!(decoded(coding, &body), content.as_bytes());
                }
                None => {
                    assert_eq!((tag.as_str(), length), ("\"v1\"", Some(content.len().to_string())));
                    assert_eq!(body, content.as_bytes());
                }
            }
        }
    }
    // The connection to the server is kept: its part ended cleanly.
    assert_eq!(served.connections(), 1);
}

#[tokio::test]
async fn what_must_not_change_does_not() {
    let content = text(200);
    let range = format!("Content-Range: bytes 0-{}/9999\r\n", content.len() - 1);
    for (more, asked) in [
        ("Content-Encoding: gzip\r\n", "GET"),
        ("Cache-Control: no-transform\r\n", "GET"),
        (range.as_str(), "GET"),
    ] {
        let served = Served::always(json(&content, more)).await;
        let proxy = with(&served, &[("m", "compression = {}")]).start();
        let request = format!("{asked} / HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\n\r\n");
        let answer = proxy.open(request).await.read_response().await;
        assert_eq!(answer.text(), content, "{more}");
    }
    let served = Served::always(json("{}", "")).await;
    let proxy = with(&served, &[("m", "compression = {}")]).start();
    let request = "GET / HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\n\r\n";
    assert_eq!(proxy.open(request).await.read_response().await.text(), "{}", "too short");
}

#[tokio::test]
async fn head_tells_of_what_get_would_bring() {
    let content = text(200);
    let length = content.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
    let served = Served::always(head).await;
    let proxy = with(&served, &[("m", "compression = {}")]).start();
    for version in [Version::H1, Version::H2] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        for _ in 0..2 {
            let request = client.request(Method::HEAD, "/").header("accept-encoding", "gzip");
            let answer = client.send(request.body(OutBody::Empty).unwrap()).await.unwrap();
            assert_eq!(answer.headers()["content-encoding"], "gzip");
            assert!(!answer.headers().contains_key("content-length"));
            assert_eq!(collect(answer.into_body()).await.unwrap().0, b"");
        }
    }
}

/// A cache that stores what was compressed finds it again by what a 304 says (RFC 9111 4.3.4).
#[tokio::test]
async fn a_304_speaks_of_what_the_client_has() {
    let content = text(200);
    let unchanged = "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nContent-Length: 9999\r\n\r\n";
    let served =
        Origin::bind().await.serve(move |seen| match seen.message.head.get("if-none-match") {
            Some(_) => Reply::from(unchanged),
            None => json(&content, "ETag: \"v1\"\r\n"),
        });
    let proxy = with(&served, &[("m", "compression = {}")]).start();
    for version in [Version::H1, Version::H2] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        for accept in ["gzip", "identity"] {
            let mut told = Vec::new();
            for _ in 0..2 {
                let mut request =
                    client.request(Method::GET, "/").header("accept-encoding", accept);
                if let Some(tag) = told.first() {
                    request = request.header("if-none-match", tag);
                }
                let answer = client.send(request.body(OutBody::Empty).unwrap()).await.unwrap();
                let status = if told.is_empty() { 200 } else { 304 };
                assert_eq!(answer.status(), status, "{version:?} {accept}");
                told.push(answer.headers()["etag"].clone());
                if accept == "gzip" {
                    assert_eq!(answer.headers()["vary"], "Accept-Encoding", "{version:?}");
                    assert!(!answer.headers().contains_key("content-length"), "{version:?}");
                }
                collect(answer.into_body()).await.unwrap();
            }
            assert_eq!(told[0], told[1], "{version:?} {accept}");
        }
    }
}

/// A chunk that has come is with the client before the next one comes.
#[req_test("REQ-CORE-001.F-002")]
#[tokio::test]
async fn nothing_is_held_back() {
    let origin = Origin::bind().await;
    let config = format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"o\"\n\
         middleware = [\"m\"]\n[[middleware]]\nname = \"m\"\ncompression = {{ event_streams = true }}\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        origin.addr()
    );
    let proxy = Proxy::config(config).start();
    for coding in ["gzip", "br", "zstd"] {
        let mut client = HttpClient::connect(proxy.addr(), Version::H1).await;
        let request = client.request(Method::GET, "/").header("accept-encoding", coding);
        let answer = client.send(request.body(OutBody::Empty).unwrap());
        let mut server = origin.accept().await;
        server.read_head().await;
        server
            .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        let answer = answer.await.unwrap();
        assert_eq!(answer.headers()["content-encoding"], coding);
        let mut body = answer.into_body();
        let (mut coded, mut sent) = (Vec::new(), Vec::new());
        for event in 0..20 {
            let event = format!("data: token {event}\n\n");
            server.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
            sent.extend_from_slice(event.as_bytes());
            while partly(coding, &coded) != sent {
                let frame = underpass_tests::within(
                    underpass_tests::clock::BOUND,
                    "a flushed chunk",
                    http_body_util::BodyExt::frame(&mut body),
                );
                coded.extend_from_slice(&frame.await.unwrap().unwrap().into_data().unwrap());
            }
        }
        server.send("0\r\n\r\n").await;
        coded.extend(collect(body).await.unwrap().0);
        assert_eq!(decoded(coding, &coded), sent);
    }
}

/// What a decoder that has come so far shows.
fn partly(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let _ = match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain),
        _ => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut plain),
    };
    plain
}

/// An event stream is left alone unless that is asked for.
#[tokio::test]
async fn event_streams_stay_plain_by_default() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                 9\r\ndata: a\n\n\r\n0\r\n\r\n";
    let served = Served::always(reply).await;
    let proxy = with(&served, &[("m", "compression = {}")]).start();
    let request = "GET / HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\n\r\n";
    let answer = proxy.open(request).await.read_response().await;
    assert_eq!(
        (answer.head.get("content-encoding"), answer.text().as_str()),
        (None, "data: a\n\n")
    );
}

/// A body that breaks off has no end in its coding, and the framing tells it, too.
#[tokio::test]
async fn a_body_that_breaks_off_is_not_whole() {
    let content = text(1000);
    let reply = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{content}",
        content.len() + 1
    );
    let served = Served::always(Reply::from(reply).then_close()).await;
    let proxy = with(&served, &[("m", "compression = {}")]).start();
    for version in [Version::H1, Version::H2] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        let request = client.request(Method::GET, "/").header("accept-encoding", "gzip");
        let answer = client.send(request.body(OutBody::Empty).unwrap()).await.unwrap();
        collect(answer.into_body()).await.expect_err("a body that is not whole");
    }
    proxy.log_line(&["end=error", "error=response_body_broken"]).await;
}

/// HTTP/1.0 has no chunks: the end of the connection is the end of the body.
#[tokio::test]
async fn clients_without_chunks_get_the_end_of_the_connection() {
    let content = text(500);
    let served = Served::always(json(&content, "")).await;
    let proxy = with(&served, &[("m", "compression = {}")]).start();
    let request =
        "GET / HTTP/1.0\r\nHost: t\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n";
    let mut client = proxy.open(request).await;
    let answer = client.read_response().await;
    assert!(!answer.head.has("transfer-encoding") && !answer.head.has("content-length"));
    assert_eq!(decoded("gzip", &answer.body), content.as_bytes());
}

/// Trailers come behind the end of the coding.
#[tokio::test]
async fn trailers_pass() {
    let content = text(500);
    let reply = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\
         Trailer: x-sum\r\n\r\n{:x}\r\n{content}\r\n0\r\nX-Sum: 7\r\n\r\n",
        content.len()
    );
    let served = Served::always(reply).await;
    let proxy = with(&served, &[("m", "compression = {}")]).start();
    for version in [Version::H1, Version::H2] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        let request = client.request(Method::GET, "/").header("accept-encoding", "gzip");
        let request = request.header("te", "trailers");
        let answer = client.send(request.body(OutBody::Empty).unwrap()).await.unwrap();
        let (body, trailers) = collect(answer.into_body()).await.unwrap();
        assert_eq!(decoded("gzip", &body), content.as_bytes(), "{version:?}");
        let sum = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))]);
        assert_eq!(trailers, Some(sum), "{version:?}");
    }
}

/// The memory of a large answer is that of its coding, whatever its size.
#[tokio::test]
async fn memory_is_bounded() {
    let content = text(300_000);
    let served = Served::always(json(&content, "")).await;
    let proxy = with(&served, &[("m", "compression = {}")]).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H1).await;
    let before = proxy.resident_bytes();
    for coding in ["gzip", "zstd", "br"] {
        let request = client.request(Method::GET, "/").header("accept-encoding", coding);
        let answer = client.send(request.body(OutBody::Empty).unwrap()).await.unwrap();
        let (body, _) = collect(answer.into_body()).await.unwrap();
        assert_eq!(decoded(coding, &body).len(), content.len());
    }
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(content.len() > 10 << 20 && grown < 8 << 20, "{grown} bytes more");
}
