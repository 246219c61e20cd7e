//! RST: passed on, behind the bytes that came before it.

use std::time::Duration;

use mantra_macros::req_test;
use rustix::process::Signal;
use tokio::time::timeout;
use underpass_tests::{Bed, End, Engine, Plan, Tunnel, Wire, clock, eventually, over_all_engines};

use super::{MEGABYTE, cases, each};

over_all_engines!(
    a_reset_of_the_client_is_passed_on,
    a_reset_of_the_server_is_passed_on,
    bytes_before_a_reset_of_the_client_arrive,
    bytes_before_a_reset_of_the_server_arrive,
    a_reset_behind_a_half_close_is_passed_on,
    a_reset_ends_a_tunnel_whose_reader_sleeps,
    a_reset_that_crosses_bytes_is_no_clean_end,
);

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_reset_of_the_client_is_passed_on(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let tunnel = Plan::new(bed, way, engine).open_settled().await;
        let Tunnel { client, server, origin: _origin, proxy } = tunnel;
        reset_at_rest(client, server).await;
        proxy.until_tunnels(0).await;
        proxy.log_line(&["tunnel_end=client_reset"]).await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_reset_of_the_server_is_passed_on(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let tunnel = Plan::new(bed, way, engine).open_settled().await;
        let Tunnel { client, server, origin: _origin, proxy } = tunnel;
        reset_at_rest(server, client).await;
        proxy.until_tunnels(0).await;
        proxy.log_line(&["tunnel_end=upstream_reset"]).await;
    }
}

async fn reset_at_rest(mut from: Wire, mut to: Wire) {
    from.send("x").await;
    to.expect("x").await;
    from.reset();
    assert_eq!(to.expect_end().await, End::Reset);
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn bytes_before_a_reset_of_the_client_arrive(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        for size in [1, 3000, 150_000, MEGABYTE] {
            let tunnel = Plan::new(bed, way, engine).open_settled().await;
            let Tunnel { client, server, origin: _origin, proxy: _proxy } = tunnel;
            reset_behind(client, server, size).await;
        }
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn bytes_before_a_reset_of_the_server_arrive(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        for size in [1, 3000, 150_000, MEGABYTE] {
            let tunnel = Plan::new(bed, way, engine).open_settled().await;
            let Tunnel { client, server, origin: _origin, proxy: _proxy } = tunnel;
            reset_behind(server, client, size).await;
        }
    }
}

/// Resolves when the other kernel has everything that this end has sent.
async fn acknowledged(wire: &Wire) {
    while wire.unacknowledged() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `to` has read nothing when `from` resets, or no more than has to be out of the way; what
/// `from`'s kernel has got rid of by then has arrived somewhere, and a direct connection would
/// have kept it.
async fn reset_behind(mut from: Wire, mut to: Wire, size: u64) {
    const PIECE: u64 = 64 * 1024;
    from.send_rest(0, size).await;
    // How much fits between them is for the kernel to say, which sizes buffers as it goes.
    let mut read = 0;
    while timeout(2 * clock::STALL, acknowledged(&from)).await.is_err() {
        assert!(
            read < size,
            "all has been read, and {} are not acknowledged",
            from.unacknowledged()
        );
        let piece = PIECE.min(size - read);
        to.check_pattern(read, piece).await;
        read += piece;
    }
    from.reset();
    to.check_pattern(read, size - read).await;
    assert_eq!(to.expect_end().await, End::Reset);
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_reset_behind_a_half_close_is_passed_on(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let mut tunnel = Plan::new(bed, way, engine).open_settled().await;
        tunnel.client.send("question").await;
        tunnel.client.finish().await;
        tunnel.server.expect("question").await;
        tunnel.server.expect_fin().await;
        tunnel.server.send("half an ans").await;
        tunnel.client.expect("half an ans").await;
        tunnel.server.reset();
        assert_eq!(tunnel.client.expect_end().await, End::Reset);
        tunnel.proxy.until_tunnels(0).await;
    }
}

/// What is stuck on its way to a reader that sleeps does not keep a dead tunnel.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_reset_ends_a_tunnel_whose_reader_sleeps(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let mut tunnel = Plan::new(bed, way, engine).narrow_server().open_settled().await;
        tunnel.client.send_until_stalled(0, 100 * MEGABYTE).await;
        tunnel.client.reset();
        tunnel.proxy.until_tunnels(0).await;
        let mut got = 0;
        while let Some(piece) = tunnel.server.read_some().await {
            underpass_tests::pattern::check(got, &piece);
            got += piece.len() as u64;
        }
    })
    .await;
}

/// Whoever writes to a connection that was reset learns of it, and a read behind that finds
/// a clean end, which must not be passed on. The proxy is stopped meanwhile, so that it
/// finds the reset and the bytes at the same moment.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_reset_that_crosses_bytes_is_no_clean_end(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        for server_resets in [true, false] {
            let Tunnel { client, server, origin: _origin, proxy } =
                Plan::new(bed, way, engine).open_settled().await;
            let (mut from, mut to) =
                if server_resets { (server, client) } else { (client, server) };
            from.send("x").await;
            to.expect("x").await;
            proxy.signal(Signal::STOP);
            eventually("the proxy to stop", async || is_stopped(proxy.pid())).await;
            from.reset();
            to.send("crossing").await;
            proxy.signal(Signal::CONT);
            assert_eq!(to.expect_end().await, End::Reset);
            proxy.until_tunnels(0).await;
        }
    }
}

pub(crate) fn is_stopped(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("stat");
    status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}
