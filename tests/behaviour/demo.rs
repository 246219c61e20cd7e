//! `underpass demo`: everything it offers answers to curl and to a WebSocket client.

use underpass_tests::{
    Proxy,
    curl::{self, curl, peer},
    websocket,
};

fn start() -> Proxy {
    let args = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"];
    Proxy::command(&args, 2).start()
}

#[tokio::test]
async fn plain_pages_answer() {
    if !peer("curl") {
        return;
    }
    let demo = start();
    let base = format!("http://{}", demo.addr());
    for path in ["/", "/hello", "/headers", "/status/204", "/status/503"] {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let url = format!("{base}{path}");
            let got = curl(&[version, "-o", "/dev/null", "-w", "%{http_code}", &url]).await.text();
            let status = path.strip_prefix("/status/").unwrap_or("200");
            assert_eq!(got, status, "{version} {path}");
        }
    }
    let echoed = curl(&["-d", "said", &format!("{base}/echo")]).await.text();
    assert!(echoed.contains("said"), "{echoed}");
    let headers = curl(&[&format!("{base}/headers")]).await.text().to_ascii_lowercase();
    assert!(headers.contains("x-forwarded-for"), "{headers}");
}

#[tokio::test]
async fn downloads_have_the_size_that_was_asked_for() {
    if !peer("curl") {
        return;
    }
    let demo = start();
    let url = format!("http://{}/download?bytes=20000000", demo.addr());
    let got = curl(&["-o", "/dev/null", "-w", "%{size_download}", &url]).await.text();
    assert_eq!(got, "20000000");
}

#[tokio::test]
async fn events_stream_with_curl() {
    if !peer("curl") {
        return;
    }
    let demo = start();
    let mut events = curl::start(&["-N", &format!("http://{}/sse?tokens=5", demo.addr())]);
    let mut seen = 0;
    while let Some(line) = events.line().await {
        seen += usize::from(line.starts_with("data:"));
    }
    assert!(seen >= 5, "{seen} events");
    assert_eq!(events.code().await, 0);

    let slow = curl(&["-i", &format!("http://{}/slow?chunks=3", demo.addr())]).await;
    assert_eq!(slow.code, 0, "{}", slow.stderr);
}

#[tokio::test]
async fn the_model_streams_like_an_api() {
    if !peer("curl") {
        return;
    }
    let demo = start();
    let url = format!("http://{}/v1/chat/completions", demo.addr());
    let body = r#"{"model":"demo","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let args = ["-N", "-H", "Content-Type: application/json", "-d", body, &url];
    let got = curl(&args).await.text();
    assert!(got.contains("data:"), "{got}");
}

#[tokio::test]
async fn websocket_echoes_through_the_demo() {
    let demo = start();
    let stream = tokio::net::TcpStream::connect(demo.addr()).await.unwrap();
    let mut socket = websocket::at(stream, &demo.addr().to_string(), "/ws").await;
    websocket::round_trip(&mut socket, "hello").await;
    assert_eq!(demo.tunnels().await.len(), 1);
    websocket::close(socket).await;
}

#[tokio::test]
async fn the_demo_ends_cleanly() {
    let mut demo = start();
    demo.term();
    assert_eq!(demo.exited().await.code(), Some(0));
}
