//! `auto` and streams of small messages: redirected between our own sockets for as long as
//! they are that, in either direction, and every byte in its place through each change.

use mantra_macros::req_test;
use underpass_tests::{Bed, Engine, Plan, Proxy, Tunnel, Wire, engine::ready, eventually};

use super::{MEGABYTE, cases};

/// Messages, each read before the next one is sent, that are a stream for certain.
const STREAM: u64 = 64;

const MESSAGE_BYTES: u64 = 100;

/// Messages of one side and nothing of the other; where the next byte is.
async fn stream(from: &mut Wire, to: &mut Wire, mut at: u64) -> u64 {
    for _ in 0..STREAM {
        from.exchange_stretch(at..at + MESSAGE_BYTES, false, 0..0).await;
        to.check_pattern(at, MESSAGE_BYTES).await;
        at += MESSAGE_BYTES;
    }
    at
}

/// Such messages until the kernel moves them; where the next byte is. A turn of the proxy may
/// carry several of them, when each comes while it still looks for more: what is one stream to
/// the ends may be a few turns.
async fn stream_by_kernel(
    proxy: &Proxy,
    direction: &str,
    from: &mut Wire,
    to: &mut Wire,
    mut at: u64,
) -> u64 {
    for _ in 0..50 {
        at = stream(from, to, at).await;
        let row = &proxy.tunnels().await[0]["engine"][direction];
        if row["name"] == "kernel" && row["cause"] == "stream of small messages" {
            return at;
        }
    }
    panic!("a stream is not moved by the kernel: {}", proxy.tunnels().await[0]);
}

async fn becomes(proxy: &Proxy, direction: &str, engine: &str, cause: &str) {
    eventually(&format!("{direction} to be moved by {engine} for {cause}"), async || {
        let row = &proxy.tunnels().await[0]["engine"][direction];
        row["name"] == engine && row["cause"] == cause
    })
    .await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-004")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_by_the_kernel_until_it_is_none() {
    if !ready(Engine::Kernel) {
        return;
    }
    for (bed, way) in cases(&Bed::all()) {
        for direction in ["to_downstream", "to_upstream"] {
            let Tunnel { mut client, mut server, origin: _origin, proxy } =
                Plan::new(bed, way, Engine::Auto).open().await;
            let (from, to) = match direction {
                "to_upstream" => (&mut client, &mut server),
                _ => (&mut server, &mut client),
            };
            let mut at = 0;
            // The second one has to be longer.
            for _ in 0..2 {
                at = stream_by_kernel(&proxy, direction, from, to, at).await;
                let end = at + 16 * MEGABYTE;
                tokio::join!(from.send_rest(at, end), to.check_pattern(at, end - at));
                at = end;
                eventually("the direction to have left the kernel", async || {
                    proxy.tunnels().await[0]["engine"][direction]["name"] != "kernel"
                })
                .await;
            }
            // The other direction was never touched, and both end as they should.
            to.exchange_stretch(0..5000, true, 0..0).await;
            from.check_pattern(0, 5000).await;
            from.expect_fin().await;
            from.finish().await;
            to.expect_fin().await;
            proxy.until_tunnels(0).await;
        }
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-004")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_answered_are_copied() {
    if !ready(Engine::Kernel) {
        return;
    }
    for (bed, way) in cases(&Bed::all()) {
        let Tunnel { mut client, mut server, origin: _origin, proxy } =
            Plan::new(bed, way, Engine::Auto).open().await;
        let begun = stream_by_kernel(&proxy, "to_downstream", &mut server, &mut client, 0).await;
        let (mut up, mut down) = (0, begun);
        for _ in 0..STREAM {
            client.exchange_stretch(up..up + 10, false, 0..0).await;
            server.check_pattern(up, 10).await;
            server.exchange_stretch(down..down + 10, false, 0..0).await;
            client.check_pattern(down, 10).await;
            (up, down) = (up + 10, down + 10);
        }
        becomes(&proxy, "to_downstream", "copy", "messages that are answered").await;
        // Who copies counts what the other end may have read by then.
        eventually("every byte to be counted, and once", async || {
            let bytes = &proxy.tunnels().await[0]["bytes"];
            bytes["to_upstream"] == up && bytes["to_downstream"] == down
        })
        .await;
    }
}

/// A client that does not read what is streamed to it is still heard, and loses nothing.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_reads_holds_up_nobody_else() {
    if !ready(Engine::Kernel) {
        return;
    }
    for (bed, way) in cases(&Bed::all()) {
        let Tunnel { mut client, mut server, origin: _origin, proxy } =
            Plan::new(bed, way, Engine::Auto).narrow_client().open().await;
        let begun = stream_by_kernel(&proxy, "to_downstream", &mut server, &mut client, 0).await;
        let sent = server.send_until_stalled(begun, 64 * MEGABYTE).await;
        assert!(sent < 64 * MEGABYTE, "nothing holds the server back");
        tokio::join!(client.send_rest(0, 4 * MEGABYTE), server.check_pattern(0, 4 * MEGABYTE));
        client.check_pattern(begun, sent).await;
    }
}
