//! Connections that do not begin as they have to are closed, and nobody else hears of them.

use futures_util::FutureExt;
use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, Served, eventually};

use super::{CLIENT, FRONT, LINE, SIGNATURE, TRUSTING, binary, config, tlv};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

async fn counted(proxy: &Proxy, kind: &str, count: usize) {
    eventually("the errors to be counted", async || {
        let metrics = proxy.metrics().await;
        metrics.sum("underpass_errors_total", &[("kind", kind)]) == count as f64
    })
    .await;
}

#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn what_does_not_begin_with_a_header_is_closed() {
    let origin = Origin::bind().await;
    let cut = [SIGNATURE, &[0x21, 0x11, 0, 12], &[0; 11]].concat();
    let wrong = [
        GET.as_bytes().to_vec(),
        format!("PROXY TCP4 203.0.113.7 198.51.100.1 52077 443\n{GET}").into_bytes(),
        format!("PROXY TCP4 203.0.113.7 198.51.100.1 52077 99999\r\n{GET}").into_bytes(),
        format!("PROXY {}\r\n{GET}", "x".repeat(200)).into_bytes(),
        [&binary(CLIENT, FRONT, &[9, 0, 7])[..], GET.as_bytes()].concat(),
        [&binary(CLIENT, FRONT, &tlv(3, &[1, 2, 3, 4]))[..], GET.as_bytes()].concat(),
        [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(),
        b"\x16\x03\x01\x00\x05hello, hello".to_vec(),
    ];
    for protocol in ["http", "tcp"] {
        let proxy = Proxy::config(config(protocol, TRUSTING, "", origin.addr())).start();
        for bytes in &wrong {
            let mut client = proxy.open(bytes).await;
            let (told, _) = client.read_to_end().await;
            assert_eq!(told, b"", "{}", String::from_utf8_lossy(bytes));
        }
        counted(&proxy, "bad_proxy_header", wrong.len()).await;
        // A header that ends too early is a client that is gone.
        let mut client = proxy.open(&cut).await;
        client.finish().await;
        client.expect_end().await;
        counted(&proxy, "client_gone", 1).await;
        eventually("all of them to be over", async || {
            proxy.metrics().await.sum("underpass_connections_open", &[]) == 0.0
        })
        .await;
    }
    assert!(origin.accept().now_or_never().is_none());
}

#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn a_header_has_the_time_of_a_head() {
    let origin = Origin::bind().await;
    let listener = format!("limits = {{ head_timeout = \"300ms\" }}\n{TRUSTING}");
    for protocol in ["http", "tcp"] {
        let proxy = Proxy::config(config(protocol, &listener, "", origin.addr())).start();
        for (count, begin) in ["", "PROXY TCP4 203.0.113.7 "].into_iter().enumerate() {
            let mut client = proxy.open(begin).await;
            client.expect_end().await;
            counted(&proxy, "head_timeout", count + 1).await;
        }
    }
    assert!(origin.accept().now_or_never().is_none());
}

/// Whoever is not trusted is not believed; served, if that is wished for, as who it is.
#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn only_trusted_peers_are_believed() {
    let origin = Served::ok().await;
    let listener = "proxy_protocol = { trusted = [\"192.0.2.0/24\", \"::1/128\"] }";
    let proxy = Proxy::config(config("http", listener, "", origin.addr())).start();
    for (count, begin) in ["", LINE, GET].into_iter().enumerate() {
        let mut client = proxy.open(begin).await;
        assert_eq!(client.read_to_end().await.0, b"");
        counted(&proxy, "bad_proxy_header", count + 1).await;
    }
    let listener = "proxy_protocol = { trusted = [\"192.0.2.0/24\"], others = \"serve\" }";
    let proxy = Proxy::config(config("http", listener, "", origin.addr())).start();
    proxy.open(GET).await.expect_status(200).await;
    proxy.open([LINE, GET].concat()).await.expect_status(400).await;
    assert_eq!(origin.only().head.get("x-forwarded-for"), Some("127.0.0.1"));
}

/// One that is waited for does not hold up a drain.
#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn a_drain_does_not_wait_for_a_header() {
    let origin = Served::ok().await;
    let mut proxy = Proxy::config(config("http", TRUSTING, "", origin.addr())).start();
    let mut silent = proxy.open("PROXY").await;
    eventually("the connection to be accepted", async || {
        proxy.metrics().await.sum("underpass_connections_open", &[]) == 1.0
    })
    .await;
    proxy.term();
    silent.expect_end().await;
    assert!(proxy.exited().await.success());
}
