//! An application that wants to be woken for more than a byte (SO_RCVLOWAT) stays out of local
//! bypass, or gets everything by TCP from then on: it is woken when so much is there.

use std::{
    io::{self, ErrorKind, Read},
    net::TcpStream,
    time::{Duration, Instant},
};

use mantra_macros::req_test;
use proxy_ebpf::Protection;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use underpass_tests::{
    Bed, Engine, Plan, Tunnel, Way, Wire, bed::Topology, clock, engine::joins_applications,
    eventually, pattern, wire::set_low_water,
};

use super::{comes_to, enrolment::unaccepted, ready, shown};

/// Bytes that it wants to be woken for.
const MARK: u64 = 1000;

/// Fewer; twice as many are enough.
const FEWER: u64 = 600;

/// What it sees.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// Whether it is woken for fewer.
    early: bool,
    /// What a read finds while there are fewer.
    fewer: Result<usize, ErrorKind>,
    /// Whether it is woken for as many, or for the end.
    enough: bool,
    end: bool,
    /// Whether every byte was right.
    right: bool,
}

fn is_woken(stream: &TcpStream, bound: Duration) -> bool {
    let bound =
        Timespec { tv_sec: bound.as_secs() as i64, tv_nsec: i64::from(bound.subsec_nanos()) };
    let mut events = [PollFd::new(stream, PollFlags::IN)];
    tokio::task::block_in_place(|| poll(&mut events, Some(&bound)) == Ok(1))
}

/// Reads what there is.
fn read(mut stream: &TcpStream, got: &mut Vec<u8>) -> Result<usize, ErrorKind> {
    let mut room = [0; 4096];
    let n = stream.read(&mut room).map_err(|error: io::Error| error.kind())?;
    got.extend_from_slice(&room[..n]);
    Ok(n)
}

/// Fewer bytes than the server wants to be woken for, then enough, then few and the end. `by_tcp`:
/// the few are there when they are in TCP's queue.
async fn watch(mut client: Wire, server: TcpStream, by_tcp: bool) -> Seen {
    let mut got = Vec::new();
    client.send(pattern::at(0, FEWER)).await;
    if by_tcp {
        let came = || rustix::io::ioctl_fionread(&server) == Ok(FEWER);
        eventually("the few to come", async || came()).await;
    }
    let early = is_woken(&server, clock::STALL);
    let fewer = read(&server, &mut got);
    let more = MARK - FEWER + got.len() as u64;
    client.send(pattern::at(FEWER, more)).await;
    let enough = is_woken(&server, clock::BOUND);
    while read(&server, &mut got).is_ok_and(|n| n > 0) {}
    let sent = FEWER + more;
    client.send(pattern::at(sent, 10)).await;
    client.finish().await;
    let end = is_woken(&server, clock::BOUND);
    let begin = Instant::now();
    while read(&server, &mut got) != Ok(0) {
        assert!(begin.elapsed() < clock::BOUND, "no end after {} bytes", got.len());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let right = got.len() as u64 == sent + 10 && pattern::first_wrong(0, &got).is_none();
    Seen { early, fewer, enough, end, right }
}

/// Whatever a read of fewer finds: it is woken when it wants to be.
fn holds(seen: &Seen) -> bool {
    !seen.early && seen.enough && seen.end && seen.right
}

/// It says so only when it is enrolled.
#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_enrolled_socket() {
    if !ready(Engine::Bypass) || !joins_applications() {
        return;
    }
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let play = async |gone: &[Protection]| {
        let plan = Plan::new(&bed, Way::Connect, Engine::Bypass).unprotected(gone);
        let Tunnel { client, server, origin: _origin, proxy: _proxy } = plan.open_settled().await;
        let server = server.into_stream().into_std().unwrap();
        set_low_water(&server, MARK as i32);
        watch(client, server, false).await
    };
    // What an application must not do (docs/tunnels.md).
    let fewer = play(&[]).await.fewer;
    assert_eq!(fewer, Err(ErrorKind::WouldBlock));
    shown(&[Protection::LowWater], play, holds, |seen| seen.early).await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-003", "REQ-TUN-004")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_socket_that_is_to_be_enrolled() {
    if !ready(Engine::Bypass) {
        return;
    }
    let play = async |gone: &[Protection]| {
        let (client, listener, proxy) = unaccepted(gone).await;
        let (server, _) = listener.accept().unwrap();
        set_low_water(&server, MARK as i32);
        server.set_nonblocking(true).unwrap();
        if gone.is_empty() {
            eventually("the server's socket to be left out", async || {
                let row = &proxy.tunnels().await[0];
                row["engine"]["to_upstream"]["reason"] == "server: SO_RCVLOWAT is set"
            })
            .await;
        } else {
            comes_to(&proxy, "to_upstream", "bypass").await;
        }
        watch(client, server, gone.is_empty()).await
    };
    let as_without = |seen: &Seen| holds(seen) && seen.fewer == Ok(FEWER as usize);
    shown(&[Protection::LowWater], play, as_without, |seen| seen.early).await;
}
