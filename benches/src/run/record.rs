//! What the recorder costs: the same load with recording off, in the mode `zero_latency` and in
//! the mode `standard`, and through mitmproxy where it is installed.
//!
//! Three loads, each in rounds that take turns between the targets, so that what disturbs one
//! round disturbs all of them:
//! - small answers as fast as they come: requests/s, CPU time of the proxy per request;
//! - small answers on a fixed schedule: what is added to the time to the first byte;
//! - streams of 20 tokens a second each: what is added to a token, CPU time, memory.
//!
//! Every figure is beside that of `off` in the same round. Nothing here fails by a time; it fails
//! where the recorder lost what it had memory for, because then it did less work than it says.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use underpass::record::read::{Lookup, assemble};

use super::{Settings, pinned};
use crate::{
    launch,
    load::Load,
    peers::fanout,
    process,
    schedule::{Schedule, WATCH},
    server::Server,
    stats::{Percentiles, Table, median},
};

const CONNECTIONS: usize = 16;
const SCHEDULE: Schedule = Schedule { senders: 8, per_second: 1_000, watch: WATCH, blocking: true };

/// What is measured.
struct Target {
    name: &'static str,
    server: Server,
    /// Where it records.
    folder: Option<PathBuf>,
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Measures and prints.
///
/// # Errors
/// If a target does not start or answer, or a record is not whole.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    pinned::run()?;
    let origin = Server::origin()?;
    let mut targets = vec![
        target(settings, origin.address, "off", None)?,
        target(settings, origin.address, "zero_latency", Some("zero_latency"))?,
        target(settings, origin.address, "standard", Some("standard"))?,
    ];
    match mitmproxy(origin.address) {
        Ok(target) => targets.push(target),
        Err(reason) => println!("mitmproxy: not available: {reason:#}\n"),
    }
    let rounds = settings.size(5, 1);
    full(&targets, rounds, settings.size(Duration::from_secs(2), Duration::from_millis(500)))?;
    scheduled(&targets, rounds, settings.size(Duration::from_secs(3), Duration::from_millis(500)))?;
    let (streams, time) =
        settings.size((1_000, Duration::from_secs(4)), (100, Duration::from_secs(1)));
    tokens(&targets, rounds, streams, time)?;
    told(&targets)
}

fn target(
    settings: &Settings,
    origin: SocketAddr,
    name: &'static str,
    mode: Option<&str>,
) -> anyhow::Result<Target> {
    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = mode.map(|_| scratch(name));
    let section = match (&folder, mode) {
        (Some(folder), Some(mode)) => format!(
            "[record]\ndirectory = \"{}\"\nmode = \"{mode}\"\nmax_total_bytes = \"4GiB\"\n",
            folder.display()
        ),
        _ => String::new(),
    };
    let config = format!(
        "workers = 1\ndrain_timeout = \"1s\"\n[log]\naccess = \"off\"\n{section}\
         [[listener]]\nname = \"web\"\naddress = \"{listen}\"\n\
         [[route]]\nupstream = \"origin\"\n\
         [[upstream]]\nname = \"origin\"\nservers = [\"{origin}\"]\nmax_idle_connections = 1024\n"
    );
    let server = Server::underpass_with(settings, listen, &config)?;
    Ok(Target { name, server, folder })
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("underpass-bench-record-{}-{name}", std::process::id()))
}

/// mitmproxy's `mitmdump`, which records what it streams to a file.
fn mitmproxy(origin: SocketAddr) -> anyhow::Result<Target> {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|folder| folder.join("mitmdump")).find(|p| p.exists())
    });
    let program = found.context("no mitmdump (PyPI: mitmproxy)")?;
    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = scratch("mitmproxy");
    std::fs::create_dir_all(&folder)?;
    let mut command = Command::new(&program);
    command
        .args(["--quiet", "--mode"])
        .arg(format!("reverse:http://{origin}"))
        .args(["--listen-host", "127.0.0.1", "--listen-port"])
        .arg(listen.port().to_string())
        .args(["--set", "stream_large_bodies=1", "--set", "connection_strategy=lazy", "-w"])
        .arg(folder.join("flows"))
        .arg("--set")
        .arg(format!("confdir={}", folder.display()))
        .stdin(Stdio::null());
    let name = program.display().to_string();
    let child = launch::listening(command, &name, "none", &None, listen, Signal::KILL)?;
    let server = Server::of_child("mitmproxy", listen, child);
    Ok(Target { name: "mitmproxy", server, folder: Some(folder) })
}

/// The figures of every target: `measure` gives those of one round.
fn in_turns<const N: usize>(
    targets: &[Target],
    rounds: usize,
    measure: impl Fn(&Target) -> anyhow::Result<[f64; N]>,
) -> anyhow::Result<Vec<Vec<[f64; N]>>> {
    let mut figures = vec![Vec::new(); targets.len()];
    for round in 0..rounds {
        for turn in 0..targets.len() {
            let at = (round + turn) % targets.len();
            let figure = measure(&targets[at]);
            figures[at].push(figure.with_context(|| targets[at].name.to_owned())?);
        }
    }
    Ok(figures)
}

fn column<const N: usize>(rounds: &[[f64; N]], column: usize) -> f64 {
    median(rounds.iter().map(|round| round[column]))
}

/// The middle of what each round says beside `off` in the same round.
fn beside<const N: usize>(
    figures: &[Vec<[f64; N]>],
    target: usize,
    column: usize,
    compare: impl Fn(f64, f64) -> f64,
) -> f64 {
    let pairs = figures[target].iter().zip(&figures[0]);
    median(pairs.map(|(one, off)| compare(one[column], off[column])))
}

fn full(targets: &[Target], rounds: usize, time: Duration) -> anyhow::Result<()> {
    println!(
        "record, small answers at full load, {CONNECTIONS} connections, {time:?} a round, \
         {rounds} rounds, medians; ratios to `off` in the same round\n"
    );
    let figures = in_turns(targets, rounds, |target| {
        let mut load = Load::open(target.server.address, CONNECTIONS, "/")?;
        let before = process::cpu(target.server.pid)?;
        let done = load.run(time)?;
        let used = process::cpu(target.server.pid)? - before;
        let requests = done.requests as f64;
        Ok([requests / done.elapsed.as_secs_f64(), used.total().as_secs_f64() * 1e6 / requests])
    })?;
    let mut table = Table::new(["target", "requests/s", "ratio", "CPU µs/request", "ratio"]);
    for (at, target) in targets.iter().enumerate() {
        let ratio = |column| format!("{:.3}", beside(&figures, at, column, |one, off| one / off));
        table.row([
            target.name.to_owned(),
            format!("{:.0}", column(&figures[at], 0)),
            ratio(0),
            format!("{:.1}", column(&figures[at], 1)),
            ratio(1),
        ]);
    }
    table.print();
    Ok(())
}

fn scheduled(targets: &[Target], rounds: usize, time: Duration) -> anyhow::Result<()> {
    println!(
        "record, time to the first byte (µs), {} requests/s on schedule, {time:?} a round, \
         {rounds} rounds, medians\n",
        SCHEDULE.per_second
    );
    let figures = in_turns(targets, rounds, |target| {
        let mut samples = SCHEDULE.ask(target.server.address, time)?;
        Ok(Percentiles::of(&mut samples).columns())
    })?;
    let mut table = Table::new(["target", "p50", "p99", "added p50", "added p99"]);
    for (at, target) in targets.iter().enumerate() {
        let added = |column| format!("{:+.0}", beside(&figures, at, column, |one, off| one - off));
        table.row([
            target.name.to_owned(),
            format!("{:.0}", column(&figures[at], 0)),
            format!("{:.0}", column(&figures[at], 2)),
            added(0),
            added(2),
        ]);
    }
    table.print();
    Ok(())
}

fn tokens(targets: &[Target], rounds: usize, streams: u32, time: Duration) -> anyhow::Result<()> {
    println!(
        "record, {streams} streams of 20 tokens/s, {time:?} a round, {rounds} rounds, medians; \
         a token's way in µs, CPU as a share of one core, memory at its peak\n"
    );
    let warm_up = Duration::from_millis(500);
    let figures = in_turns(targets, rounds, |target| {
        process::reset_peak(target.server.pid)?;
        let pids = &target.server.pids;
        let mut heard =
            fanout::listen(target.server.address, streams, (warm_up, time), (&[], pids))?;
        let [p50, _, p99] = Percentiles::of(&mut heard.delays).columns();
        let cpu = heard.used.proxy.as_secs_f64() / heard.elapsed.as_secs_f64();
        let peak = process::peak_rss(target.server.pid)? as f64 / f64::from(1 << 20);
        Ok([p50, p99, cpu * 100.0, peak])
    })?;
    let mut table = Table::new([
        "target",
        "p50",
        "p99",
        "added p50",
        "added p99",
        "CPU %",
        "ratio",
        "peak MiB",
    ]);
    for (at, target) in targets.iter().enumerate() {
        let added = |column| format!("{:+.0}", beside(&figures, at, column, |one, off| one - off));
        table.row([
            target.name.to_owned(),
            format!("{:.0}", column(&figures[at], 0)),
            format!("{:.0}", column(&figures[at], 1)),
            added(0),
            added(1),
            format!("{:.1}", column(&figures[at], 2)),
            format!("{:.3}", beside(&figures, at, 2, |one, off| one / off)),
            format!("{:.0}", column(&figures[at], 3)),
        ]);
    }
    table.print();
    Ok(())
}

/// What has been recorded, and that it is whole.
fn told(targets: &[Target]) -> anyhow::Result<()> {
    let mut table = Table::new(["target", "records", "whole", "missing bytes", "unrecorded"]);
    let mut lost = 0;
    for target in targets.iter().filter(|target| target.name != "mitmproxy") {
        let Some(folder) = &target.folder else { continue };
        let (records, unrecorded) = read(folder)?;
        let missing: u64 = records.iter().map(|record| record.missing_bytes()).sum();
        // Those of streams that the bench has left are ended by the client.
        let whole = records.iter().filter(|record| record.is_whole()).count();
        table.row([
            target.name.to_owned(),
            records.len().to_string(),
            whole.to_string(),
            missing.to_string(),
            unrecorded.to_string(),
        ]);
        lost += missing + unrecorded;
    }
    table.print();
    ensure!(
        lost == 0,
        "the recorder had not the memory for this load: it did less work than asked"
    );
    Ok(())
}

fn read(folder: &Path) -> anyhow::Result<(Vec<underpass::record::read::Record>, u64)> {
    // The last batch is written within this time.
    std::thread::sleep(Duration::from_millis(500));
    let (records, unrecorded, damage) = assemble(folder, Lookup::Heads)?;
    ensure!(damage.unreadable == 0, "{} lines cannot be read", damage.unreadable);
    Ok((records, unrecorded))
}
