//! `cargo xtask cache-tests`: the public suite of tests for HTTP caches, by way of a built proxy.
//!
//! The suite (github.com/http-tests/cache-tests) is fetched by git into target/, at one commit, and
//! what it needs of npm by npm, at one version; `cache-tests/run.mjs` is both of its ends, on
//! loopback. Its required tests say what a cache must not get wrong. Of the optimal ones and the
//! checks, which are matters of choice, it is counted how many pass.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::workspace::{binary, bpf_dir, call, cargo, output, root, say};

/// Where the suite is, and what of it is run.
const SUITE: &str = "https://github.com/http-tests/cache-tests";
const COMMIT: &str = "b55b8bda3dbb8c927c04e85bd8d496a8caa3e4ba";

/// What its client sends interim answers with, and nothing else.
const PACKAGE: &str = "undici@7.4.0";

/// Required tests that do not pass, with the reason. Whatever else fails is a fault.
const NOT_PASSED: [(&str, &str); 2] = [
    ("headers-store-Set-Cookie", "answers that set cookies are not stored unless a route says so"),
    ("headers-store-Transfer-Encoding", "the suite sends a field that frames no body: 502"),
];

/// What the suite is asked behind. `CDN-Cache-Control` and stale answers are off by default, and
/// whole groups of tests are about them.
const CONFIGURATION: &str = "[cache]\nall_routes = true\n[cache.rules]\ncdn_cache_control = true\n\
    heuristic_ratio = 0.1\nstale_if_error = \"1h\"\n";

/// How long the proxy may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Run the public tests for HTTP caches against the proxy
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A git repository that has the suite, where the public one cannot be reached
    #[arg(long, default_value = SUITE)]
    from: String,
    /// Build the proxy in release
    #[arg(long)]
    release: bool,
}

/// What tests are, in the suite's words.
const KINDS: [&str; 3] = ["required", "optimal", "check"];

/// Shared caches whose results are published with the suite.
const PEERS: [&str; 5] = ["apache", "nginx", "squid", "trafficserver", "varnish"];

/// What came of each test, by its name.
type Results = BTreeMap<String, Judged>;

/// What came of one test.
#[derive(Debug, Deserialize)]
struct Judged {
    kind: String,
    outcome: String,
    why: String,
}

/// A process of ours, ended when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let profile = if args.release { "release" } else { "debug" };
    let mut build = cargo();
    build.args(["build", "--package", "underpass", "--bin", "underpass"]);
    call(if args.release { build.arg("--release") } else { &mut build })?;
    let folder = bpf_dir("cache-tests");
    fs::create_dir_all(&folder)?;
    let suite = fetch(&args.from, &folder)?;
    // Where node looks for it: above the suite, whose own list has much that is not needed.
    if !folder.join("node_modules/undici").is_dir() {
        let install = ["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"];
        let mut npm = Command::new("npm");
        call(npm.current_dir(&folder).args(install).args(["--prefix", "."]).arg(PACKAGE))?;
    }
    let results = ask(&suite, &binary(profile, "underpass")?, &folder)?;
    let mut published = node(&suite, "published");
    let published = output(published.args(PEERS))?;
    let published: BTreeMap<String, Results> = serde_json::from_str(&published)?;
    for (name, results) in &published {
        say(format_args!("cache-tests: {name}, as published: {}", passes(results)));
    }
    judge(&results)
}

/// How many tests of each kind pass.
fn passes(results: &Results) -> String {
    let passes = KINDS.map(|kind| {
        let passed = |judged: &&Judged| judged.kind == kind && judged.passes();
        format!("{} {kind}", results.values().filter(passed).count())
    });
    passes.join(", ")
}

/// The suite at its commit.
fn fetch(from: &str, folder: &Path) -> Result<PathBuf> {
    let suite = folder.join("suite");
    let git = || {
        let mut git = Command::new("git");
        git.arg("-C").arg(&suite);
        git
    };
    let there = suite.is_dir() && output(git().args(["rev-parse", "HEAD"])).is_ok_and(is_it);
    if !there {
        fs::create_dir_all(&suite)?;
        call(git().args(["init", "--quiet"]))?;
        call(git().args(["fetch", "--quiet", "--depth", "1", from, COMMIT]))
            .context("the suite cannot be fetched: `--from` takes another place of it")?;
        call(git().args(["checkout", "--quiet", "--force", "--detach", COMMIT]))?;
    }
    Ok(suite)
}

fn is_it(head: String) -> bool {
    head.trim() == COMMIT
}

/// One of the things that `run.mjs` does, in the suite's folder.
fn node(suite: &Path, what: &str) -> Command {
    let script = root().join("xtask/cache-tests/run.mjs");
    let mut node = Command::new("node");
    node.arg("--no-warnings").current_dir(suite).arg(script).arg(what);
    node
}

/// Starts the suite's server, the proxy before it and the suite's client before that.
fn ask(suite: &Path, proxy: &Path, folder: &Path) -> Result<Results> {
    let mut server = Running(node(suite, "serve").stdout(Stdio::piped()).spawn().context("node")?);
    let mut port = String::new();
    let out = server.0.stdout.take().context("the server's output")?;
    BufReader::new(out).read_line(&mut port)?;
    let port: u16 = port.trim().parse().context("the suite's server does not listen")?;
    // Free when it is asked for, and with luck a moment later as well.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let file = folder.join("underpass.toml");
    let more = format!(
        "[[listener]]\nname = \"web\"\naddress = \"{address}\"\n[[route]]\nupstream = \"suite\"\n\
         [[upstream]]\nname = \"suite\"\nservers = [\"127.0.0.1:{port}\"]\n"
    );
    fs::write(&file, format!("{CONFIGURATION}{more}"))?;
    let mut command = Command::new(proxy);
    command.args(["run", "--config"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let mut proxy = Running(command.spawn()?);
    let deadline = Instant::now() + START_LIMIT;
    while TcpStream::connect(address).is_err() {
        ensure!(proxy.0.try_wait()?.is_none(), "the proxy has ended");
        ensure!(Instant::now() < deadline, "the proxy does not listen");
        thread::sleep(Duration::from_millis(50));
    }
    say("cache-tests: asking");
    let results = output(node(suite, "ask").arg(format!("http://{address}")))?;
    Ok(serde_json::from_str(&results)?)
}

/// Counts, and compares what is required with what is known.
fn judge(results: &Results) -> Result<()> {
    for kind in KINDS {
        let of_kind = || results.values().filter(|judged| judged.kind == kind);
        let passed = of_kind().filter(|judged| judged.passes()).count();
        let mut others = BTreeMap::<&str, usize>::new();
        for judged in of_kind().filter(|judged| !judged.passes()) {
            *others.entry(&judged.outcome).or_default() += 1;
        }
        let others: Vec<_> = others.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let of = of_kind().count();
        say(format_args!("cache-tests: {kind}: {passed} of {of} ({})", others.join(", ")));
    }
    let faults = faults(results, &NOT_PASSED);
    for fault in &faults {
        say(format_args!("cache-tests: {fault}"));
    }
    if !faults.is_empty() {
        bail!("cache-tests: {} faults", faults.len());
    }
    Ok(())
}

impl Judged {
    fn passes(&self) -> bool {
        matches!(self.outcome.as_str(), "pass" | "yes")
    }
}

/// Required tests that are not as `known` says.
fn faults(results: &Results, known: &[(&str, &str)]) -> Vec<String> {
    let is_known = |id: &str| known.iter().any(|(known, _)| *known == id);
    let required = results.iter().filter(|(_, judged)| judged.kind == "required");
    let mut faults: Vec<_> = required
        .filter(|(id, judged)| !judged.passes() && !is_known(id))
        .map(|(id, judged)| format!("{id}: {} {}", judged.outcome, judged.why))
        .collect();
    for (id, _) in known {
        match results.get(*id) {
            None => faults.push(format!("{id}: there is no such test any more")),
            Some(judged) if judged.passes() => faults.push(format!("{id}: it passes by now")),
            Some(_) => {}
        }
    }
    if results.is_empty() {
        faults.push("no test was run".to_owned());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_tests_fail_only_as_is_known() {
        let judged = |kind: &str, outcome: &str| Judged {
            kind: kind.to_owned(),
            outcome: outcome.to_owned(),
            why: "so".to_owned(),
        };
        let results: Results = [
            ("good", judged("required", "pass")),
            ("bad", judged("required", "fail")),
            ("known", judged("required", "setup_fail")),
            ("cured", judged("required", "pass")),
            ("choice", judged("optimal", "optional_fail")),
        ]
        .into_iter()
        .map(|(id, judged)| (id.to_owned(), judged))
        .collect();
        let known = [("known", "why"), ("cured", "why"), ("gone", "why")];
        assert_eq!(
            faults(&results, &known),
            ["bad: fail so", "cured: it passes by now", "gone: there is no such test any more",]
        );
        assert_eq!(faults(&BTreeMap::new(), &[]), ["no test was run"]);
    }
}
