//! `cargo xtask test`: every test that this machine can run.
//!
//! Says first what will be skipped and why, and ends with the test runner's own summary.
//! Tests that need more than the machine has skip themselves; on a machine that has it
//! all, a skip is a failure, which the tests themselves see to.

use std::{
    env, fs,
    process::{Command, ExitCode},
    thread,
};

use anyhow::{Result, ensure};

use crate::{
    ebpf,
    workspace::{binary, call, cargo, exit, metadata, say},
};

/// Programs that some tests put beside or behind the proxy.
const PEERS: [(&str, &str); 8] = [
    ("curl", "tests with curl as the client"),
    ("nginx", "tests with nginx as the origin"),
    ("haproxy", "comparisons with HAProxy"),
    ("h2load", "nghttp2's clients of HTTP/2"),
    ("pebble", "tests with Pebble as the CA"),
    ("node", "tests with Node as an end of a tunnel"),
    ("python3", "tests with Python as an end of a tunnel"),
    ("java", "tests with Java as an end of a tunnel"),
];

/// Builds what the tests use, and runs them.
pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let bpf = ebpf::build_or_warn();
    let without = ["--bin", "underpass-without", "--features", "underpass/fault-injection"];
    call(with_tests().args(without))?;
    call(with_tests().args(["--bin", "underpass"]))?;
    for (what, reason) in skipped(bpf) {
        say(format_args!("test: skipped: {what}: {reason}"));
    }
    let tests = |what: &[&str]| -> Result<Command> {
        let mut tests = cargo();
        tests.arg("test").args(what).arg("--no-fail-fast").args(args);
        tests.env("UNDERPASS_BIN", binary("debug", "underpass")?);
        tests.env("UNDERPASS_WITHOUT_BIN", binary("debug", "underpass-without")?);
        if !bpf {
            // Justifies the skips of tests/kernel, which would fail on a capable machine.
            tests.env("UNDERPASS_TEST_WITHOUT_BPF", "1");
        }
        Ok(tests)
    };
    // All of it only: whoever names tests wants those, and once.
    let mut passed = true;
    if bpf && args.is_empty() && is_privileged() {
        say("test: the behaviour suite over local bypass of every connection");
        let mut over = tests(&["--workspace", "--test", "behaviour"])?;
        over.env("UNDERPASS_TEST_LOCAL_BYPASS", "1").arg("--");
        over.args(NOT_OVER_BYPASS.iter().flat_map(|test| ["--skip", test]));
        passed = over.status()?.success();
    }
    if !args.is_empty() {
        return exit(&mut tests(&["--workspace"])?);
    }
    // Those of the kernel path last: they take the longest, and what fails among them is then
    // what is read last.
    // Always the whole workspace, or its dependencies would be built with other features.
    let targets = test_targets()?;
    let mut others = vec!["--workspace", "--lib", "--bins"];
    others.extend(targets.iter().filter(|it| *it != KERNEL).flat_map(|it| ["--test", it]));
    for what in [&others[..], &["--workspace", "--doc"]] {
        passed &= tests(what)?.status()?.success();
    }
    let kernel = ["--workspace", "--test", KERNEL];
    let mut tunnels = tests(&kernel)?;
    let threads = thread::available_parallelism()?.get() * WAITING;
    tunnels.args(["tunnel::", "--", &format!("--test-threads={threads}")]);
    passed &= tunnels.status()?.success();
    let code = exit(tests(&kernel)?.args(["--", "--skip", "tunnel::"]))?;
    Ok(if passed { code } else { ExitCode::FAILURE })
}

/// Builds binaries of what the tests are built of: of the whole workspace, and beside a test, for
/// else dependencies have other features, and are built twice.
fn with_tests() -> Command {
    let mut build = cargo();
    build.args(["build", "--workspace", "--test", "no_buffering"]);
    build
}

/// Tests that run on each processor at a time where they wait for most of their time, for what must
/// not come.
const WAITING: usize = 2;

/// The tests of the kernel path.
const KERNEL: &str = "kernel";

/// Names of the targets of the workspace that are tests and nothing else.
fn test_targets() -> Result<Vec<String>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let names: Vec<String> =
        tests.filter_map(|target| Some(target["name"].as_str()?.to_owned())).collect();
    ensure!(names.iter().any(|name| name == KERNEL), "cargo metadata: no tests of the kernel path");
    Ok(names)
}

/// Tests that say what is only so without local bypass, or have nothing to do with it.
const NOT_OVER_BYPASS: [&str; 8] = [
    // Which engine a tunnel has, and why.
    "tunnel_table::an_open_tunnel_is_listed_with_its_bytes",
    "record::websocket::what_both_sides_say_is_recorded",
    // That the request behind a refused upgrade takes the same connection.
    "refused_upgrade::an_answer_without_101_is_plain_http",
    // That an idle connection is parked.
    "parking::",
    "parked_upstream::",
    // Over TLS nothing bypasses: they would be the same again.
    "acme::",
    "h2_peers::",
    "intercept::",
];

fn skipped(bpf: bool) -> Vec<(&'static str, String)> {
    let mut skipped = Vec::new();
    if !is_privileged() {
        let reason = "they need CAP_BPF and CAP_NET_ADMIN (root has them)".to_owned();
        skipped.push(("tests of the kernel path", reason));
    } else if !bpf {
        skipped.push(("tests of the kernel path", "no BPF programs (see above)".to_owned()));
    }
    for (program, tests) in PEERS {
        if !is_installed(program) {
            skipped.push((tests, format!("{program} is not installed")));
        }
    }
    skipped
}

/// Whether socket programs may be loaded: CAP_NET_ADMIN, and CAP_BPF or CAP_SYS_ADMIN.
fn is_privileged() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let has = |capability: u32| effective.unwrap_or_default() & (1 << capability) != 0;
    has(12) && (has(39) || has(21))
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Servers lie where only root's PATH looks.
    let servers = ["/usr/sbin".into(), "/sbin".into()];
    env::split_paths(&path).chain(servers).any(|folder| folder.join(program).is_file())
}
