//! Urgent data (TCP's URG): bytes like others by the time they arrive.

use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{Bed, Engine, Plan, Tunnel, Wire, eventually, over_all_engines, pattern};

use super::{MEGABYTE, cases, resets::is_stopped};

over_all_engines!(urgent_bytes_keep_their_place, an_end_behind_urgent_bytes_comes_last);

/// Among messages, and behind bulk, where `auto` is with splice(2), which stops at them.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn urgent_bytes_keep_their_place(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let mut tunnel = Plan::new(bed, way, engine).open_settled().await;
        urgent(&mut tunnel.client, &mut tunnel.server).await;
        urgent(&mut tunnel.server, &mut tunnel.client).await;
    }
}

async fn urgent(from: &mut Wire, to: &mut Wire) {
    // Half bypass is the server's own send: what is urgent stays so.
    to.inline_urgent();
    let mut at = 0;
    for before in [3, 4 * MEGABYTE, 1] {
        tokio::join!(from.send_rest(at, at + before), to.check_pattern(at, before));
        at += before;
        from.send_urgent(pattern::at(at, 1)[0]).await;
        to.check_pattern(at, 1).await;
        at += 1;
    }
    from.send(pattern::at(at, 3000)).await;
    to.check_pattern(at, 3000).await;
}

/// The proxy finds all of it at once: in front of urgent bytes splice(2) would take that for the end.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn an_end_behind_urgent_bytes_comes_last(engine: Engine) {
    const BULK: u64 = 4 * MEGABYTE;
    for (bed, way) in cases(&Bed::all()) {
        let Tunnel { mut client, mut server, origin: _origin, proxy } =
            Plan::new(bed, way, engine).open_settled().await;
        tokio::join!(client.send_rest(0, BULK), server.check_pattern(0, BULK));
        proxy.signal(Signal::STOP);
        eventually("the proxy to stop", async || is_stopped(proxy.pid())).await;
        client.send(pattern::at(BULK, 1000)).await;
        client.send_urgent(pattern::at(BULK + 1000, 1)[0]).await;
        client.send(pattern::at(BULK + 1001, 3000)).await;
        client.finish().await;
        proxy.signal(Signal::CONT);
        server.check_pattern(BULK, 4001).await;
        server.expect_fin().await;
    }
}
