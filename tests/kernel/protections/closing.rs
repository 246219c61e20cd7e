//! Ends between own sockets: nothing is said or closed while the kernel has bytes to send.

use std::time::Instant;

use mantra_macros::req_test;
use proxy_ebpf::Protection;
use tokio::time::{sleep, timeout};
use underpass_tests::{
    Bed, End, Engine, Fate, Plan, Tunnel, Way, Wire, bed::Topology, clock, process::queued,
};

use super::{MEGABYTE, acknowledged, patience, ready, shown};

/// Bytes that have yet to be sent when the end comes: a part of what the kernel takes by itself.
const HELD: u64 = MEGABYTE / 4;

/// What becomes of a server's bytes and end when the other direction has ended before, and
/// the client reads late.
async fn ends(bed: &Bed, gone: &[Protection]) -> (Fate, Fate) {
    let plan = Plan::new(bed, Way::Connect, Engine::Kernel).narrow_client().unprotected(gone);
    let Tunnel { mut client, mut server, origin: _origin, proxy } = plan.open_settled().await;
    client.finish().await;
    server.expect_fin().await;
    let mut sent = 0;
    while held(&client, sent).await < HELD {
        assert!(sent < 64 * MEGABYTE, "the kernel holds nothing of {sent} bytes");
        server.send_rest(sent, sent + HELD / 4).await;
        sent += HELD / 4;
        // So that the FIN is a segment of its own.
        acknowledged(&server).await;
    }
    server.finish().await;
    // A proxy that waits for its reader has the tunnel as long as that does not read.
    let _ = timeout(clock::STALL, proxy.until_tunnels(0)).await;
    let fate = client.fate_of(0, sent, patience(gone)).await;
    (fate, client.fate_of(0, 1, patience(gone)).await)
}

/// Bytes of those sent that are in neither socket between the proxy and the client: as many
/// as stay there when nothing moves any more.
async fn held(client: &Wire, sent: u64) -> u64 {
    let (ours, theirs) = (client.local_addr().port(), client.peer_addr().port());
    let look = || sent.saturating_sub(queued(theirs, ours).sent + queued(ours, theirs).received);
    let (mut held, mut since) = (look(), Instant::now());
    while held >= HELD && since.elapsed() < clock::STALL {
        sleep(clock::STALL / 20).await;
        let now = look();
        if now != held {
            (held, since) = (now, Instant::now());
        }
    }
    held
}

const CLEAN: Fate = Fate::Ended(0, End::Fin);

async fn shown_by_ends(gone: Protection, harm: impl Fn(&(Fate, Fate)) -> bool) {
    if !ready(Engine::Kernel) {
        return;
    }
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let play = async |gone: &[Protection]| ends(&bed, gone).await;
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
