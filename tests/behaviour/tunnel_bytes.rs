//! Bytes of a tunnel: all of them, in order, bounded, whichever engine moves them (the law
//! of tunnels, 1 and 2). Every test runs for Upgrade and for CONNECT.

use mantra_macros::req_test;
use underpass_tests::{
    Engine, Origin, Wire, over_engines, pattern, process::Growth, tunnel::SWITCHING, tunnel::Way,
};

/// What a stalled tunnel may cost: a pipe or a buffer, not what was sent.
const ALLOWED: u64 = 5 << 20;
const HUNDRED_MB: u64 = 100 << 20;

over_engines!(
    bytes_right_behind_the_request_arrive_first,
    bytes_right_behind_the_answer_arrive_first,
    a_hundred_megabytes_each_way,
    messages_of_all_sizes_go_back_and_forth,
    a_server_that_does_not_read_stops_the_client,
    a_client_that_does_not_read_stops_the_server,
    many_tunnels_at_once,
);

/// The client does not wait for the answer before it speaks the other protocol.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn bytes_right_behind_the_request_arrive_first(engine: Engine) {
    for way in Way::ALL {
        let origin = Origin::bind().await;
        let proxy = way.proxy(&origin).splice(engine).start();
        let early = pattern::bytes(5000);
        let request = [way.request(&origin).as_bytes(), &early].concat();
        let mut client = proxy.open(request).await;
        let mut server = way.accept(&origin).await;
        way.opened(&mut client).await;
        client.send(pattern::at(5000, 1000)).await;
        server.check_pattern(0, 6000).await;
        server.send("and back").await;
        client.expect("and back").await;
    }
}

/// More than the proxy is willing to hold before it knows that there will be a tunnel.
#[req_test("REQ-TUN-001", "REQ-CTRL-004")]
#[tokio::test]
async fn much_early_data_waits_in_the_network() {
    for way in Way::ALL {
        let origin = Origin::bind().await;
        let proxy = way.proxy(&origin).start();
        let mut client = proxy.open(way.request(&origin)).await;
        let mut server = origin.accept().await;
        if way == Way::Upgrade {
            server.read_head().await;
        } else {
            way.opened(&mut client).await;
        }
        let sent = client.send_until_stalled(0, HUNDRED_MB).await;
        assert!(sent < HUNDRED_MB);
        if way == Way::Upgrade {
            server.send(SWITCHING).await;
            way.opened(&mut client).await;
        }
        server.check_pattern(0, sent).await;
    }
}

/// The server speaks in the same segment as its answer, or as soon as it is connected to.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn bytes_right_behind_the_answer_arrive_first(engine: Engine) {
    for way in Way::ALL {
        let origin = Origin::bind().await;
        let proxy = way.proxy(&origin).splice(engine).start();
        let mut client = proxy.open(way.request(&origin)).await;
        let mut server = origin.accept().await;
        let early = pattern::bytes(5000);
        match way {
            Way::Upgrade => {
                server.read_head().await;
                server.send([SWITCHING.as_bytes(), &early].concat()).await;
            }
            Way::Connect | Way::Tcp => server.send(&early).await,
        }
        way.opened(&mut client).await;
        server.send(pattern::at(5000, 1000)).await;
        client.check_pattern(0, 6000).await;
        client.send("and back").await;
        server.expect("and back").await;
    }
}

/// Both ways at the same time, every byte where it belongs, FIN behind the last one.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_hundred_megabytes_each_way(engine: Engine) {
    for way in Way::ALL {
        let mut tunnel = way.open(engine).await;
        tokio::join!(
            tunnel.client.exchange_pattern(HUNDRED_MB, true, HUNDRED_MB),
            tunnel.server.exchange_pattern(HUNDRED_MB, true, HUNDRED_MB),
        );
        tunnel.client.expect_fin().await;
        tunnel.server.expect_fin().await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn messages_of_all_sizes_go_back_and_forth(engine: Engine) {
    for way in Way::ALL {
        let mut tunnel = way.open(engine).await;
        let mut offset = 0;
        // Around sizes of buffers and pages, small ones between them.
        for size in [1, 2, 3, 7, 64, 1460, 4095, 4096, 4097, 1, 16_384, 65_535, 1, 65_537, 200_000]
        {
            let message = pattern::bytes((offset + size) as usize).split_off(offset as usize);
            tokio::join!(tunnel.client.send(&message), tunnel.server.check_pattern(offset, size));
            tokio::join!(tunnel.server.send(&message), tunnel.client.check_pattern(offset, size));
            offset += size;
        }
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-CTRL-004")]
async fn a_server_that_does_not_read_stops_the_client(engine: Engine) {
    for way in Way::ALL {
        let mut tunnel = way.open_with(engine, Origin::bind_narrow(), |builder| builder).await;
        let pid = tunnel.proxy.pid();
        stalls(pid, &mut tunnel.client, &mut tunnel.server).await;
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-CTRL-004")]
async fn a_client_that_does_not_read_stops_the_server(engine: Engine) {
    for way in Way::ALL {
        let origin = Origin::bind().await;
        let proxy = way.proxy(&origin).splice(engine).start();
        let client = Wire::connect_narrow(proxy.addr()).await;
        let mut tunnel = way.open_over(client, origin, proxy).await;
        let pid = tunnel.proxy.pid();
        stalls(pid, &mut tunnel.server, &mut tunnel.client).await;
    }
}

/// `from` sends until it is stopped; then `to` reads everything that was taken.
async fn stalls(proxy: u32, from: &mut Wire, to: &mut Wire) {
    let mut growth = Growth::of(proxy);
    let sent = growth.during(from.send_until_stalled(0, HUNDRED_MB)).await;
    assert!(sent < HUNDRED_MB, "everything was taken for a reader that read nothing");
    growth.assert_below(ALLOWED);
    // The other direction does not care.
    to.send("alive").await;
    from.expect("alive").await;
    to.check_pattern(0, sent).await;
    from.send(pattern::at(sent, 1000)).await;
    from.finish().await;
    to.check_pattern(sent, 1000).await;
    to.expect_fin().await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn many_tunnels_at_once(engine: Engine) {
    let origin = Origin::bind().await;
    let proxy = Way::Connect.proxy(&origin).splice(engine).start();
    let mut pairs = Vec::new();
    for _ in 0..50 {
        let mut client = proxy.open(Way::Connect.request(&origin)).await;
        let server = Way::Connect.accept(&origin).await;
        Way::Connect.opened(&mut client).await;
        pairs.push((client, server));
    }
    // All are open; each carries its own bytes.
    for (n, (client, server)) in pairs.iter_mut().enumerate() {
        client.send(format!("to the server {n}")).await;
        server.expect(format!("to the server {n}")).await;
        server.send(format!("to the client {n}")).await;
        client.expect(format!("to the client {n}")).await;
    }
    for (client, server) in &mut pairs {
        tokio::join!(
            client.exchange_pattern(100_000, true, 100_000),
            server.exchange_pattern(100_000, true, 100_000),
        );
    }
    proxy.until_tunnels(0).await;
}
