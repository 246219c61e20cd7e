//! Whatever of the kernel tier is missing: `auto` serves and says once what, `kernel`
//! refuses to start with the reason, and `doctor` shows both.
//!
//! The machine has it all; each test takes something away from the proxy alone.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, Output, Stdio},
};

use mantra_macros::req_test;
use underpass_tests::{
    Origin, Proxy, Wire, Without, proxy::binary, tunnel::Way, without::in_network_of,
};

use crate::machine::lacking;

/// What can be taken away so that no tunnel is moved in the kernel, and what the reason
/// has to name.
const NO_TIER: [(Without, &str); 8] = [
    (Without::Capabilities, "needs CAP_BPF and CAP_NET_ADMIN"),
    (Without::Perfmon, "needs CAP_PERFMON"),
    (Without::Bpf, "seccomp"),
    (Without::Maps, "failed to create map"),
    (Without::Attach, "Invalid argument"),
    (Without::TestRun, "Invalid argument"),
    (Without::Btf, "/sys/kernel/btf/vmlinux"),
    (Without::Host, "namespace"),
];

/// Whether this machine has what the tests take away; if not, says so.
fn ready() -> bool {
    let lacking = lacking();
    if let Some(reason) = &lacking {
        underpass_tests::skip::say(reason);
    }
    lacking.is_none()
}

/// Whether this kernel's local bypass works while nothing is taken away.
fn bypasses() -> bool {
    let output = underpass_tests::proxy::run(&["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let works = |name| text.lines().any(|row| row.starts_with(name) && row.ends_with("yes"));
    let works = works("local_bypass ") && works("engine_kernel ");
    if !works {
        underpass_tests::skip::say("FIONREAD taken away: this kernel has no local bypass anyway");
    }
    works
}

/// Runs the proxy to its end.
fn run(without: Without, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    without.confine(&mut command);
    command.args(args).stdin(Stdio::null()).output().expect("run underpass")
}

/// A forward proxy that has to do without something.
fn start(without: Without, args: &[&str]) -> Proxy {
    let listen = ["forward", "--listen", "127.0.0.1:0", "--admin", "off", "--workers", "1"];
    Proxy::command(&listen, 1).args(args.iter().copied()).without(without).start()
}

/// Ends it; lines of its log that are about what it lacks.
async fn complaints(mut proxy: Proxy) -> Vec<String> {
    proxy.term();
    assert!(proxy.exited().await.success());
    let text = proxy.stderr();
    let about = |line: &&str| ["userspace", "bypass", "redirects"].iter().any(|w| line.contains(w));
    text.lines().filter(about).map(str::to_owned).collect()
}

/// A tunnel carries bytes both ways, wherever the proxy is.
async fn serves(proxy: &Proxy) {
    const BYTES: u64 = 1 << 20;
    let address = proxy.addr();
    let (listener, client) = in_network_of(proxy.pid(), || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let client = TcpStream::connect(address).unwrap();
        client.set_nonblocking(true).unwrap();
        (listener, client)
    });
    let origin = Origin::over(listener);
    let mut client = Wire::over(client, "client");
    client.send(Way::Connect.request(&origin)).await;
    let mut server = Way::Connect.accept(&origin).await;
    Way::Connect.opened(&mut client).await;
    tokio::join!(
        client.exchange_pattern(BYTES, true, BYTES),
        server.exchange_pattern(BYTES, true, BYTES),
    );
}

#[req_test("REQ-TUN-002")]
#[tokio::test]
async fn auto_says_once_what_is_missing_and_serves() {
    if !ready() {
        return;
    }
    for (without, reason) in NO_TIER {
        let proxy = start(without, &[]);
        serves(&proxy).await;
        let said = complaints(proxy).await;
        assert_eq!(said.len(), 1, "without {without:?}: {said:?}");
        assert!(said[0].contains("INFO"), "without {without:?}: {said:?}");
        assert!(said[0].contains("userspace: "), "without {without:?}: {said:?}");
        assert!(said[0].contains(reason), "without {without:?}: {said:?}");
    }
}

#[req_test("REQ-TUN-003")]
#[tokio::test]
async fn local_bypass_that_is_not_to_be_had_is_one_warning() {
    if !ready() {
        return;
    }
    let fionread = bypasses().then_some((Without::Fionread, "ioctl"));
    let missing = NO_TIER.into_iter().chain(fionread);
    for (without, reason) in missing {
        let proxy = start(without, &["--local-bypass"]);
        serves(&proxy).await;
        let said = complaints(proxy).await;
        assert_eq!(said.len(), 1, "without {without:?}: {said:?}");
        assert!(said[0].contains("WARN"), "without {without:?}: {said:?}");
        assert!(said[0].contains("no local bypass"), "without {without:?}: {said:?}");
        assert!(said[0].contains(reason), "without {without:?}: {said:?}");
    }
}

#[req_test("REQ-TUN-002")]
#[test]
fn a_demand_for_the_kernel_is_refused_with_the_reason() {
    if !ready() {
        return;
    }
    let listen = ["forward", "--listen", "127.0.0.1:0", "--admin", "off", "--splice", "kernel"];
    for (without, reason) in NO_TIER {
        let output = run(without, &listen);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "without {without:?}: {text}");
        assert!(output.stdout.is_empty(), "without {without:?}: it listened");
        assert!(text.contains("--splice kernel: "), "without {without:?}: {text}");
        assert!(text.contains(reason), "without {without:?}: {text}");
    }
}

#[req_test("REQ-TUN-002")]
#[test]
fn doctor_says_no_with_the_reason_and_ends_well() {
    if !ready() {
        return;
    }
    for (without, reason) in NO_TIER {
        let output = run(without, &["doctor"]);
        assert!(output.status.success(), "without {without:?}: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.unwrap_or_else(|| panic!("without {without:?}: no {name}: {text}")).to_owned()
        };
        for name in ["local_bypass ", "engine_kernel "] {
            let row = row(name);
            assert!(row.contains("no because "), "without {without:?}: {row}");
            assert!(row.contains(reason), "without {without:?}: {row}");
        }
        assert!(row("engine_copy ").ends_with("yes"), "without {without:?}: {text}");
        assert!(row("engine_pipe ").ends_with("yes"), "without {without:?}: {text}");
    }
}

/// The redirect between own sockets does not need what local bypass needs.
#[req_test("REQ-TUN-003")]
#[test]
fn an_unknown_fionread_excludes_local_bypass_only() {
    if !ready() || !bypasses() {
        return;
    }
    let output = run(Without::Fionread, &["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["mechanisms"].as_array().unwrap();
    let available = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name);
        row.unwrap_or_else(|| panic!("no {name}: {report:#}"))["available"].as_bool().unwrap()
    };
    assert!(!available("fionread") && !available("local_bypass"), "{report:#}");
    assert!(available("bypass_redirect") && available("engine_kernel"), "{report:#}");
}
