//! Local bypass of inspected HTTP: both connections of an exchange go past TCP, and nothing else
//! is different.
//!
//! The behaviour suite is played over it as a whole (`cargo xtask test`); here is what only
//! shows on a connection that has come to bypass TCP, and that it has.

use std::time::Duration;

use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{
    Bed, Engine, Origin, Proxy, Wire,
    bed::Topology,
    clock,
    engine::ready,
    eventually, pattern,
    process::Growth,
    tunnel::{SWITCHING, Way},
};

const MEGABYTE: u64 = 1 << 20;

/// Messages of ours after which a connection bypasses: it is tried before the second.
const WARM: usize = 3;

/// Ends of an exchange, both kept and warmed up.
struct Exchange {
    client: Wire,
    server: Wire,
    origin: Origin,
    proxy: Proxy,
}

impl Exchange {
    async fn on(bed: &Bed) -> Self {
        let origin = bed.origin(None);
        let to = format!("http://{}", bed.target(&origin));
        let listen = bed.listen().to_string();
        let arguments = ["reverse", "--listen", &listen, "--to", &to, "--local-bypass"];
        let admin = ["--admin", "127.0.0.1:0", "--workers", "1"];
        let proxy = Proxy::command(&[&arguments[..], &admin[..]].concat(), 2).start();
        let client = bed.connect(proxy.addr(), None).await;
        Self::begin(client, origin, proxy).await
    }

    async fn begin(mut client: Wire, origin: Origin, proxy: Proxy) -> Self {
        client.send(request("/0", 0)).await;
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send(answer(0)).await;
        client.read_head().await;
        let mut exchange = Self { client, server, origin, proxy };
        for _ in 1..WARM {
            exchange.exchange(10, 10).await;
        }
        exchange
    }

    /// One request and its answer, with bodies of so many bytes.
    async fn exchange(&mut self, up: u64, down: u64) {
        let Self { client, server, .. } = self;
        let asking = async {
            client.send(request("/", up)).await;
            client.send_rest(0, up).await;
        };
        let receiving = async {
            server.read_head().await;
            server.check_pattern(0, up).await;
        };
        tokio::join!(asking, receiving);
        let answering = async {
            server.send(answer(down)).await;
            server.send_rest(0, down).await;
        };
        let reading = async {
            client.read_head().await;
            client.check_pattern(0, down).await;
        };
        tokio::join!(answering, reading);
    }

    /// Connections that bypass TCP now: with clients, with servers.
    async fn open(&self) -> [f64; 2] {
        let metrics = self.proxy.metrics().await;
        ["downstream", "upstream"]
            .map(|side| metrics.sum("underpass_hop_bypass_open", &[("side", side)]))
    }

    /// Bytes past TCP on one side.
    async fn bytes(&self, side: &str) -> f64 {
        let metrics = self.proxy.metrics().await;
        metrics.sum("underpass_hop_bypass_bytes_total", &[("side", side)])
    }
}

fn request(path: &str, length: u64) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")
}

fn answer(length: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

fn beds() -> Vec<Bed> {
    if ready(Engine::Bypass) { Bed::local() } else { Vec::new() }
}

#[req_test("REQ-CORE-001.F-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_all_sizes_go_both_ways() {
    for bed in beds() {
        let mut exchange = Exchange::on(&bed).await;
        assert_eq!(exchange.open().await, [1.0; 2], "{bed}");
        for size in [0, 1, 100, 4096, 65_521, 300_000, 3 * MEGABYTE] {
            exchange.exchange(size, 10).await;
            exchange.exchange(10, size).await;
            exchange.exchange(size, size).await;
        }
        // Small ones are past TCP wholly, and the figures are complete when it is over.
        let Exchange { client, server, proxy, origin } = exchange;
        drop((client, server));
        let exchange = Exchange::begin(proxy.connect().await, origin, proxy).await;
        eventually("the first connections to be gone", async || exchange.open().await == [1.0; 2])
            .await;
        for side in ["downstream", "upstream"] {
            let bytes = exchange.bytes(side).await;
            assert!(bytes > 300_000.0, "{bed}, {side}: {bytes} bytes past TCP");
        }
    }
}

#[req_test("REQ-CORE-001.F-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_come_one_by_one() {
    for bed in beds() {
        let Exchange { mut client, mut server, origin: _origin, proxy: _proxy } =
            Exchange::on(&bed).await;
        client.send(request("/stream", 0)).await;
        server.read_head().await;
        server.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client.read_head().await;
        for _ in 0..100 {
            server.send("6\r\ntoken \r\n").await;
            client.expect("6\r\ntoken \r\n").await;
        }
        server.send("0\r\n\r\n").await;
        client.expect("0\r\n\r\n").await;
    }
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    for bed in beds() {
        let Exchange { mut client, mut server, origin: _origin, proxy: _proxy } =
            Exchange::on(&bed).await;
        let requests: String = (0..20).map(|n| request(&format!("/{n}"), 0)).collect();
        client.send(requests).await;
        for n in 0..20 {
            assert_eq!(server.read_head().await.target(), format!("/{n}"));
            server.send(format!("{}{n:03}", answer(3))).await;
        }
        for n in 0..20 {
            client.read_head().await;
            client.expect(format!("{n:03}")).await;
        }
    }
}

/// Either end stops reading for seconds, with megabytes on their way to it.
#[req_test("REQ-CTRL-004", "REQ-CORE-001.F-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_is_felt_and_served_when_it_comes_back() {
    if !ready(Engine::Bypass) {
        return;
    }
    const MORE: u64 = 64 * MEGABYTE;
    let Some(bed) = Bed::here(Topology::V4) else { return };
    for down in [false, true] {
        let Exchange { mut client, mut server, origin: _origin, proxy } = Exchange::on(&bed).await;
        if down {
            client.send(request("/", 0)).await;
            server.read_head().await;
            server.send(answer(MORE)).await;
            client.read_head().await;
        } else {
            client.send(request("/", MORE)).await;
            server.read_head().await;
        }
        let (from, to) = if down { (&mut server, &mut client) } else { (&mut client, &mut server) };
        let mut growth = Growth::of(proxy.pid());
        let sent = growth.during(from.send_until_stalled(0, MORE)).await;
        assert!(sent < MORE, "nothing held the sender back");
        growth.assert_below(5 * MEGABYTE);
        tokio::time::sleep(Duration::from_secs(3)).await;
        tokio::join!(from.send_rest(sent, MORE), to.check_pattern(0, MORE));
    }
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_ends_the_request() {
    for bed in beds() {
        let Exchange { mut client, mut server, origin: _origin, proxy: _proxy } =
            Exchange::on(&bed).await;
        client.send(request("/slow", 0)).await;
        server.read_head().await;
        client.reset();
        server.expect_end().await;
    }
}

/// What an application was given past TCP is there to be read after the connection has ended.
#[req_test("REQ-CORE-001.F-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_answer_comes_before_the_end() {
    for bed in beds() {
        let Exchange { mut client, mut server, origin: _origin, proxy: _proxy } =
            Exchange::on(&bed).await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
        server.read_head().await;
        server.send(answer(50_000)).await;
        server.send_rest(0, 50_000).await;
        tokio::time::sleep(clock::STALL).await;
        client.read_head().await;
        client.check_pattern(0, 50_000).await;
        client.expect_fin().await;
    }
}

/// A connection that has bypassed becomes a tunnel; its upstream half is a fresh one.
#[req_test("REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_on_a_kept_connection() {
    for bed in beds() {
        let Exchange { mut client, server: _kept, origin, proxy } = Exchange::on(&bed).await;
        client.send(Way::Upgrade.request(&origin)).await;
        let mut server = origin.accept().await;
        server.read_head().await;
        server.send(SWITCHING).await;
        Way::Upgrade.opened(&mut client).await;
        proxy.until_tunnels(1).await;
        for n in 0..50 {
            client.send(pattern::at(n * 100, 100)).await;
            server.check_pattern(n * 100, 100).await;
        }
        tokio::join!(
            client.exchange_pattern(8 * MEGABYTE, true, 8 * MEGABYTE),
            server.exchange_pattern(8 * MEGABYTE, true, 8 * MEGABYTE),
        );
        client.expect_fin().await;
        server.expect_fin().await;
        proxy.until_tunnels(0).await;
    }
}

/// Who is elsewhere has the connection that he had; the one within this host bypasses.
#[req_test("REQ-CORE-001.F-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_peers_stay_with_tcp() {
    if !ready(Engine::Bypass) {
        return;
    }
    for (place, expected) in
        [(Topology::RemoteClient, [0.0, 1.0]), (Topology::RemoteBoth, [0.0; 2])]
    {
        let Some(bed) = Bed::here(place) else { return };
        let mut exchange = Exchange::on(&bed).await;
        assert_eq!(exchange.open().await, expected, "{bed}");
        exchange.exchange(MEGABYTE, MEGABYTE).await;
    }
}

#[req_test("REQ-CORE-001.F-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_a_killed_proxy_are_reset_or_ended() {
    for bed in beds() {
        let mut exchange = Exchange::on(&bed).await;
        exchange.proxy.signal(Signal::KILL);
        exchange.proxy.exited().await;
        let Exchange { mut client, mut server, .. } = exchange;
        client.expect_end().await;
        server.expect_end().await;
    }
}
