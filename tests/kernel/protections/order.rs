//! Nothing is overtaken: the gate of local bypass, and both halves of it between own sockets.

use mantra_macros::req_test;
use proxy_ebpf::Protection;
use underpass_tests::{Bed, Engine, Fate, Plan, Way, bed::Topology};

use super::{bulk, ready, shown};

#[derive(Debug, Clone, Copy)]
enum Sender {
    Client,
    Server,
}

async fn keeps_order(engine: Engine, place: Topology, sender: Sender, gone: Protection) {
    if !ready(engine) {
        return;
    }
    let Some(bed) = Bed::here(place) else { return };
    let play = async |gone: &[Protection]| {
        let plan = Plan::new(&bed, Way::Connect, engine).unprotected(gone);
        let mut tunnel = plan.open_settled().await;
        match sender {
            Sender::Client => bulk(&mut tunnel.client, &mut tunnel.server, gone).await,
            Sender::Server => bulk(&mut tunnel.server, &mut tunnel.client, gone).await,
        }
    };
    let overtaken = |fate: &Fate| matches!(fate, Fate::Wrong(_));
    shown(&[gone], play, |fate| *fate == Fate::Whole, overtaken).await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bypass() {
    keeps_order(Engine::Bypass, Topology::V4, Sender::Client, Protection::Order).await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_bypass() {
    keeps_order(Engine::Bypass, Topology::RemoteClient, Sender::Server, Protection::Order).await;
}

/// The program does not overtake what userspace holds.
#[req_test("REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_between_own_sockets() {
    keeps_order(Engine::Kernel, Topology::V4, Sender::Server, Protection::SkbOrder).await;
}

/// Userspace does not overtake what the kernel has yet to send.
#[req_test("REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn userspace_between_own_sockets() {
    keeps_order(Engine::Kernel, Topology::V4, Sender::Server, Protection::Overtaking).await;
}
