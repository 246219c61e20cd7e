//! The origin over a real socket, read as it comes.

use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use super::*;

async fn connect() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(origin(listener));
    TcpStream::connect(address).await.unwrap()
}

async fn send(stream: &mut TcpStream, request: &str) {
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// All that comes until the origin closes.
async fn exchange(request: &str) -> String {
    let mut stream = connect().await;
    send(&mut stream, request).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(target: &str, more: &str) -> String {
    exchange(&format!("GET {target} HTTP/1.1\r\nHost: demo:80\r\nConnection: close\r\n{more}\r\n"))
        .await
}

async fn post(target: &str, body: &str) -> String {
    exchange(&format!(
        "POST {target} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
    .await
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

/// Reads until `end`, and says how often the socket had something new.
async fn reads_until(stream: &mut TcpStream, end: &str) -> (String, usize) {
    let (mut all, mut reads, mut buffer) = (String::new(), 0, [0; 65536]);
    while !all.contains(end) {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "ended early: {all}");
        all.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        reads += 1;
    }
    (all, reads)
}

#[tokio::test]
async fn the_page_lists_commands_for_the_host_that_was_asked() {
    let plain = get("/", "").await;
    assert!(plain.contains("content-type: text/plain"), "{plain}");
    assert!(plain.contains("curl -N http://demo:80/sse\n"), "{plain}");
    let html = get("/", "Accept: text/html,*/*\r\n").await;
    assert!(html.contains("content-type: text/html"), "{html}");
    assert!(html.contains("{&quot;stream&quot;:true}"), "{html}");
}

#[tokio::test]
async fn plain_answers() {
    assert_eq!(body(&get("/hello", "").await), "Hello from the far side of the underpass.\n");
    assert!(get("/nothing", "").await.starts_with("HTTP/1.1 404 "));
    let refused = post("/hello", "").await;
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET, HEAD\r\n"));
    let refused = get("/v1/messages", "").await;
    assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: POST\r\n"));
}

#[tokio::test]
async fn headers_are_shown_as_received() {
    let answer = get("/headers?x=1", "X-Thing: one\r\nX-Thing: two\r\n").await;
    let seen: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(seen["method"], "GET");
    assert_eq!(seen["target"], "/headers?x=1");
    let headers = seen["headers"].as_array().unwrap();
    assert!(headers.contains(&serde_json::json!(["x-thing", "one"])));
    assert!(headers.contains(&serde_json::json!(["x-thing", "two"])));
}

#[tokio::test]
async fn echo_streams_the_body_back_while_it_comes() {
    let mut stream = connect().await;
    send(&mut stream, "POST /echo HTTP/1.1\r\nHost: demo\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for word in ["first", "other"] {
        send(&mut stream, &format!("5\r\n{word}\r\n")).await;
        // The request has not ended, and yet its first part is back.
        reads_until(&mut stream, word).await;
    }
    send(&mut stream, "0\r\n\r\n").await;
    reads_until(&mut stream, "0\r\n\r\n").await;
    assert_eq!(body(&post("/echo", "whole").await), "whole");
}

#[tokio::test]
async fn download_has_its_length_and_its_pattern() {
    let length = 200_001;
    let answer = get(&format!("/download?bytes={length}"), "").await;
    assert!(answer.contains(&format!("content-length: {length}\r\n")));
    let body = body(&answer).as_bytes();
    assert_eq!(body.len(), length);
    assert!(body.iter().enumerate().all(|(i, byte)| *byte == download_byte(i as u64)));
    for bad in ["10000000001", "-1", "x", ""] {
        let answer = get(&format!("/download?bytes={bad}"), "").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad}: {answer}");
    }
    let head = exchange("HEAD /download HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").await;
    assert!(head.contains("content-length: 100000000\r\n"), "{head}");
    assert_eq!(self::body(&head), "");
}

#[tokio::test]
async fn slow_comes_in_chunks_and_ends_with_the_announced_trailers() {
    let more = "TE: trailers\r\n";
    let answer = get("/slow?chunks=3&interval_ms=1", more).await;
    assert!(answer.contains("transfer-encoding: chunked\r\n"), "{answer}");
    assert!(answer.contains("trailer: x-chunks-sent, x-bytes-sent\r\n"), "{answer}");
    assert!(answer.contains("\r\nchunk 0003 of 0003\n\r\n"), "{answer}");
    let trailers = answer.split_once("\r\n0\r\n").unwrap().1;
    assert!(trailers.contains("x-chunks-sent: 3\r\n"), "{trailers}");
    assert!(trailers.contains("x-bytes-sent: 57\r\n"), "{trailers}");
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let mut stream = connect().await;
    send(&mut stream, "GET /sse?tokens=5&interval_ms=30 HTTP/1.1\r\nHost: demo\r\n\r\n").await;
    let begun = Instant::now();
    let (all, reads) = reads_until(&mut stream, "event: done").await;
    assert!(begun.elapsed() >= Duration::from_millis(4 * 30 - 10), "{:?}", begun.elapsed());
    assert!(reads >= 5, "{reads} reads");
    assert!(all.contains("content-type: text/event-stream"), "{all}");
    assert_eq!(all.matches("\nevent: token\n").count(), 5, "{all}");
    assert!(all.contains("id: 4\n"), "{all}");
}

#[tokio::test]
async fn a_model_streams_typed_events() {
    let answer = post("/v1/messages?tokens=2&interval_ms=1", r#"{"stream":true}"#).await;
    let events: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(
        events,
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    for data in answer.lines().filter_map(|line| line.strip_prefix("data: ")) {
        serde_json::from_str::<serde_json::Value>(data).unwrap();
    }
    assert!(answer.contains(r#""text":"What ""#), "{answer}");
}

#[tokio::test]
async fn a_model_streams_chunks_of_a_choice() {
    let answer = post("/v1/chat/completions?tokens=2&interval_ms=1", "").await;
    let data: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.len(), 5);
    assert_eq!(data[4], "[DONE]");
    let last: serde_json::Value = serde_json::from_str(data[3]).unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_model_that_is_not_to_stream_answers_whole() {
    for (path, pointer) in [
        ("/v1/messages?tokens=3", "/content/0/text"),
        ("/v1/chat/completions?tokens=3", "/choices/0/message/content"),
    ] {
        let answer = post(path, r#"{"stream":false}"#).await;
        let whole: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
        assert_eq!(whole.pointer(pointer).unwrap(), "What needs no ");
    }
}

#[tokio::test]
async fn statuses_as_asked() {
    assert!(get("/status/503", "").await.starts_with("HTTP/1.1 503 "));
    assert!(get("/status/302", "").await.contains("location: /hello\r\n"));
    assert_eq!(body(&get("/status/204", "").await), "");
    for bad in ["100", "101", "600", "x", ""] {
        assert!(get(&format!("/status/{bad}"), "").await.starts_with("HTTP/1.1 400 "), "{bad}");
    }
}

#[tokio::test]
async fn websocket_echoes_text_binary_and_close() {
    let (mut socket, answer) = client_async("ws://demo/ws", connect().await).await.unwrap();
    assert_eq!(answer.status(), 101);
    for message in [Message::text("hello"), Message::binary(vec![7; 100_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_close());
    assert!(socket.next().await.is_none());
}

#[tokio::test]
async fn a_plain_request_to_the_websocket_is_told_what_to_send() {
    let answer = get("/ws", "").await;
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    assert!(answer.contains("upgrade: websocket\r\n"), "{answer}");
}

#[tokio::test]
async fn a_stream_stops_when_its_client_goes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let served = tokio::spawn(connection(server));
    // Left alone, this would take an hour and a half.
    send(&mut client, "GET /sse?tokens=100000&interval_ms=60 HTTP/1.1\r\nHost: demo\r\n\r\n").await;
    reads_until(&mut client, "event: token").await;
    drop(client);
    timeout(Duration::from_secs(5), served).await.unwrap().unwrap();
}

#[tokio::test]
async fn it_starts_from_inside_a_runtime_and_needs_nothing_of_it() {
    use std::io::{Read, Write};
    // Blocking calls: this runtime does nothing meanwhile.
    let mut stream = std::net::TcpStream::connect(start().unwrap()).unwrap();
    stream.write_all(b"GET /hello HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("Hello"), "{answer}");
}
