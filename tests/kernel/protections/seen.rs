//! What the kernel moves is seen: it is activity, and nobody wakes for it.

use std::{
    fs,
    time::{Duration, Instant},
};

use mantra_macros::req_test;
use proxy_ebpf::Protection;
use underpass_tests::{Bed, Engine, Fate, Plan, Tunnel, Way, bed::Topology};

use super::{patience, ready, shown};

/// Talks for longer than the idle timeout, past the proxy.
#[req_test("REQ-TUN-004")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_bypasses_us_is_activity() {
    if !ready(Engine::Bypass) {
        return;
    }
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let play = async |gone: &[Protection]| {
        let plan = Plan::new(&bed, Way::Connect, Engine::Bypass).unprotected(gone);
        let plan = plan.args(["--limit", "tunnel_idle_timeout=3s"]);
        let mut tunnel = plan.open_settled().await;
        for at in 0..15 {
            // What an application does; nothing is waited for.
            tokio::time::sleep(Duration::from_millis(400)).await;
            let byte = underpass_tests::pattern::at(at, 1);
            if tunnel.client.try_send(byte).await.is_err() {
                return Fate::Stuck(at);
            }
            match tunnel.server.fate_of(at, 1, patience(gone)).await {
                Fate::Whole => {}
                Fate::Ended(_, end) => return Fate::Ended(at, end),
                fate => return fate,
            }
        }
        Fate::Whole
    };
    let ended = |fate: &Fate| *fate != Fate::Whole;
    shown(&[Protection::Activity], play, |fate| !ended(fate), ended).await;
}

/// Times that a thread of the proxy has gone to sleep: once for each time that it was woken.
fn sleeps(process: u32, thread: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    let of = |path: std::path::PathBuf| -> Option<u64> {
        let name = fs::read_to_string(path.join("comm")).ok()?;
        let status = fs::read_to_string(path.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        name.starts_with(thread).then(|| line?.trim().parse().ok())?
    };
    threads.flatten().filter_map(|thread| of(thread.path())).sum()
}

/// The same messages through userspace are what it would be otherwise.
#[req_test("REQ-TUN-003", "REQ-TUN-004")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_bypasses_us_wakes_nobody() {
    const MESSAGES: u64 = 1000;
    if !ready(Engine::Bypass) {
        return;
    }
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let mut woken = Vec::new();
    for engine in [Engine::Bypass, Engine::Copy] {
        let Tunnel { mut client, mut server, origin: _origin, proxy } =
            Plan::new(&bed, Way::Connect, engine).open_settled().await;
        let (before, begin) = (sleeps(proxy.pid(), "worker"), Instant::now());
        for _ in 0..MESSAGES {
            client.send("ping").await;
            server.expect("ping").await;
            server.send("pong").await;
            client.expect("pong").await;
        }
        let times = sleeps(proxy.pid(), "worker") - before;
        println!("{engine}: woken {times} times for {MESSAGES} exchanges");
        woken.push((times, begin.elapsed().as_secs()));
        // Seen all the same.
        proxy.until_tunnels(1).await;
        let row = &proxy.tunnels().await[0];
        assert_eq!(row["bytes"]["to_upstream"], 4 * MESSAGES, "{row}");
    }
    // Its own clocks wake it, too, three times a second; and of two messages it may find both at once.
    let [(past, seconds), (through, _)] = woken[..] else { unreachable!() };
    assert!(past < MESSAGES / 20 + 5 * seconds && through > MESSAGES / 5, "{woken:?}");
}
