//! Memory: a reader that never reads is felt by the sender, in every engine.

use std::time::Instant;

use mantra_macros::req_test;
use underpass_tests::{
    Bed, End, Engine, Plan, Tunnel, Wire, bed::Topology, over_all_engines, process::Growth,
};

use super::{MEGABYTE, SOON, each};

over_all_engines!(
    a_server_that_never_reads_stops_the_client,
    a_client_that_never_reads_stops_the_server,
    a_stalled_tunnel_is_ended_by_hand_soon,
    one_stalled_direction_leaves_the_other_alone,
);

/// The most that an engine may take beside what TCP itself holds.
const BUDGET: u64 = 4 * MEGABYTE;

/// What userspace may grow by meanwhile.
const ALLOWED_GROWTH: u64 = 5 * MEGABYTE;

/// More than any bound here.
const MORE: u64 = 200 * MEGABYTE;

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-CTRL-004")]
async fn a_server_that_never_reads_stops_the_client(engine: Engine) {
    each(&beds(), async |bed, way| {
        let most = bound(bed).await;
        let plan = Plan::new(bed, way, engine);
        let Tunnel { client, server, origin: _origin, proxy } = plan.open_settled().await;
        stalls(proxy.pid(), client, server, most).await;
    })
    .await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-CTRL-004")]
async fn a_client_that_never_reads_stops_the_server(engine: Engine) {
    each(&beds(), async |bed, way| {
        let most = bound(bed).await;
        let plan = Plan::new(bed, way, engine);
        let Tunnel { client, server, origin: _origin, proxy } = plan.open_settled().await;
        stalls(proxy.pid(), server, client, most).await;
    })
    .await;
}

fn beds() -> Vec<Bed> {
    Bed::here(Topology::Confined).into_iter().chain(Bed::all()).collect()
}

/// The most that a sender may get rid of: what two plain connections take, one after the
/// other as in a tunnel, and the budget.
///
/// The kernel grows a receive buffer while its reader is quick, as the proxy is at first, up
/// to a limit that is large by default: there the bound only tells bounded from unbounded.
/// The confined bed has no such room, and tells whether the budget is kept.
async fn bound(bed: &Bed) -> u64 {
    let origin = bed.origin(None);
    let mut client = bed.connect_directly(&origin).await;
    let _server = origin.accept().await;
    let direct = client.send_until_stalled(0, MORE).await;
    assert!(direct < MORE, "a plain connection has no bound here");
    let growth = match bed.topology() {
        Topology::Confined => 0,
        _ => largest_receive_buffer(),
    };
    println!("a plain connection takes {direct} bytes");
    2 * direct + growth + BUDGET
}

/// The last of the three values of net.ipv4.tcp_rmem (tcp(7)).
fn largest_receive_buffer() -> u64 {
    let sizes = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_rmem").unwrap();
    sizes.split_whitespace().last().unwrap().parse().unwrap()
}

async fn stalls(proxy: u32, mut from: Wire, mut to: Wire, most: u64) {
    let mut growth = Growth::of(proxy);
    let sent = growth.during(from.send_until_stalled(0, MORE)).await;
    println!("the tunnel took {sent} of at most {most} bytes");
    assert!(sent <= most, "{sent} bytes were taken for a reader that read nothing: over {most}");
    growth.assert_below(ALLOWED_GROWTH);
    // It stays at that: nothing trickles on.
    let more = from.send_until_stalled(sent, MORE).await;
    assert!(sent + more <= most, "{} bytes were taken in the end: over {most}", sent + more);
    // And when the reader wakes up, everything is there, and the tunnel goes on.
    let all = sent + more;
    tokio::join!(from.exchange_stretch(all..all + MEGABYTE, true, 0..0), async {
        to.check_pattern(0, all + MEGABYTE).await;
        to.expect_fin().await;
    });
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-TUN-004")]
async fn a_stalled_tunnel_is_ended_by_hand_soon(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let mut tunnel = Plan::new(bed, way, engine).narrow_server().open_settled().await;
        tunnel.client.send_until_stalled(0, MORE).await;
        let id = tunnel.proxy.tunnels().await[0]["id"].to_string();
        let begin = Instant::now();
        let answer = tunnel.proxy.ask_admin("DELETE", &format!("/tunnels/{id}")).await;
        assert!((200..300).contains(&answer.status()), "{}", answer.head.start);
        assert_eq!(tunnel.client.expect_end().await, End::Reset);
        tunnel.proxy.until_tunnels(0).await;
        let took = begin.elapsed();
        assert!(took < SOON, "the tunnel ended after {took:?}");
        // The reader finds the beginning of what was sent, and no clean end.
        let (_, end) = tunnel.server.read_to_end().await;
        assert_eq!(end, End::Reset);
    })
    .await;
}

/// Stalled one way, alive the other, for small messages and for much.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn one_stalled_direction_leaves_the_other_alone(engine: Engine) {
    each(&Bed::all(), async |bed, way| {
        let Tunnel { mut client, mut server, origin: _origin, proxy: _proxy } =
            Plan::new(bed, way, engine).narrow_server().open_settled().await;
        let sent = client.send_until_stalled(0, MORE).await;
        for _ in 0..20 {
            server.send("alive").await;
            client.expect("alive").await;
        }
        tokio::join!(
            server.exchange_pattern(8 * MEGABYTE, true, 0),
            client.check_pattern(0, 8 * MEGABYTE)
        );
        client.expect_fin().await;
        tokio::join!(client.finish(), server.check_pattern(0, sent));
        server.expect_fin().await;
    })
    .await;
}
