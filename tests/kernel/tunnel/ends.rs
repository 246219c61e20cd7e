//! FIN: behind the last byte, one direction at a time.

use std::time::Duration;

use mantra_macros::req_test;
use underpass_tests::{Bed, Engine, Plan, Tunnel, Wire, over_all_engines};

use super::{MEGABYTE, cases, each};

over_all_engines!(
    the_client_may_finish_first,
    the_server_may_finish_first,
    a_half_closed_tunnel_stays_open_the_other_way,
    fin_comes_behind_megabytes_for_a_slow_server,
    fin_comes_behind_megabytes_for_a_slow_client,
    a_client_that_closes_has_sent_everything,
    a_server_that_closes_has_sent_everything,
    both_may_finish_at_once,
    a_tunnel_without_a_byte_ends_well,
);

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn the_client_may_finish_first(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let Tunnel { client, server, origin: _origin, proxy } =
            Plan::new(bed, way, engine).open_settled().await;
        finishes_first(client, server).await;
        proxy.until_tunnels(0).await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn the_server_may_finish_first(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let Tunnel { client, server, origin: _origin, proxy } =
            Plan::new(bed, way, engine).open_settled().await;
        finishes_first(server, client).await;
        proxy.until_tunnels(0).await;
    }
}

async fn finishes_first(mut first: Wire, mut second: Wire) {
    first.send("question").await;
    first.finish().await;
    second.expect("question").await;
    second.expect_fin().await;
    // Small, much, and small again, all behind the other's end.
    second.send("answer").await;
    first.expect("answer").await;
    tokio::join!(
        second.exchange_pattern(8 * MEGABYTE, false, 0),
        first.check_pattern(0, 8 * MEGABYTE)
    );
    second.send("last").await;
    second.finish().await;
    first.expect("last").await;
    first.expect_fin().await;
}

/// A direction that has ended does not end the other, however long that is silent.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_half_closed_tunnel_stays_open_the_other_way(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let mut tunnel = Plan::new(bed, way, engine).open_settled().await;
        tunnel.client.finish().await;
        tunnel.server.expect_fin().await;
        for _ in 0..5 {
            // Silence, as applications keep it.
            tokio::time::sleep(Duration::from_millis(60)).await;
            tunnel.server.send("still here").await;
            tunnel.client.expect("still here").await;
        }
        tunnel.proxy.until_tunnels(1).await;
        tunnel.server.finish().await;
        tunnel.client.expect_fin().await;
        tunnel.proxy.until_tunnels(0).await;
    })
    .await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn fin_comes_behind_megabytes_for_a_slow_server(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let plan = Plan::new(bed, way, engine).narrow_server();
        let Tunnel { client, server, origin: _origin, proxy } = plan.open_settled().await;
        slow_reader(client, server).await;
        proxy.until_tunnels(0).await;
    })
    .await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn fin_comes_behind_megabytes_for_a_slow_client(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let plan = Plan::new(bed, way, engine).narrow_client();
        let Tunnel { client, server, origin: _origin, proxy } = plan.open_settled().await;
        slow_reader(server, client).await;
        proxy.until_tunnels(0).await;
    })
    .await;
}

/// `from` fills all that is between and finishes; `to` reads a little at a time.
async fn slow_reader(mut from: Wire, mut to: Wire) {
    let sent = from.send_until_stalled(0, 20 * MEGABYTE).await;
    assert!(sent > 100_000, "only {sent} bytes were taken");
    from.finish().await;
    let mut got = 0;
    while got < sent {
        let piece = (sent / 40).min(sent - got);
        to.check_pattern(got, piece).await;
        got += piece;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    to.expect_fin().await;
    to.send("thanks").await;
    to.finish().await;
    from.expect("thanks").await;
    from.expect_fin().await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_client_that_closes_has_sent_everything(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let plan = Plan::new(bed, way, engine).narrow_server();
        let Tunnel { client, server, origin: _origin, proxy: _proxy } = plan.open_settled().await;
        closes(client, server).await;
    })
    .await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_server_that_closes_has_sent_everything(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let plan = Plan::new(bed, way, engine).narrow_client();
        let Tunnel { client, server, origin: _origin, proxy: _proxy } = plan.open_settled().await;
        closes(server, client).await;
    })
    .await;
}

/// `from` is gone, descriptor and all, while megabytes of it are on their way.
async fn closes(mut from: Wire, mut to: Wire) {
    let sent = from.send_until_stalled(0, 20 * MEGABYTE).await;
    drop(from);
    to.check_pattern(0, sent).await;
    to.expect_fin().await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn both_may_finish_at_once(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        for size in [1, 1000, MEGABYTE] {
            let mut tunnel = Plan::new(bed, way, engine).open().await;
            tokio::join!(
                tunnel.client.exchange_pattern(size, true, size),
                tunnel.server.exchange_pattern(size, true, size),
            );
            tunnel.client.expect_fin().await;
            tunnel.server.expect_fin().await;
            tunnel.proxy.log_line(&["tunnel_end=finished"]).await;
        }
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_tunnel_without_a_byte_ends_well(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let mut tunnel = Plan::new(bed, way, engine).open_settled().await;
        tunnel.server.finish().await;
        tunnel.client.expect_fin().await;
        tunnel.client.finish().await;
        tunnel.server.expect_fin().await;
        tunnel.proxy.log_line(&["tunnel_end=finished"]).await;
    }
}
