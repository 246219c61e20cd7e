//! Bytes that are sent before the tunnel stands: behind the request, behind the answer, and
//! while the engine takes over.

use std::time::Duration;

use mantra_macros::req_test;
use underpass_tests::{
    Bed, Engine, Plan, Wire, over_all_engines, pattern, tunnel::SWITCHING, tunnel::Way,
};

use super::{MEGABYTE, cases, each};

over_all_engines!(
    bytes_in_one_segment_with_the_request_arrive_first,
    bytes_dribbled_behind_the_request_arrive_in_order,
    bytes_in_one_segment_with_the_answer_arrive_first,
    bytes_dribbled_behind_the_answer_arrive_in_order,
    both_ends_send_while_the_engine_takes_over,
    the_last_early_byte_does_not_wait_for_a_next_one,
);

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn bytes_in_one_segment_with_the_request_arrive_first(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        for early in [1, 5000, 300_000] {
            let plan = Plan::new(bed, way, engine);
            let (origin, proxy) = plan.start();
            let mut client = plan.connect(&proxy).await;
            let request = [plan.request(&origin).as_bytes(), &pattern::bytes(early)].concat();
            let accepting = async {
                let mut server = way.accept(&origin).await;
                server.check_pattern(0, early as u64).await;
                server
            };
            let (mut server, ()) = tokio::join!(accepting, client.send(request));
            way.opened(&mut client).await;
            client.send(pattern::at(early as u64, 1000)).await;
            server.check_pattern(early as u64, 1000).await;
            server.send("and back").await;
            client.expect("and back").await;
        }
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn bytes_dribbled_behind_the_request_arrive_in_order(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let plan = Plan::new(bed, way, engine);
        let (origin, proxy) = plan.start();
        let mut client = plan.connect(&proxy).await;
        let request = plan.request(&origin).into_bytes();
        // Some in the last segment of the request, if there is one, the rest over the time of the
        // hand-over.
        let (head, tail) = request.split_at(request.len().saturating_sub(3));
        client.send(head).await;
        client.send([tail, pattern::at(0, 10)].concat()).await;
        let dribbling = dribble(&mut client, 10, 400);
        let accepting = async {
            let mut server = way.accept(&origin).await;
            server.check_pattern(0, 400).await;
            server
        };
        let (mut server, ()) = tokio::join!(accepting, dribbling);
        way.opened(&mut client).await;
        tokio::join!(client.send_rest(400, MEGABYTE), server.check_pattern(400, MEGABYTE - 400));
    })
    .await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn bytes_in_one_segment_with_the_answer_arrive_first(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        for early in [1, 5000, 300_000] {
            let plan = Plan::new(bed, way, engine);
            let (origin, proxy) = plan.start();
            let mut client = plan.connect(&proxy).await;
            client.send(plan.request(&origin)).await;
            let mut server = origin.accept().await;
            let answer = answer(way, &mut server).await;
            let reading = async {
                way.opened(&mut client).await;
                client.check_pattern(0, early as u64).await;
            };
            tokio::join!(server.send([answer, &pattern::bytes(early)].concat()), reading);
            server.send(pattern::at(early as u64, 1000)).await;
            client.check_pattern(early as u64, 1000).await;
            client.send("and back").await;
            server.expect("and back").await;
        }
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn bytes_dribbled_behind_the_answer_arrive_in_order(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let plan = Plan::new(bed, way, engine);
        let (origin, proxy) = plan.start();
        let mut client = plan.connect(&proxy).await;
        client.send(plan.request(&origin)).await;
        let mut server = origin.accept().await;
        let answer = answer(way, &mut server).await;
        let (head, tail) = answer.split_at(answer.len().saturating_sub(3));
        server.send(head).await;
        server.send([tail, pattern::at(0, 10)].concat()).await;
        let dribbling = dribble(&mut server, 10, 400);
        let reading = async {
            way.opened(&mut client).await;
            client.check_pattern(0, 400).await;
        };
        tokio::join!(dribbling, reading);
        tokio::join!(server.send_rest(400, MEGABYTE), client.check_pattern(400, MEGABYTE - 400));
    })
    .await;
}

/// No moment is quiet: megabytes are under way in both directions from the first byte on.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn both_ends_send_while_the_engine_takes_over(engine: Engine) {
    const SIZE: u64 = 16 * MEGABYTE;
    for (bed, way) in cases(&Bed::all()) {
        let plan = Plan::new(bed, way, engine);
        let (origin, proxy) = plan.start();
        let mut client = plan.connect(&proxy).await;
        client.send([plan.request(&origin).as_bytes(), pattern::at(0, 2000)].concat()).await;
        let server = tokio::spawn(async move {
            let mut server = origin.accept().await;
            let answer = answer(way, &mut server).await;
            server.send([answer, pattern::at(0, 2000)].concat()).await;
            duplex(server, SIZE).await;
        });
        way.opened(&mut client).await;
        duplex(client, SIZE).await;
        server.await.unwrap();
        proxy.until_tunnels(0).await;
    }
}

/// One end's side of it: 2000 bytes have been sent already.
async fn duplex(mut wire: Wire, size: u64) {
    wire.exchange_stretch(2000..size, true, 0..size).await;
    wire.expect_fin().await;
}

/// Nothing comes behind it that would nudge what moves the bytes.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn the_last_early_byte_does_not_wait_for_a_next_one(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let plan = Plan::new(bed, way, engine);
        let (origin, proxy) = plan.start();
        let mut client = plan.connect(&proxy).await;
        client.send(plan.request(&origin)).await;
        // At all moments around the hand-over, one byte by one connection.
        let mut server = way.accept(&origin).await;
        client.send("c").await;
        server.send("s").await;
        server.expect("c").await;
        way.opened(&mut client).await;
        client.expect("s").await;
        for round in 0..20 {
            let mut client = plan.connect(&proxy).await;
            client.send(plan.request(&origin)).await;
            let mut server = way.accept(&origin).await;
            let wait = Duration::from_micros(150 * round);
            let (answer, ()) = tokio::join!(
                async {
                    way.opened(&mut client).await;
                    client.expect("s").await;
                    client
                },
                async {
                    tokio::time::sleep(wait).await;
                    server.send("s").await;
                }
            );
            let mut client = answer;
            tokio::time::sleep(wait).await;
            client.send("c").await;
            server.expect("c").await;
        }
    })
    .await;
}

/// What the origin has to send to open the tunnel; nothing for CONNECT and plain TCP.
async fn answer(way: Way, server: &mut Wire) -> &'static [u8] {
    match way {
        Way::Connect | Way::Tcp => b"",
        Way::Upgrade => {
            server.read_head().await;
            SWITCHING.as_bytes()
        }
    }
}

/// Sends the pattern from `offset` to `end` in small pieces, each its own segment.
async fn dribble(wire: &mut Wire, mut offset: u64, end: u64) {
    while offset < end {
        let piece = pattern::at(offset, (1 + offset % 13).min(end - offset));
        wire.send(piece).await;
        offset += piece.len() as u64;
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}
