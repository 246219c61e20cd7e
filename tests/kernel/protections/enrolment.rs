//! When a socket may come under a program, and what happens to its bytes if it comes too soon.
//!
//! No TLS in the kernel here: a socket that another sockmap has stands for one that cannot be
//! enrolled. The kernel refuses both by the same call (EBUSY and EINVAL).
//!
//! Bytes that come between the look at a receive queue and the enrolment are stuck without a
//! nudge while nobody reads, as in the probe (`probe.rs`). In a tunnel the lane reads, too,
//! and on 6.18 each read has the kernel offer the queue to the program (seen with that moment
//! stretched to 300 ms, ten times of ten): there is no harm to show, there or elsewhere.

use std::{
    io::{ErrorKind, Read},
    net::{Ipv4Addr, TcpListener},
    os::fd::AsFd,
};

use mantra_macros::req_test;
use proxy_ebpf::Protection;
use rustix::process::Signal;
use underpass::splice::kernel::Set;
use underpass_tests::{
    Bed, End, Engine, Fate, Plan, Proxy, Way, Wire, bed::Topology, clock,
    engine::joins_applications, eventually, pattern, tunnel::SWITCHING, wire::set_defer_accept,
};

use super::{MEGABYTE, comes_to, patience, ready, shown};
use crate::{machine::kernel, tunnel::resets::is_stopped};

/// A tunnel by local bypass to a server that has yet to accept its connection.
pub(super) async fn unaccepted(gone: &[Protection]) -> (Wire, TcpListener, Proxy) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (client, proxy) = tunnel_to(&listener, gone).await;
    (client, listener, proxy)
}

async fn tunnel_to(listener: &TcpListener, gone: &[Protection]) -> (Wire, Proxy) {
    let proxy = Proxy::forward().splice(Engine::Bypass).unprotected(gone).start();
    let request = Way::Connect.request_to(listener.local_addr().unwrap());
    let mut client = proxy.open(request).await;
    Way::Connect.opened(&mut client).await;
    proxy.until_tunnels(1).await;
    (client, proxy)
}

/// Nobody has the connection at the server's end until its first bytes come (nginx, `deferred`):
/// what is found there meanwhile is the listener, whose sequence numbers are nobody's.
#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deferred_server() {
    if !ready(Engine::Bypass) || !joins_applications() {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    set_defer_accept(&listener, 60);
    let (mut client, proxy) = tunnel_to(&listener, &[]).await;
    tokio::time::sleep(clock::STALL).await;
    client.send(pattern::at(0, 100)).await;
    let (stream, _) = tokio::task::block_in_place(|| listener.accept()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut server = Wire::over(stream, "server");
    server.check_pattern(0, 100).await;
    assert!(comes_to(&proxy, "to_upstream", "bypass").await);
    client.send(pattern::at(100, 3000)).await;
    assert_eq!(server.fate_of(100, 3000, clock::BOUND).await, Fate::Whole);
}

/// The server reads a part of a segment before its socket may be enrolled: the kernel would
/// hand that segment to `up_pass` as a whole.
#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_reader() {
    if !ready(Engine::Bypass) || !super::applications::fionread_needs_pass() {
        return;
    }
    let play = async |gone: &[Protection]| {
        let (mut client, listener, proxy) = unaccepted(gone).await;
        client.send(pattern::at(0, 3000)).await;
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 1000]).unwrap();
        // Until now it was in blocking mode, and left out because of that.
        stream.set_nonblocking(true).unwrap();
        let mut server = Wire::over(stream, "server");
        let bypassed = comes_to(&proxy, "to_upstream", "bypass").await;
        client.send(pattern::at(3000, 3000)).await;
        let fate = server.fate_of(1000, 5000, patience(gone)).await;
        (bypassed, fate)
    };
    let again = |(_, fate): &(bool, Fate)| matches!(fate, Fate::Wrong(_));
    // The program would skip what has been read: two lines of defence.
    let gone = [Protection::Quiet, Protection::Overlap];
    shown(&gone, play, |seen| *seen == (false, Fate::Whole), again).await;
}

/// Bulk from the first moment, and room for it behind: when the turn of a lane is over, there
/// is a segment that it has read in part.
#[req_test("REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_queue() {
    const SIZE: u64 = 16 * MEGABYTE;
    if !ready(Engine::Kernel) {
        return;
    }
    let Some(bed) = Bed::here(Topology::Roomy) else { return };
    let play = async |gone: &[Protection]| {
        let plan = Plan::new(&bed, Way::Upgrade, Engine::Kernel).unprotected(gone);
        let (origin, proxy) = plan.start();
        let mut client = plan.connect(&proxy).await;
        client.send(plan.request(&origin)).await;
        let mut server = origin.accept().await;
        server.read_head().await;
        // The proxy finds the answer and all of this at once.
        proxy.signal(Signal::STOP);
        eventually("the proxy to stop", async || is_stopped(proxy.pid())).await;
        server.send(SWITCHING).await;
        let sent = server.send_until_stalled(0, SIZE).await;
        assert!(sent > MEGABYTE, "only {sent} bytes wait for the proxy");
        proxy.signal(Signal::CONT);
        Way::Upgrade.opened(&mut client).await;
        client.fate_of(0, sent, patience(gone)).await
    };
    let again = |fate: &Fate| matches!(fate, Fate::Wrong(_));
    // As above.
    let gone = [Protection::Empty, Protection::Overlap];
    shown(&gone, play, |fate| *fate == Fate::Whole, again).await;
}

/// A server that repeats itself, cut anew: its segment begins with bytes that came before.
#[req_test("REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_is_old_in_part() {
    if !ready(Engine::Kernel) {
        return;
    }
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let play = async |gone: &[Protection]| {
        let plan = Plan::new(&bed, Way::Upgrade, Engine::Kernel).unprotected(gone);
        let mut tunnel = plan.open_settled().await;
        tunnel.server.send(pattern::at(0, 5000)).await;
        super::acknowledged(&tunnel.server).await;
        let mut server = tunnel.server.repeating(1000);
        server.send(pattern::at(4000, 3000)).await;
        server.send(pattern::at(7000, 3000)).await;
        tunnel.client.fate_of(0, 10_000, patience(gone)).await
    };
    let again = |fate: &Fate| *fate == Fate::Wrong(5000);
    shown(&[Protection::Overlap], play, |fate| *fate == Fate::Whole, again).await;
}

/// The same, with no memory to cut off what came before: bytes are lost, and whoever reads is not
/// told that all is well.
#[req_test("REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_cannot_be_cut() {
    if !ready(Engine::Kernel) {
        return;
    }
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let play = async |gone: &[Protection]| {
        let gone = [&[Protection::Probe, Protection::Cut], gone].concat();
        let plan = Plan::new(&bed, Way::Upgrade, Engine::Kernel).unprotected(&gone);
        let mut tunnel = plan.open_settled().await;
        tunnel.server.send(pattern::at(0, 5000)).await;
        super::acknowledged(&tunnel.server).await;
        let mut server = tunnel.server.repeating(1000);
        server.send(pattern::at(4000, 3000)).await;
        server.finish().await;
        tunnel.client.check_pattern(0, 5000).await;
        tunnel.client.expect_end().await
    };
    assert_eq!(play(&[]).await, End::Reset);
    assert_eq!(play(&[Protection::Lost]).await, End::Fin);
}

/// A `recv` that waits since before its socket was enrolled never sees what bypasses TCP.
#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_in_blocking_mode() {
    if !ready(Engine::Bypass) {
        return;
    }
    let play = async |gone: &[Protection]| {
        let (mut client, listener, proxy) = unaccepted(gone).await;
        // The proxy looks less and less often: nobody looks between these two calls.
        tokio::time::sleep(clock::STALL).await;
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(12 * clock::STALL)).unwrap();
        let reader = std::thread::spawn(move || {
            let read = stream.read(&mut [0; 10]).map_err(|error| error.kind());
            (read, stream)
        });
        let bypassed = comes_to(&proxy, "to_upstream", "bypass").await;
        client.send("x").await;
        let (read, _stream) = tokio::task::block_in_place(|| reader.join().unwrap());
        (bypassed, read)
    };
    let missed = |seen: &(bool, Result<usize, ErrorKind>)| seen.1 == Err(ErrorKind::WouldBlock);
    shown(&[Protection::Nonblocking], play, |seen| *seen == (false, Ok(1)), missed).await;
}

/// The server's socket is in a sockmap of somebody else's.
#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_socket() {
    if !ready(Engine::Bypass) {
        return;
    }
    let Some(others) = kernel() else { return };
    let play = async |gone: &[Protection]| {
        let (mut client, listener, proxy) = unaccepted(gone).await;
        let (stream, _) = listener.accept().unwrap();
        let _enrolled = others.enroll(Set::Apps, stream.as_fd()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut server = Wire::over(stream, "server");
        if !gone.is_empty() {
            comes_to(&proxy, "to_upstream", "bypass").await;
        } else {
            refused(&proxy).await;
        }
        match client.try_send(pattern::at(0, 5000)).await {
            Ok(()) => Ok(server.fate_of(0, 5000, patience(gone)).await),
            Err(error) => Err(error.kind()),
        }
    };
    type Sent = Result<Fate, ErrorKind>;
    let whole = |sent: &Sent| *sent == Ok(Fate::Whole);
    // Taken for enrolled, it is not found when bytes are redirected to it: two lines of
    // defence, the second of which still holds alone.
    assert!(whole(&play(&[Protection::Probe, Protection::Refusal]).await));
    let gone = [Protection::Refusal, Protection::Target];
    let denied = |sent: &Sent| *sent == Err(ErrorKind::PermissionDenied);
    shown(&gone, play, whole, denied).await;
}

/// Waits until the proxy says so of the server's socket.
async fn refused(proxy: &Proxy) {
    eventually("the server's socket to be refused", async || {
        let row = &proxy.tunnels().await[0];
        let reason = &row["engine"]["to_upstream"]["reason"];
        reason == "server: socket refused by the kernel"
    })
    .await;
}
