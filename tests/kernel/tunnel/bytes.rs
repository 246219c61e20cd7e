//! Byte for byte, whatever the sizes and the timing.

use std::time::Duration;

use mantra_macros::req_test;
use underpass_tests::{Bed, Engine, Plan, Tunnel, Wire, over_all_engines, pattern, tunnel::Way};

use super::{MEGABYTE, cases, each};

over_all_engines!(
    bulk_goes_both_ways_at_once,
    messages_of_all_sizes_go_back_and_forth,
    bursts_and_pauses_keep_their_order,
    a_reader_that_stalls_and_goes_on_gets_everything,
    many_tunnels_do_not_mix,
);

/// Peers on threads of their own, so that both ends of the tunnel are truly busy at once.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn bulk_goes_both_ways_at_once(engine: Engine) {
    const SIZE: u64 = 48 * MEGABYTE;
    for (bed, way) in cases(&Bed::all()) {
        let Tunnel { mut client, mut server, origin: _origin, proxy } =
            Plan::new(bed, way, engine).open_settled().await;
        let client = tokio::spawn(async move {
            client.exchange_pattern(SIZE, true, SIZE).await;
            client.expect_fin().await;
        });
        server.exchange_pattern(SIZE, true, SIZE).await;
        server.expect_fin().await;
        client.await.unwrap();
        proxy.until_tunnels(0).await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn messages_of_all_sizes_go_back_and_forth(engine: Engine) {
    // Around the sizes of buffers, pages and segments, small ones between them.
    const SIZES: [u64; 17] = [
        1, 2, 3, 7, 64, 1, 1447, 1448, 1460, 4095, 4096, 4097, 1, 65_535, 65_537, 200_000,
        1_000_003,
    ];
    for (bed, way) in cases(&Bed::all()) {
        let mut tunnel = Plan::new(bed, way, engine).open().await;
        let mut offset = 0;
        for size in SIZES.into_iter().chain([1; 100]) {
            let message = stretch(offset, size);
            tokio::join!(tunnel.client.send(&message), tunnel.server.check_pattern(offset, size));
            tokio::join!(tunnel.server.send(&message), tunnel.client.check_pattern(offset, size));
            offset += size;
        }
    }
}

/// Bursts fill whatever is between; the pause after each lets all of it run empty. The
/// small message behind the pause must not overtake, nor wait for a next one.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn bursts_and_pauses_keep_their_order(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let mut tunnel = Plan::new(bed, way, engine).open().await;
        let (mut up, mut down) = (0, 0);
        for round in 0..12_u64 {
            let burst = 30_000 << (round % 6);
            burst_and_pause(&mut tunnel.client, &mut tunnel.server, &mut up, burst).await;
            burst_and_pause(&mut tunnel.server, &mut tunnel.client, &mut down, burst).await;
        }
    })
    .await;
}

async fn burst_and_pause(from: &mut Wire, to: &mut Wire, offset: &mut u64, burst: u64) {
    let bytes = stretch(*offset, burst);
    tokio::join!(from.send(&bytes), to.check_pattern(*offset, burst));
    // A pause as an application makes it; the test waits for nothing here.
    tokio::time::sleep(Duration::from_millis(7)).await;
    from.send(pattern::at(*offset + burst, 3)).await;
    to.check_pattern(*offset + burst, 3).await;
    *offset += burst + 3;
}

/// Many short stalls, each after another number of bytes: the sender is stopped and
/// started, and the path that bytes take may change each time.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_reader_that_stalls_and_goes_on_gets_everything(engine: Engine) {
    const SIZE: u64 = 24 * MEGABYTE;
    each(&Bed::all(), async |bed, way| {
        let plan = Plan::new(bed, way, engine).narrow_server();
        let Tunnel { mut client, mut server, origin: _origin, proxy: _proxy } =
            plan.open_settled().await;
        let client = tokio::spawn(async move {
            client.send_rest(0, SIZE).await;
            client.finish().await;
            client.check_pattern(0, SIZE).await;
            client
        });
        let mut got = 0;
        for piece in (0..).map(|n| 1 + 977 * 61 * n % (2 * MEGABYTE)) {
            let piece = piece.min(SIZE - got);
            server.check_pattern(got, piece).await;
            got += piece;
            if got == SIZE {
                break;
            }
            tokio::time::sleep(Duration::from_millis(11)).await;
        }
        server.expect_fin().await;
        server.send_rest(0, SIZE).await;
        client.await.unwrap();
    })
    .await;
}

/// Bytes of one are not found in another, however many share the maps.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn many_tunnels_do_not_mix(engine: Engine) {
    let beds = Bed::all();
    for bed in &beds {
        let plan = Plan::new(bed, Way::Connect, engine);
        let (origin, proxy) = plan.start();
        let mut pairs = Vec::new();
        for _ in 0..40 {
            let mut client = plan.connect(&proxy).await;
            client.send(plan.request(&origin)).await;
            let server = Way::Connect.accept(&origin).await;
            Way::Connect.opened(&mut client).await;
            pairs.push((client, server));
        }
        for round in 0..5 {
            for (n, (client, server)) in pairs.iter_mut().enumerate() {
                client.send(format!("to server {n} in {round}")).await;
                server.send(format!("to client {n} in {round}")).await;
            }
            for (n, (client, server)) in pairs.iter_mut().enumerate() {
                server.expect(format!("to server {n} in {round}")).await;
                client.expect(format!("to client {n} in {round}")).await;
            }
        }
        let work = pairs.into_iter().map(|(mut client, mut server)| {
            tokio::spawn(async move {
                tokio::join!(
                    client.exchange_pattern(200_000, true, 200_000),
                    server.exchange_pattern(200_000, true, 200_000),
                );
                client.expect_fin().await;
                server.expect_fin().await;
            })
        });
        for done in work.collect::<Vec<_>>() {
            done.await.unwrap();
        }
        proxy.until_tunnels(0).await;
    }
}

/// `length` bytes of the pattern from `offset` on.
fn stretch(offset: u64, length: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length as usize);
    while (bytes.len() as u64) < length {
        let have = bytes.len() as u64;
        bytes.extend_from_slice(pattern::at(offset + have, length - have));
    }
    bytes
}
