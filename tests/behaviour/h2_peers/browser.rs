//! A browser: a WebSocket on the connection that its page came by, and a stream that it reads.

use http::{Method, Response};
use mantra_macros::req_test;
use tokio::sync::mpsc;
use underpass_tests::{
    chromium,
    clock::BOUND,
    h2_origin::{H2Origin, H2Stream},
    h2_tunnel::{extended, grant_stream},
    proxy::scratch,
    skip, within,
};

use super::Site;

/// Asks for a place that has what came in it, and the test reads that.
const PAGE: &str = r#"<!doctype html><body>waiting<script>
(async () => {
  const answer = await fetch("/stream");
  const reader = answer.body.getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += new TextDecoder().decode(value);
  }
  const socket = new WebSocket("wss://" + location.host + "/socket");
  const said = await new Promise((resolve) => {
    socket.onopen = () => socket.send("hello");
    socket.onmessage = (event) => resolve(event.data);
    socket.onclose = (event) => resolve("closed " + event.code);
    socket.onerror = () => resolve("failed");
  });
  const how = performance.getEntriesByType("navigation")[0].nextHopProtocol;
  await fetch("/result?" + encodeURIComponent("over " + how + ": " + text + "; " + said));
})();
</script>"#;

/// A frame of a server with this text (RFC 6455 section 5.2).
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, text.len() as u8];
    frame.extend(text.as_bytes());
    frame
}

async fn answer(mut stream: H2Stream, results: mpsc::UnboundedSender<String>) {
    if stream.request.method() == Method::CONNECT {
        let (_, tunnel) = grant_stream(stream);
        let mut tunnel = tunnel.into_leg();
        // Two bytes, a mask, and "hello" under it.
        let came = tunnel.read(11).await;
        assert_eq!(came[..2], [0x81, 0x85], "{came:?}");
        let text: Vec<u8> = (0..5).map(|at| came[6 + at] ^ came[2 + at % 4]).collect();
        assert_eq!(text, b"hello");
        tunnel.send(frame("hello to you")).await;
        return std::future::pending().await;
    }
    let html = Response::builder().header("content-type", "text/html").body(()).unwrap();
    match stream.path() {
        "/" => {
            let mut body = stream.begin(html);
            body.send_data(PAGE.into(), true).unwrap();
        }
        "/stream" => {
            let mut body = stream.begin(Response::new(()));
            for piece in ["one ", "two ", "three"] {
                body.send_data(piece.into(), false).unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            body.send_data(Default::default(), true).unwrap();
        }
        "/result" => {
            let _ = results.send(stream.request.uri().query().unwrap_or_default().to_owned());
            stream.ok("");
        }
        _ => stream.end(Response::builder().status(404).body(()).unwrap()),
    }
}

#[req_test("REQ-EDGE-005", "REQ-EDGE-006")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_has_its_websocket_on_the_connection_of_its_page() {
    let (results, mut came) = mpsc::unbounded_channel();
    let origin = H2Origin::bind().await;
    let server = origin.serve(extended(), move |stream| answer(stream, results.clone()));
    let site = Site::new(server.addr(), "http2", "");
    let profile = scratch("profile");
    let Some(visit) = chromium::visit(&site.url("/"), &profile) else {
        return skip::say("a page in a browser: there is none (chromium, google-chrome)");
    };
    let seen = within(4 * BOUND, "the page to be through", came.recv()).await.unwrap();
    assert_eq!(seen.replace("%20", " "), "over h2%3A one two three%3B hello to you");
    drop(visit);
    let _ = std::fs::remove_dir_all(profile);
    // All of it by one connection, the WebSocket included.
    let line = site.proxy.log_line(&["target=/socket"]).await;
    for part in ["version=HTTP/2", "status=200", "tunnel=websocket"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}
