//! Nothing stays in the kernel when the proxy is killed, though applications still have the
//! sockets that it had enrolled.

use mantra_macros::req_test;
use proxy_ebpf::Protection;
use rustix::process::Signal;
use underpass_tests::{Bed, End, Engine, Plan, Tunnel, Way, bed::Topology, clock};

use super::{ready, shown};
use crate::{machine::eventually, tunnel::killed::Objects};

/// What the sockets hold on to is a stub. Were it the program itself, this and its maps would
/// stay until the applications close.
#[req_test("REQ-TUN-002", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_hold_a_stub() {
    if !ready(Engine::Bypass) {
        return;
    }
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let play = async |gone: &[Protection]| {
        let plan = Plan::new(&bed, Way::Connect, Engine::Bypass).unprotected(gone);
        let Tunnel { mut client, mut server, origin: _origin, mut proxy } =
            plan.open_settled().await;
        let objects = Objects::of(proxy.pid());
        assert!(objects.any_loaded(), "{objects:?}");
        proxy.signal(Signal::KILL);
        proxy.exited().await;
        assert_eq!(client.expect_end().await, End::Reset);
        assert_eq!(server.expect_end().await, End::Reset);
        if gone.is_empty() {
            eventually("programs and maps are gone", || !objects.any_loaded());
            return false;
        }
        // Time enough for what goes by itself.
        tokio::time::sleep(5 * clock::STALL).await;
        let left = objects.any_loaded();
        drop((client, server));
        // It was the sockets that held them.
        eventually("programs and maps are gone with the sockets", || !objects.any_loaded());
        left
    };
    shown(&[Protection::Stub], play, |left| !left, |left| *left).await;
}
