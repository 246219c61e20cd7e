//! What a kernel does not do rightly is found at start and not used; shown by a proxy that
//! lacks a protection, which is a kernel that lacks it, as far as can be seen.
//!
//! And none of this can happen to the proxy that people run.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use mantra_macros::req_test;
use proxy_ebpf::{Protection, without::VARIABLE};
use underpass_tests::{
    Engine, Origin, Proxy, Way,
    proxy::{binary, command_without},
};

use super::ready;

/// Protections whose absence the probe sees: the row of `doctor`, what depends on it, and
/// what the reason has to name.
const SEEN: [(Protection, &str, &str, &str); 6] = [
    (Protection::Order, "bypass_gate", "local_bypass", "overtaken"),
    (Protection::Bound, "bypass_slow_reader", "local_bypass", "does not read"),
    (Protection::Pass, "bypass_one_queue", "local_bypass", "short read"),
    (Protection::SkbOrder, "skb_slow_reader", "engine_kernel", "out of order"),
    (Protection::SkbBound, "skb_slow_reader", "engine_kernel", "does not read"),
    (Protection::Nudge, "skb_early_data", "engine_kernel", "did not arrive"),
];

#[req_test("REQ-TUN-002", "REQ-TUN-003")]
#[test]
fn doctor_sees_what_is_missing() {
    if !ready(Engine::Bypass) {
        return;
    }
    for (gone, row, mechanism, reason) in SEEN {
        in_one_of_some_starts(&format!("doctor without {gone:?}"), || {
            let output = command_without(&[gone]).args(["doctor", "--json"]).output().unwrap();
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let rows = report["mechanisms"].as_array().unwrap();
            let says_no = |name| {
                let row = rows.iter().find(|row| row["name"] == name).expect(name);
                row["reason"].as_str().is_some_and(|text| text.contains(reason))
            };
            says_no(row) && says_no(mechanism)
        });
    }
}

/// The probe takes some milliseconds of a machine that does much else during these tests: the
/// kernel's memory for TCP is short at times, which holds a sender back like the bound does.
fn in_one_of_some_starts(what: &str, seen: impl FnMut() -> bool) {
    assert!(std::iter::repeat_with(seen).take(3).any(|seen| seen), "not seen: {what}");
}

/// One line with the reason, and every byte by userspace.
#[req_test("REQ-TUN-002", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_not_used() {
    if !ready(Engine::Bypass) {
        return;
    }
    let missing = [Protection::Order, Protection::Bound];
    for (gone, reason) in missing.into_iter().zip(["overtaken", "does not read"]) {
        let origin = Origin::bind().await;
        let start = || Proxy::forward().args(["--local-bypass"]).unprotected(&[gone]).start();
        let mut proxy = start();
        in_one_of_some_starts("no local bypass", || {
            // Said before it listens, by a thread that need not have written it.
            let seen = (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                proxy.stderr().contains("no local bypass")
            });
            if !seen {
                proxy = start();
            }
            seen
        });
        let client = proxy.open(Way::Connect.request(&origin)).await;
        let mut server = origin.accept().await;
        let mut client = client;
        Way::Connect.opened(&mut client).await;
        tokio::join!(
            client.exchange_pattern(8 << 20, true, 8 << 20),
            server.exchange_pattern(8 << 20, true, 8 << 20),
        );
        let log = proxy.stderr();
        let told: Vec<_> = log.lines().filter(|line| line.contains("no local bypass")).collect();
        assert_eq!(told.len(), 1, "{log}");
        assert!(told[0].contains("WARN") && told[0].contains(reason), "{log}");
    }
}

#[req_test("REQ-TUN-002")]
#[test]
fn a_demand_for_what_is_missing_is_refused() {
    if !ready(Engine::Kernel) {
        return;
    }
    in_one_of_some_starts("a demand that is refused", || {
        let mut command = command_without(&[Protection::Nudge]);
        let address = ["--listen", "127.0.0.1:0", "--admin", "off"];
        command.arg("forward").args(address).args(["--splice", "kernel"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if !line.is_empty() {
            child.kill().unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        output.status.code() == Some(1)
            && text.contains("--splice kernel: bytes were sent and did not arrive")
    });
}

/// Nobody takes such a process for one to rely on, and nobody gets one by accident.
#[req_test("REQ-TUN-002")]
#[tokio::test]
async fn only_a_build_for_tests_leaves_anything_out() {
    let gone = [Protection::Early, Protection::Reset];
    let mut proxy = Proxy::forward().unprotected(&gone).start();
    proxy.log_line(&["WARN", "FAULT INJECTION", "without reset, early"]).await;
    proxy.term();
    assert!(proxy.exited().await.success());

    let start = |command: &mut std::process::Command| {
        let all = Protection::ALL.map(Protection::name).join(",");
        command.env(VARIABLE, all).arg("doctor").arg("--json").output().unwrap().stdout
    };
    let plain = std::process::Command::new(binary()).args(["doctor", "--json"]).output().unwrap();
    let told = start(&mut std::process::Command::new(binary()));
    assert_eq!(String::from_utf8_lossy(&told), String::from_utf8_lossy(&plain.stdout));

    let mut misspelt = command_without(&gone);
    let output = misspelt.env(VARIABLE, "odrer").arg("doctor").output().unwrap();
    assert!(!output.status.success());
}
