//! Windows: a client that does not read stops its own stream, holds a bounded amount of memory,
//! and keeps nobody else from going on; nor does a server that does not read.

use bytes::Bytes;
use http::{Method, Response};
use mantra_macros::req_test;
use underpass_tests::{
    OutBody, Version, Wire,
    client::collect,
    h2_origin::{H2Origin, send_all},
    process::Growth,
};

use super::{client, proxy};

const MIB: usize = 1 << 20;

/// As many as the connection carries, less one, take nothing of their answers; the last one gets
/// all of its own, over the same connection.
#[req_test("REQ-EDGE-005")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_starve_nobody() {
    const STALLED: usize = 99;
    let content = Bytes::from(vec![b'x'; 32 * MIB]);
    let served = H2Origin::bind().await.serve(Default::default(), move |mut stream| {
        let content = content.clone();
        async move {
            let mut body = stream.begin(Response::new(()));
            send_all(&mut body, content, true).await;
        }
    });
    let proxy = proxy(served.addr(), "");
    let mut growth = Growth::of(proxy.pid());
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut wire = Wire::connect_narrow(proxy.listener("web")).await;
        wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        stalled.push(wire);
    }
    for wire in &mut stalled {
        wire.read_until("\r\n\r\n").await;
    }
    let reads = async {
        let mut client = client(&proxy, Version::H2).await;
        for _ in 0..2 {
            let (content, _) = collect(client.get("/").await.into_body()).await.unwrap();
            assert_eq!(content.len(), 32 * MIB);
        }
    };
    growth.during(reads).await;
    assert_eq!(served.connections(), 1);
    // Per stalled stream: its window of 128 KiB, and what hyper holds for its client.
    growth.assert_below(STALLED as u64 * 512 * 1024 + 32 * MIB as u64);
}

/// Uploads that a server does not take.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_server_that_does_not_read_stops_only_those_who_send_to_it() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut growth = Growth::of(proxy.pid());
    let mut uploads = client(&proxy, Version::H1).await;
    let (sender, body) = OutBody::pieces();
    let _answer = uploads.send(uploads.request(Method::POST, "/upload").body(body).unwrap());
    let mut peer = origin.accept().await;
    let upload = peer.next().await;
    let sent = growth.during(sender.send_until_stalled(0, 64 * MIB as u64)).await;
    assert!(sent < 16 * MIB as u64, "{sent} bytes were taken");
    let mut other = client(&proxy, Version::H1).await;
    let (answer, ()) = tokio::join!(other.get("/"), async {
        peer.next().await.ok("ok");
    });
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
    growth.assert_below(16 * MIB as u64);
    drop(upload);
}
