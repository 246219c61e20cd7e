//! Memory: a reader that does not read is felt by its sender, whichever program gives it bytes.
//!
//! What a sender gets rid of and nobody reads is memory of the kernel: that it is bounded, and
//! without the bound is not, is seen by how much that is. Between an application and our
//! socket (half bypass) the kernel bounds it by itself; there the bound spares the
//! application a wait for a socket that it does not know, and of which no event tells it.

use mantra_macros::req_test;
use proxy_ebpf::Protection;
use underpass_tests::{Bed, Engine, Fate, Plan, Way, bed::Topology, clock};

use super::{MORE, bulk, ready, shown};

#[derive(Debug, Clone, Copy)]
enum Sender {
    Client,
    Server,
}

async fn is_bounded(engine: Engine, sender: Sender, gone: Protection) {
    if !ready(engine) {
        return;
    }
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let play = async |gone: &[Protection]| {
        let plan = Plan::new(&bed, Way::Connect, engine).unprotected(gone);
        let mut tunnel = plan.open_settled().await;
        match sender {
            Sender::Client => tunnel.client.send_until_stalled(0, MORE).await,
            Sender::Server => tunnel.server.send_until_stalled(0, MORE).await,
        }
    };
    // How much it is with the bound, `tunnel/memory.rs` measures.
    shown(&[gone], play, |taken| *taken < MORE / 2, |taken| *taken == MORE).await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bypass() {
    is_bounded(Engine::Bypass, Sender::Client, Protection::Bound).await;
}

#[req_test("REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_own_sockets() {
    is_bounded(Engine::Kernel, Sender::Server, Protection::SkbBound).await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_bypass() {
    if !ready(Engine::Bypass) {
        return;
    }
    let Some(bed) = Bed::here(Topology::RemoteClient) else { return };
    let play = async |gone: &[Protection]| {
        let plan = Plan::new(&bed, Way::Connect, Engine::Bypass).unprotected(gone);
        let mut tunnel = plan.open_settled().await;
        bulk(&mut tunnel.server, &mut tunnel.client, gone).await
    };
    let stuck = |fate: &Fate| matches!(fate, Fate::Stuck(_));
    shown(&[Protection::Bound], play, |fate| *fate == Fate::Whole, stuck).await;
}

/// A reader that comes back after a long time is given everything at once. Without room for
/// it, what waits behind bytes that have bypassed TCP waits for a timer that went on doubling
/// meanwhile.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_comes_back() {
    if !ready(Engine::Bypass) {
        return;
    }
    // With small buffers: what may bypass is more than they hold.
    let Some(bed) = Bed::here(Topology::Confined) else { return };
    let play = async |gone: &[Protection]| {
        let plan = Plan::new(&bed, Way::Connect, Engine::Bypass).unprotected(gone);
        let mut tunnel = plan.open_settled().await;
        let sent = tunnel.server.send_until_stalled(0, MORE).await;
        // Tries after 0.2 s, 0.4, 0.8, 1.6, 3.2, 6.4: the next one is some seconds away.
        tokio::time::sleep(20 * clock::STALL).await;
        let patience = if gone.is_empty() { clock::BOUND } else { 4 * clock::STALL };
        tunnel.client.fate_of(0, sent, patience).await
    };
    let stuck = |fate: &Fate| matches!(fate, Fate::Stuck(_));
    shown(&[Protection::Room], play, |fate| *fate == Fate::Whole, stuck).await;
}
