//! A reader that does not read is felt by its sender, and by nobody else.

use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, Version, Wire, collect,
    h2_frames::{Fate, Frames, SETTINGS},
    h2_tunnel::{H2Caller, granting},
    pattern,
};

use super::{Opened, Path, proxy};

/// What may be under way in one direction: windows of HTTP/2 on both sides, buffers of sockets.
const MOST: u64 = 16 << 20;

#[req_test("REQ-TUN-001", "REQ-EDGE-005")]
#[tokio::test]
async fn a_reader_that_stalls_stops_the_writer() {
    for path in Path::ALL {
        for up in [true, false] {
            let Opened { mut client, mut server, proxy, _kept } = path.open("").await;
            let before = proxy.resident_bytes();
            let (writer, reader) =
                if up { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let sent = writer.send_until_stalled(2 * MOST).await;
            assert!(sent < MOST, "{path:?}: {sent} bytes were taken");
            let grown = proxy.resident_bytes().saturating_sub(before);
            assert!(grown < 8 << 20, "{path:?}: {grown} bytes of memory");
            // The other direction goes on, and all of this one comes.
            reader.send("meanwhile").await;
            writer.expect("meanwhile").await;
            reader.expect(pattern::bytes(sent as usize)).await;
        }
    }
}

/// A client of HTTP/2 may have a stalled WebSocket and ask for other things on its connection.
#[req_test("REQ-TUN-001", "REQ-EDGE-005")]
#[tokio::test]
async fn a_stalled_one_holds_up_no_other_stream() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), false, "").start();
    let mut caller = H2Caller::connect(proxy.listener("web")).await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let called = caller.websocket("/chat").await;
        let mut server = origin.accept().await;
        let head = server.read_head().await;
        server.send(granting(&head, "")).await;
        let mut client = called.opened().await.1.into_leg();
        client.send_until_stalled(MOST).await;
        stalled.push((client, server));
    }
    let called = caller.websocket("/chat").await;
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    server.send(granting(&head, "")).await;
    let mut client = called.opened().await.1.into_leg();
    let all = pattern::bytes(1 << 20);
    tokio::join!(client.send(&all), server.expect(&all));
    let mut other = HttpClient::connect(proxy.listener("web"), Version::H2).await;
    let (answer, ()) = tokio::join!(other.get("/"), async {
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    });
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
}

/// Windows of 2 GiB let nobody have the proxy hold so much: the socket decides.
#[req_test("REQ-TUN-001", "REQ-EDGE-005")]
#[tokio::test]
async fn huge_windows_of_a_client_that_does_not_read_hold_nothing() {
    const WINDOW: u32 = 0x7fff_ffff;
    const WINDOW_UPDATE: u8 = 8;
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), false, "").start();
    let before = proxy.resident_bytes();
    let mut frames = Frames::open(Wire::connect_narrow(proxy.listener("web")).await).await;
    // SETTINGS_INITIAL_WINDOW_SIZE
    frames.raw(SETTINGS, 0, 0, &[&[0, 4], &WINDOW.to_be_bytes()[..]].concat()).await;
    frames.raw(WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes()).await;
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"http"),
        (b":authority", b"a.test"),
        (b":path", b"/chat"),
    ];
    let stream = frames.request(&fields, false).await;
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    server.send(granting(&head, "")).await;
    assert_eq!(frames.fate(stream).await, Fate::Answered(Some(200)));
    let sent = server.send_until_stalled(0, 2 * MOST).await;
    assert!(sent < MOST, "{sent} bytes were taken");
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes of memory");
}
