//! Ends: of a stream, by either side, and of a connection; what is sent again and what is not.

use bytes::Bytes;
use h2::Reason;
use http::{Method, Response};
use mantra_macros::req_test;
use underpass_tests::{
    OutBody, Version, bytes_from,
    client::collect,
    eventually,
    h2_frames::{self, Frames},
    h2_origin::{H2Origin, is_reset},
    over_versions,
};

use super::{client, proxy};

over_versions!(a_client_that_leaves_resets_its_stream_and_no_other);
over_versions!(a_refused_request_is_sent_again_with_its_body);

#[req_test("REQ-EDGE-005")]
async fn a_client_that_leaves_resets_its_stream_and_no_other(version: Version) {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut stays = client(&proxy, Version::H1).await;
    let (answer, (mut peer, mut to_stays, _stream)) = tokio::join!(stays.get("/stays"), async {
        let mut peer = origin.accept().await;
        let mut stream = peer.next().await;
        let body = stream.begin(Response::new(()));
        (peer, body, stream)
    });
    let mut stays = answer.into_body();

    // Before the answer.
    let mut leaves = client(&proxy, version).await;
    let request = leaves.request(Method::GET, "/leaves").body(OutBody::Empty).unwrap();
    let answer = leaves.send(request);
    let mut stream = peer.next().await;
    drop(answer);
    leaves.abort();
    assert_eq!(stream.is_reset().await, Reason::CANCEL);

    // In the middle of it.
    let mut leaves = client(&proxy, version).await;
    let (answer, (mut to_client, _stream)) = tokio::join!(leaves.get("/leaves"), async {
        let mut stream = peer.next().await;
        let mut body = stream.begin(Response::new(()));
        body.send_data(Bytes::from_static(b"some"), false).unwrap();
        (body, stream)
    });
    let mut body = answer.into_body();
    bytes_from(&mut body, "some").await;
    drop(body);
    leaves.abort();
    assert_eq!(is_reset(&mut to_client).await, Reason::CANCEL);

    // In the middle of both bodies.
    let mut leaves = client(&proxy, version).await;
    let (sender, body) = OutBody::pieces();
    let answer = leaves.send(leaves.request(Method::POST, "/leaves").body(body).unwrap());
    let scripted = async {
        let mut stream = peer.next().await;
        let body = stream.begin(Response::new(()));
        (stream, body)
    };
    let (answer, (mut stream, mut to_client)) = tokio::join!(answer, scripted);
    sender.send("more").await;
    assert_eq!(stream.request.body_mut().data().await.unwrap().unwrap(), "more");
    drop(answer);
    leaves.abort();
    assert_eq!(is_reset(&mut to_client).await, Reason::CANCEL);

    to_stays.send_data(Bytes::from_static(b"still here"), true).unwrap();
    bytes_from(&mut stays, "still here").await;
}

/// REFUSED_STREAM: not looked at (RFC 9113 section 8.7), so even a POST goes again, whole.
#[req_test("REQ-EDGE-005")]
async fn a_refused_request_is_sent_again_with_its_body(version: Version) {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut client = client(&proxy, version).await;
    let (sender, body) = OutBody::pieces();
    let answer = client.send(client.request(Method::POST, "/").body(body).unwrap());
    let scripted = async {
        let mut peer = origin.accept().await;
        let mut refused = peer.next().await;
        sender.send("the first ").await;
        assert_eq!(refused.request.body_mut().data().await.unwrap().unwrap(), "the first ");
        refused.reset(Reason::REFUSED_STREAM);
        let mut again = peer.next().await;
        sender.send("and the rest").await;
        drop(sender);
        assert_eq!(again.body().await.unwrap().0, b"the first and the rest");
        again.ok("done");
    };
    let (answer, ()) = tokio::join!(answer, scripted);
    assert_eq!(collect(answer.unwrap().into_body()).await.unwrap().0, b"done");
}

/// A server that refuses everything is given up after a few.
#[tokio::test]
async fn refusals_without_an_end_are_a_bad_gateway() {
    let served = H2Origin::bind().await.serve(Default::default(), |stream| async move {
        stream.reset(Reason::REFUSED_STREAM);
    });
    let proxy = proxy(served.addr(), "");
    let mut client = client(&proxy, Version::H1).await;
    assert_eq!(client.get("/").await.status(), 502);
}

/// Any other reset may come after the request was acted upon: it is told, and others go on.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_reset_stream_is_one_failed_request() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let (mut one, mut other) =
        (client(&proxy, Version::H1).await, client(&proxy, Version::H2).await);
    let asked = |client: &mut underpass_tests::HttpClient, method, path: &str| {
        client.send(client.request(method, path).body(OutBody::Empty).unwrap())
    };
    let first = asked(&mut one, Method::POST, "/1");
    let mut peer = origin.accept().await;
    let lost = peer.next().await;
    let second = asked(&mut other, Method::GET, "/2");
    let mut kept = peer.next().await;
    lost.reset(Reason::INTERNAL_ERROR);
    assert_eq!(first.await.unwrap().status(), 502);
    let mut body = kept.begin(Response::new(()));
    body.send_data(Bytes::from_static(b"fine"), false).unwrap();
    let mut answer = second.await.unwrap().into_body();
    bytes_from(&mut answer, "fine").await;
    // In the middle of a body the client has to see that it is not whole.
    body.send_reset(Reason::INTERNAL_ERROR);
    assert!(collect(answer).await.is_err());
    // The connection is none the worse.
    let third = asked(&mut other, Method::GET, "/3");
    peer.next().await.ok("still here");
    assert_eq!(collect(third.await.unwrap().into_body()).await.unwrap().0, b"still here");
}

/// GOAWAY: what is behind its last stream goes to another connection, whatever its method; what
/// is not goes on.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_server_that_goes_away_loses_no_request() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(client(&proxy, Version::H1).await);
    }
    let [first, second, third] = &mut clients[..] else { unreachable!() };
    let asked = |client: &mut underpass_tests::HttpClient, content: &'static str| {
        let body = OutBody::Full(Bytes::from_static(content.as_bytes()));
        client.send(client.request(Method::POST, "/").body(body).unwrap())
    };
    let first = asked(first, "first");
    let mut server = Frames::serve(origin.accept_raw().await).await;
    let one = server.until(h2_frames::HEADERS).await;
    let second = asked(second, "second");
    let two = server.until(h2_frames::HEADERS).await;
    assert!(two > one);
    server.until(h2_frames::DATA).await;
    server.go_away(one, 0).await;
    let again = async {
        let mut peer = origin.accept().await;
        let mut stream = peer.next().await;
        assert_eq!(stream.body().await.unwrap().0, b"second");
        stream.ok("on the next");
        peer
    };
    let (second, mut peer) = tokio::join!(second, again);
    assert_eq!(collect(second.unwrap().into_body()).await.unwrap().0, b"on the next");
    // New ones do not go to the first connection.
    let third = asked(third, "third");
    let mut stream = peer.next().await;
    stream.ok("there as well");
    assert_eq!(collect(third.await.unwrap().into_body()).await.unwrap().0, b"there as well");
    server.answer(one, "on the first").await;
    assert_eq!(collect(first.await.unwrap().into_body()).await.unwrap().0, b"on the first");
    // Nothing holds it any more.
    server.expect_end().await;
}

/// A kept connection that is closed is no failure of the next request.
#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut client = client(&proxy, Version::H1).await;
    for n in 0..3 {
        let (answer, ()) = tokio::join!(client.get("/"), async {
            let mut peer = origin.accept().await;
            peer.next().await.ok("ok");
            // The answer is on its way, or is not.
            if n < 2 {
                peer.go_away();
                peer.closed().await;
            }
        });
        assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
    }
}

/// All that was under way on it fails, each for itself, and nothing more.
#[tokio::test]
async fn a_connection_that_breaks_fails_what_was_on_it() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut client = client(&proxy, Version::H2).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        let request = client.request(Method::POST, "/").body(OutBody::Empty).unwrap();
        answers.push(client.send(request));
    }
    let mut peer = origin.accept().await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(peer.next().await);
    }
    peer.cut();
    for answer in answers {
        assert_eq!(answer.await.unwrap().status(), 502);
    }
    let (answer, _peer) = tokio::join!(client.get("/"), async {
        let mut peer = origin.accept().await;
        peer.next().await.ok("ok");
        peer
    });
    assert_eq!(answer.status(), 200);
}

/// Asked whether it is there, it says nothing: the connection is given up.
#[tokio::test]
async fn a_server_that_answers_no_ping_is_gone() {
    let origin = H2Origin::bind().await;
    let lines = "[upstream.http2]\nkeepalive_interval = \"200ms\"\nkeepalive_timeout = \"200ms\"\n";
    let proxy = proxy(origin.addr(), lines);
    let mut client = client(&proxy, Version::H1).await;
    let request = client.request(Method::POST, "/").body(OutBody::Empty).unwrap();
    let answer = client.send(request);
    let mut server = Frames::serve(origin.accept_raw().await).await;
    server.until(h2_frames::PING).await;
    assert_eq!(answer.await.unwrap().status(), 502);
    server.expect_end().await;
}

/// With the last client everything ends, at the server as well.
#[tokio::test]
async fn a_drain_waits_for_streams_and_leaves_no_connection() {
    let origin = H2Origin::bind().await;
    let mut proxy = proxy(origin.addr(), "");
    let mut client = client(&proxy, Version::H1).await;
    let request = client.request(Method::GET, "/").body(OutBody::Empty).unwrap();
    let answer = client.send(request);
    let mut peer = origin.accept().await;
    let mut stream = peer.next().await;
    proxy.term();
    eventually("the listener to be closed", async || {
        tokio::net::TcpStream::connect(proxy.listener("web")).await.is_err()
    })
    .await;
    stream.ok("last");
    assert_eq!(collect(answer.await.unwrap().into_body()).await.unwrap().0, b"last");
    assert!(proxy.exited().await.success());
    peer.closed().await;
}
