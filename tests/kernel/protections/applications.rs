//! What applications see of their sockets while these are enrolled, and after that.
//!
//! Nothing protects one that reads by splice(2) but that local bypass is off unless asked
//! for, and that `doctor` says so; both are shown.

use std::io::{ErrorKind, Read};

use mantra_macros::req_test;
use proxy_ebpf::Protection;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, SpliceFlags, pipe_with, splice},
};
use tokio::io::AsyncReadExt;
use underpass_tests::{
    Bed, End, Engine, Fate, Plan, Tunnel, Way, Wire, bed::Topology, clock,
    engine::joins_applications, eventually, pattern, proxy, skip,
};

use super::{MORE, patience, ready, shown};

async fn open(engine: Engine, gone: &[Protection]) -> Tunnel {
    let bed = Bed::new(Topology::V4).expect("IPv4 loopback");
    Plan::new(&bed, Way::Connect, engine).unprotected(gone).open_settled().await
}

/// The row of `doctor`.
fn row(name: &str) -> serde_json::Value {
    let output = proxy::run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    let rows = report["mechanisms"].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == name).expect("the row").clone()
}

/// Whether `up_pass` is in use on this kernel.
pub(super) fn fionread_needs_pass() -> bool {
    let needs = row("fionread")["note"].is_string();
    if !needs {
        skip::say("protections of FIONREAD: this kernel needs none");
    }
    needs
}

/// What FIONREAD came to, for one that reads what it says.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Everything,
    /// 0, though there is a byte.
    Nothing,
}

/// Reads `size` bytes, each time as many as FIONREAD tells of.
fn sized_reads(server: Wire, size: u64) -> Told {
    let stream = server.into_stream().into_std().unwrap();
    let bound = Timespec { tv_sec: clock::BOUND.as_secs() as i64, tv_nsec: 0 };
    let mut got = 0;
    while got < size {
        let ready = poll(&mut [PollFd::new(&stream, PollFlags::IN)], Some(&bound)).unwrap();
        assert_eq!(ready, 1, "nothing to read after {got} bytes");
        let there = rustix::io::ioctl_fionread(&stream).unwrap();
        if there == 0 {
            match stream.peek(&mut [0]) {
                Ok(1..) => return Told::Nothing,
                // Something was there for the kernel only.
                _ => continue,
            }
        }
        let mut bytes = vec![0; there as usize];
        (&stream).read_exact(&mut bytes).unwrap();
        pattern::check(got, &bytes);
        got += there;
    }
    Told::Everything
}

/// The receiver has bytes that were redirected and, behind them, others that were not.
#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fionread() {
    if !ready(Engine::Bypass) || !fionread_needs_pass() {
        return;
    }
    let play = async |gone: &[Protection]| {
        let Tunnel { mut client, server, origin: _origin, proxy: _proxy } =
            open(Engine::Bypass, gone).await;
        let sent = client.send_until_stalled(0, MORE).await;
        tokio::task::block_in_place(|| sized_reads(server, sent))
    };
    let stands = |told: &Told| *told == Told::Nothing;
    shown(&[Protection::Pass], play, |told| *told == Told::Everything, stands).await;
}

/// The same for a reader that takes a read that comes short for the last one until there is an
/// event, as tokio does.
#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_comes_short() {
    const PIECE: u64 = 32 * 1024;
    // No multiple of what a reader asks for: its last read comes short.
    const REST: u64 = 30_001;
    if !ready(Engine::Bypass) || !joins_applications() {
        return;
    }
    let play = async |gone: &[Protection]| {
        let Tunnel { mut client, server, origin: _origin, proxy } =
            open(Engine::Bypass, gone).await;
        let figures = async || {
            let row = proxy.tunnels().await.remove(0);
            let kernel = row["engine"]["to_upstream"]["kernel"].clone();
            let bytes = kernel["bytes"].as_u64().expect("bytes");
            let passed = kernel["passed_for_bound"].as_u64().expect("messages");
            (bytes, row["bytes"]["to_upstream"].as_u64().expect("bytes") - bytes, passed)
        };
        let mut sent = 0;
        while figures().await.2 == 0 {
            assert!(sent < MORE, "there is no bound");
            client.send_rest(sent, sent + PIECE).await;
            sent += PIECE;
        }
        // When there is room for it, the last piece follows by TCP.
        let (bypassed, ..) = figures().await;
        let mut server = server.into_stream();
        let mut got = vec![0; (bypassed - REST) as usize];
        server.read_exact(&mut got).await.expect("what has bypassed");
        pattern::check(0, &got);
        eventually("the rest by TCP", async || figures().await.1 == sent - bypassed).await;
        tokio::time::sleep(clock::STALL / 4).await;
        let mut server = Wire::new(server, "server");
        server.fate_of(bypassed - REST, sent - bypassed + REST, patience(gone)).await
    };
    let stands = |fate: &Fate| matches!(fate, Fate::Stuck(_));
    shown(&[Protection::Pass], play, |fate| *fate == Fate::Whole, stands).await;
}

/// Bytes that splice(2) takes from the server's socket, of 100 that the client has sent.
async fn spliced(engine: Engine) -> Result<usize, rustix::io::Errno> {
    let Tunnel { mut client, server, origin: _origin, proxy: _proxy } = open(engine, &[]).await;
    client.send(pattern::at(0, 100)).await;
    let stream = server.into_stream().into_std().unwrap();
    let bound = Timespec { tv_sec: clock::BOUND.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&stream, PollFlags::IN)], Some(&bound)), Ok(1));
    let (_out, pipe) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    splice(&stream, None, &pipe, None, 100, SpliceFlags::NONBLOCK)
}

#[req_test("REQ-TUN-002", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splice_is_what_doctor_says() {
    // Not enrolled, which is what is so unless asked for otherwise.
    assert_eq!(spliced(Engine::Copy).await, Ok(100));
    if !ready(Engine::Bypass) {
        return;
    }
    assert_eq!(spliced(Engine::Kernel).await, Ok(100));
    let works = row("splice_read")["available"] == true;
    let taken = spliced(Engine::Bypass).await;
    println!("of 100 redirected bytes splice(2) takes {taken:?}");
    assert_eq!(taken == Ok(100), works, "{taken:?}");
}

/// The tunnel has ended, and the server has not read yet.
#[req_test("REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_stay() {
    const SIZE: u64 = 100_000;
    if !ready(Engine::Bypass) {
        return;
    }
    let play = async |gone: &[Protection]| {
        let Tunnel { mut client, mut server, origin: _origin, proxy } =
            open(Engine::Bypass, gone).await;
        client.send_rest(0, SIZE).await;
        server.finish().await;
        client.expect_fin().await;
        client.finish().await;
        proxy.until_tunnels(0).await;
        let fate = server.fate_of(0, SIZE, patience(gone)).await;
        (fate, server.fate_of(0, 1, patience(gone)).await)
    };
    let clean = Fate::Ended(0, End::Fin);
    let lost = |fates: &(Fate, Fate)| matches!(fates.0, Fate::Ended(..));
    shown(&[Protection::Entry], play, |fates| *fates == (Fate::Whole, clean), lost).await;
}

/// The server has closed: what is sent to it all the same is TCP's to refuse, later.
#[req_test("REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_gone() {
    if !ready(Engine::Bypass) {
        return;
    }
    let play = async |gone: &[Protection]| {
        let Tunnel { mut client, server, origin: _origin, proxy: _proxy } =
            open(Engine::Bypass, gone).await;
        drop(server);
        client.expect_fin().await;
        client.try_send("x").await.map_err(|error| error.kind())
    };
    let denied = |sent: &Result<(), ErrorKind>| *sent == Err(ErrorKind::PermissionDenied);
    shown(&[Protection::Target], play, Result::is_ok, denied).await;
}
