//! `cargo xtask vm-test`: `tests/kernel` on other kernels than this machine's.
//!
//! Each kernel of Debian's boots in qemu, without KVM, with an initial file system that holds
//! the test binary and what it needs; nothing is installed and nothing of this machine is
//! seen inside. What a kernel cannot do is a skip that `kernels.rs` has to know of.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use self::{
    guest::Guest,
    kernels::{KERNELS, Kernel},
    qemu::Machine,
    report::Report,
};
use crate::{
    ebpf,
    workspace::{bpf_dir, call, cargo, output, say},
};

mod archive;
mod cpio;
mod guest;
mod kernels;
mod qemu;
mod report;

/// Profile of what runs inside (`Cargo.toml`).
const PROFILE: &str = "emulated";

/// What the waits of the tests are multiplied by (`tests/support/clock.rs`).
const TIME_SCALE: &str = "5";

/// Beyond the tests' own time: boot, `doctor`, power off.
const OVERHEAD: Duration = Duration::from_secs(90);

/// What runs unless tests are asked for by name: the programs themselves, and one tunnel for
/// each engine and place of the peers. Programs load in seconds on an emulated processor,
/// and each test loads them anew: the whole of tests/kernel would take hours.
const CHOSEN: [&str; 5] = [
    "leftovers::",
    "log::",
    "sockets::",
    "unavailable::",
    "the_engine_that_was_asked_for_moves_the_bytes",
];

/// Run tests/kernel on other kernels
#[derive(clap::Args)]
pub(crate) struct Args {
    /// 5.10, 6.1, 6.12, 7 (by default 6.1 and the newest)
    kernels: Vec<String>,
    /// Fetch the newest packages, even where there are some
    #[arg(long)]
    update: bool,
    /// How long the tests may take on one kernel
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Passed on to the test binary
    #[arg(last = true)]
    tests: Vec<String>,
}

/// Runs the kernels that are asked for.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let kernels = if args.kernels.is_empty() {
        vec![&KERNELS[1], &KERNELS[KERNELS.len() - 1]]
    } else {
        let known = || KERNELS.each_ref().map(|kernel| kernel.name).join(", ");
        let named = |name: &String| {
            Kernel::named(name).with_context(|| format!("there is no {name}, but {}", known()))
        };
        args.kernels.iter().map(named).collect::<Result<_>>()?
    };
    qemu::is_installed()?;
    let cache = cache()?;
    let suites = kernels.iter().map(|kernel| archive::fetch(kernel, &cache, args.update));
    let suites = suites.collect::<Result<Vec<_>>>()?;
    ebpf::build()?;
    let binaries = Binaries::build()?;

    let mut sums = Vec::new();
    for (kernel, suite) in kernels.into_iter().zip(&suites) {
        sums.push(boot(kernel, suite, &binaries, args, &cache)?);
    }
    for sum in &sums {
        say(format_args!("vm-test: {}", sum.text));
    }
    Ok(if sums.iter().all(|sum| sum.is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Sum {
    text: String,
    is_good: bool,
}

fn boot(
    kernel: &Kernel,
    suite: &archive::Unpacked,
    binaries: &Binaries,
    args: &Args,
    cache: &Path,
) -> Result<Sum> {
    let name = kernel.name;
    let bound = Duration::from_secs(args.minutes * 60);
    let arguments = arguments(&args.tests);
    let guest =
        Guest { proxy: &binaries.proxy, tests: &binaries.tests, arguments: &arguments, bound };
    let file = |what: &str| cache.join(format!("{name}.{what}"));
    let machine = Machine {
        image: suite.image()?,
        initramfs: file("initramfs"),
        console: file("console.log"),
    };
    fs::write(&machine.initramfs, guest.initramfs(suite)?)?;

    say(format_args!("vm-test: Linux {name}, these tests only: {}", arguments.join(" ")));
    let begin = Instant::now();
    let (mut report, mut log) = (Report::default(), String::new());
    let ended = machine.run(bound + OVERHEAD, |line| {
        log.push_str(line);
        log.push('\n');
        if report.line(line) {
            eprintln!("[{name}] {line}");
        }
    });
    fs::write(file("tests.log"), log)?;

    let mut faults: Vec<_> = ended.err().map(|error| format!("{error:#}")).into_iter().collect();
    faults.extend(report.faults(kernel));
    faults.extend(machine.faults().iter().map(|line| format!("the kernel says: {line}")));
    for fault in &faults {
        say(format_args!("vm-test: Linux {name}: {fault}"));
    }
    if !faults.is_empty() {
        say(format_args!("vm-test: Linux {name}: its console is in {}", machine.console.display()));
    }
    let verdict = if faults.is_empty() { "ok" } else { "FAILED" };
    let seconds = begin.elapsed().as_secs();
    let text = format!("Linux {name} {verdict} in {seconds} s: {}", report.summary());
    Ok(Sum { text, is_good: faults.is_empty() })
}

/// Of the test binary.
fn arguments(asked: &[String]) -> Vec<String> {
    let chosen = || CHOSEN.map(str::to_owned).to_vec();
    let tests = if asked.is_empty() { chosen() } else { asked.to_vec() };
    [vec!["--test-threads=2".to_owned()], tests].concat()
}

fn cache() -> Result<PathBuf> {
    let cache = bpf_dir("vm");
    fs::create_dir_all(&cache)?;
    Ok(cache)
}

struct Binaries {
    proxy: PathBuf,
    tests: PathBuf,
}

impl Binaries {
    fn build() -> Result<Self> {
        let proxy = ["build", "--profile", PROFILE, "--package", "underpass", "--bin", "underpass"];
        let tests = ["test", "--profile", PROFILE, "--package", "underpass-tests"];
        let tests = [&tests[..], &["--test", "kernel", "--no-run"]].concat();
        Ok(Self { proxy: built(&proxy)?, tests: built(&tests)? })
    }
}

/// Builds, and asks cargo what it has built.
fn built(args: &[&str]) -> Result<PathBuf> {
    let build = || {
        let mut build = cargo();
        build.args(args).env("UNDERPASS_TEST_TIME_SCALE", TIME_SCALE);
        build
    };
    call(&mut build())?;
    let messages = output(build().args(["--quiet", "--message-format=json"]))?;
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    };
    messages.lines().rev().find_map(executable).context("cargo names no executable")
}
