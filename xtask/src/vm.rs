//! `cargo xtask vm-test`: `tests/kernel` on other kernels than this machine's.
//!
//! Each kernel of Debian's boots in qemu, without KVM, with an initial file system that holds
//! the test binary and what it needs; nothing is installed and nothing of this machine is
//! seen inside. What a kernel cannot do is a skip that `kernels.rs` has to know of.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use self::{
    guest::{Guest, which},
    kernels::{KERNELS, Kernel},
    lacking::Lacking,
    qemu::Machine,
    report::Report,
};
use crate::{
    ebpf,
    workspace::{bpf_dir, call, cargo, output, say},
};

mod archive;
mod chosen;
mod cpio;
mod guest;
mod kernels;
mod lacking;
mod qemu;
mod report;

/// What the waits of the tests are multiplied by (`tests/support/clock.rs`).
const TIME_SCALE: &str = "5";

/// Beyond the tests' own time: boot, `doctor`, power off.
const OVERHEAD: Duration = Duration::from_secs(90);

/// Kernels that run unless others are asked for, as in `cargo xtask ci`: one, for an emulated
/// processor takes a quarter of an hour for it on a busy machine. It is the oldest that has all
/// mechanisms but local bypass, whose tests run on the machine's own kernel.
const USUAL: [&str; 1] = ["6.1"];

/// What has to be installed, and the packages of Debian that have it.
const PROGRAMS: [(&str, &str); 2] = [(qemu::PROGRAM, "qemu-system-x86"), ("ip", "iproute2")];

/// How long the tests may take on one kernel, unless asked for otherwise: four minutes on two
/// idle processors, fourteen and a half on the slowest that were seen.
const MINUTES: u64 = 25;

/// Run tests/kernel on other kernels
#[derive(clap::Args)]
pub(crate) struct Args {
    /// 5.10, 6.1, 6.12, 7 (by default 6.1)
    kernels: Vec<String>,
    /// Succeed, and say so, where this machine lacks what it takes
    #[arg(long)]
    or_skip: bool,
    /// Fetch the newest packages, even where there are some
    #[arg(long)]
    update: bool,
    /// How long the tests may take on one kernel
    #[arg(long, default_value_t = MINUTES)]
    minutes: u64,
    /// Passed on to the test binary
    #[arg(last = true)]
    tests: Vec<String>,
}

impl Args {
    /// The usual kernels and tests, where the machine has what it takes.
    pub(crate) fn or_skip() -> Self {
        let (kernels, tests) = (Vec::new(), Vec::new());
        Self { kernels, or_skip: true, update: false, minutes: MINUTES, tests }
    }
}

/// Runs the kernels that are asked for.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match run_all(args) {
        Err(error) if args.or_skip && error.is::<Lacking>() => {
            say(format_args!("vm-test: skipped: other kernels: {error}"));
            Ok(ExitCode::SUCCESS)
        }
        ended => ended,
    }
}

fn run_all(args: &Args) -> Result<ExitCode> {
    let known = || KERNELS.each_ref().map(|kernel| kernel.name).join(", ");
    let named = |name: &str| {
        Kernel::named(name).with_context(|| format!("there is no {name}, but {}", known()))
    };
    let kernels = match &args.kernels[..] {
        [] => USUAL.iter().map(|name| named(name)).collect::<Result<Vec<_>>>()?,
        asked => asked.iter().map(|name| named(name)).collect::<Result<_>>()?,
    };
    for (program, package) in PROGRAMS {
        if which(program).is_none() {
            let lacking = format!("{program} is not installed (Debian: {package})");
            return Err(Lacking(lacking).into());
        }
    }
    let cache = cache()?;
    let suites = kernels.iter().map(|kernel| archive::fetch(kernel, &cache, args.update));
    let suites = lacking::all(suites)?;
    if !ebpf::build_or_warn() {
        return Err(Lacking("there are no BPF programs (see above)".to_owned()).into());
    }
    let begin = Instant::now();
    let binaries = Binaries::build(&cache)?;
    say(format_args!("vm-test: built in {} s", begin.elapsed().as_secs()));

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

    say(format_args!("vm-test: Linux {name}: {}", arguments.join(" ")));
    let begin = Instant::now();
    let (mut report, mut log) = (Report::default(), String::new());
    let ended = machine.run(bound + OVERHEAD, |line| {
        log.push_str(&format!("{:6.1} {line}\n", begin.elapsed().as_secs_f32()));
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
    let tests = if asked.is_empty() { chosen::tests() } else { asked.to_vec() };
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
    /// By one call, which builds what both are made of once.
    fn build(cache: &Path) -> Result<Self> {
        let build = || {
            let mut build = cargo();
            build.args(["build", "--workspace", "--bin", "underpass", "--test", "kernel"]);
            build.env("UNDERPASS_TEST_TIME_SCALE", TIME_SCALE);
            build
        };
        call(&mut build())?;
        let messages = output(build().args(["--quiet", "--message-format=json"]))?;
        let built = |name: &str| {
            let mut messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
            let path = messages.find_map(|message: serde_json::Value| {
                let path = message["executable"].as_str()?;
                (message["target"]["name"] == name).then(|| PathBuf::from(path))
            });
            stripped(&path.with_context(|| format!("cargo names no executable {name}"))?, cache)
        };
        Ok(Self { proxy: built("underpass")?, tests: built("kernel")? })
    }
}

/// A copy without what debuggers want, most of a binary: a machine unpacks it into its memory.
fn stripped(binary: &Path, cache: &Path) -> Result<PathBuf> {
    let copy = cache.join(binary.file_name().context("a binary has a name")?);
    // Comes with the C compiler, as the linker does.
    call(Command::new("strip").arg("-o").arg(&copy).arg(binary))?;
    Ok(copy)
}
