//! Ends between own sockets: nothing is said or closed while the kernel has bytes to send.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mantra_macros::req_test;
use proxy_ebpf::Protection;
use tokio::time::timeout;
use underpass_tests::{Bed, End, Engine, Fate, Plan, Tunnel, Way, bed::Topology, clock};

use super::{MEGABYTE, acknowledged, patience, ready, shown};

/// Parts of what the kernel takes by itself that the server sends, in eighths, one after the
/// other until the harm is seen: so much that some of it has yet to be sent when the end
/// comes, so little that all of it is redirected.
const PARTS: [u64; 4] = [6, 7, 5, 4];

/// What becomes of a server's bytes and end when the other direction has ended before, and
/// the client reads late.
async fn ends(bed: &Bed, gone: &[Protection], part: u64) -> (Fate, Fate) {
    let plan = Plan::new(bed, Way::Connect, Engine::Kernel).narrow_client().unprotected(gone);
    let mut tunnel = plan.open_settled().await;
    let size = taken_by_the_kernel(&mut tunnel).await * part / 8;
    let Tunnel { client, server, origin, proxy } = tunnel;
    drop((client, server));
    proxy.until_tunnels(0).await;

    let mut client = plan.connect(&proxy).await;
    client.send(plan.request(&origin)).await;
    let mut server = Way::Connect.accept(&origin).await;
    Way::Connect.opened(&mut client).await;
    plan.settled(&proxy).await;
    client.finish().await;
    server.expect_fin().await;
    server.send_rest(0, size).await;
    // So that the FIN is a segment of its own.
    let _ = timeout(clock::STALL, acknowledged(&server)).await;
    server.finish().await;
    // A proxy that waits for its reader has the tunnel as long as that does not read.
    let _ = timeout(clock::STALL, proxy.until_tunnels(0)).await;
    let fate = client.fate_of(0, size, patience(gone)).await;
    (fate, client.fate_of(0, 1, patience(gone)).await)
}

/// Bytes that a tunnel takes in the kernel before anything is passed to userspace, or the
/// sender is held back.
async fn taken_by_the_kernel(tunnel: &mut Tunnel) -> u64 {
    const PIECE: u64 = 64 * 1024;
    let mut sent = 0;
    loop {
        tunnel.server.send_rest(sent, sent + PIECE).await;
        // On a busy machine a worker of the kernel gets its turn late: what is taken for the end
        // too early makes for a part that is too small to be harmed.
        let taken = timeout(4 * clock::STALL, acknowledged(&tunnel.server)).await;
        let row = &tunnel.proxy.tunnels().await[0];
        let share = &row["engine"]["to_downstream"]["kernel"];
        if taken.is_err() || share["passed_for_bound"].as_u64() != Some(0) {
            return sent;
        }
        sent += PIECE;
        assert!(sent < 64 * MEGABYTE, "it takes everything: {row}");
    }
}

const CLEAN: Fate = Fate::Ended(0, End::Fin);

async fn shown_by_ends(gone: Protection, harm: impl Fn(&(Fate, Fate)) -> bool) {
    if !ready(Engine::Kernel) {
        return;
    }
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let played = AtomicUsize::new(0);
    let play = async |gone: &[Protection]| {
        let part = PARTS[played.fetch_add(1, Relaxed) % PARTS.len()];
        ends(&bed, gone, part).await
    };
    shown(&[gone], play, |fates| *fates == (Fate::Whole, CLEAN), harm).await;
}

#[req_test("REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_kernel_was_given_is_sent_first() {
    shown_by_ends(Protection::Clear, |fates| matches!(fates.0, Fate::Ended(_, End::Fin))).await;
}

/// The kernel's worker takes a segment without bytes for a broken connection (EPIPE), and the
/// tunnel is reset.
#[req_test("REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fin_by_itself_is_no_broken_connection() {
    shown_by_ends(Protection::BareFin, |fates| matches!(fates.1, Fate::Ended(_, End::Reset))).await;
}
