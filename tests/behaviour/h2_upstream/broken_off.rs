//! Parts of a stream that come to no end: nothing that is missing passes for whole, and nothing
//! that nobody wants stays.

use bytes::Bytes;
use h2::Reason;
use http::{Method, Response};
use mantra_macros::req_test;
use underpass_tests::{
    OutBody, Version, Wire, bytes_from,
    client::collect,
    h2_frames::{self, Frames},
    h2_origin::H2Origin,
    over_versions,
};

use super::{client, proxy};

const NO_ERROR: u32 = 0;

over_versions!(an_answer_that_is_reset_without_an_error_is_not_whole);

/// The server has answered and takes nothing of the request any more. (Of a client that speaks
/// HTTP/1 nobody hears as long as its upload is held back.)
#[req_test("REQ-EDGE-005", "REQ-CORE-001.F-003")]
#[tokio::test]
async fn an_upload_that_nobody_reads_is_reset_with_its_client() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "max_connections = 1");
    let mut leaves = client(&proxy, Version::H2).await;
    let (sender, body) = OutBody::pieces();
    let answer = leaves.send(leaves.request(Method::POST, "/leaves").body(body).unwrap());
    let (answer, (mut peer, stream, mut to_client)) = tokio::join!(answer, async {
        let mut peer = origin.accept().await;
        let mut stream = peer.next().await;
        let mut body = stream.begin(Response::new(()));
        body.send_data(Bytes::from_static(b"some"), false).unwrap();
        (peer, stream, body)
    });
    let mut content = answer.unwrap().into_body();
    bytes_from(&mut content, "some").await;
    // More than the server's window: the last of it waits in the proxy.
    sender.send_until_stalled(0, 4 << 20).await;
    drop(content);
    leaves.abort();
    assert_eq!(underpass_tests::h2_origin::is_reset(&mut to_client).await, Reason::CANCEL);
    drop((stream.request, sender));
    // And its place is free.
    let mut other = client(&proxy, Version::H1).await;
    let (answer, ()) = tokio::join!(other.get("/"), async { peer.next().await.ok("ok") });
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
}

/// RST_STREAM with NO_ERROR has a meaning behind a whole answer only (RFC 9113 section 8.1).
#[req_test("REQ-EDGE-005", "REQ-CORE-001.F-003")]
async fn an_answer_that_is_reset_without_an_error_is_not_whole(version: Version) {
    for whole in [false, true] {
        let origin = H2Origin::bind().await;
        let proxy = proxy(origin.addr(), "");
        let mut client = client(&proxy, version).await;
        let (_sender, body) = OutBody::pieces();
        // The one whose request has yet to end may have a whole answer.
        let (method, body) =
            if whole { (Method::POST, body) } else { (Method::GET, OutBody::Empty) };
        let answer = client.send(client.request(method, "/").body(body).unwrap());
        let scripted = async {
            let mut frames = Frames::serve(origin.accept_raw().await).await;
            let stream = frames.until(h2_frames::HEADERS).await;
            frames.begin(stream).await;
            frames.data(stream, b"some", whole).await;
            frames.reset_with(stream, NO_ERROR).await;
            frames
        };
        let (answer, _frames) = tokio::join!(answer, scripted);
        // What breaks off at once may not even have a head.
        let content = match answer {
            Ok(answer) => collect(answer.into_body()).await.map(|(content, _)| content),
            Err(error) => Err(error),
        };
        match whole {
            true => assert_eq!(content.unwrap(), b"some"),
            false => assert!(content.is_err(), "{content:?}"),
        }
    }
}

/// Fields that HTTP/2 has not are no reason for a request without an end.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn trailers_about_the_connection_stay_here() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut client = Wire::open(
        proxy.listener("web"),
        "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nsome\r\n0\r\nKeep-Alive: x\r\nProxy-Connection: y\r\nX-Sum: 1\r\n\r\n",
    )
    .await;
    let mut peer = origin.accept().await;
    let mut stream = peer.next().await;
    let (content, trailers) = stream.body().await.unwrap();
    assert_eq!(content, b"some");
    let trailers = trailers.expect("trailers");
    assert_eq!(trailers.len(), 1, "{trailers:?}");
    assert_eq!(trailers["x-sum"], "1");
    stream.ok("ok");
    client.expect_status(200).await;
}

#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_host_that_http2_has_no_form_for_is_refused() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let request = "GET / HTTP/1.1\r\nHost: a%41.example\r\n\r\n";
    let mut client = Wire::open(proxy.listener("web"), request).await;
    client.expect_status(400).await;
}
