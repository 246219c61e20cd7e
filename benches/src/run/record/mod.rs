//! What the recorder costs: by itself, and the same load with recording off, in the mode
//! `zero_latency` and in the mode `standard`, and through mitmproxy where it is installed.
//!
//! Each load is in rounds that take turns between the targets, so that what disturbs one round
//! disturbs all of them:
//! - `full`: small answers as fast as they come: requests/s, CPU time of the proxy per request;
//! - `schedule`: small answers at a fixed rate: what is added to the time to the first byte;
//! - `tokens`: streams of 20 tokens a second each: what is added to a token, CPU time, memory;
//! - `bulk`: answers of 100 MB.
//!
//! Every figure is beside that of `off` in the same round. Nothing here fails by a time; it fails
//! where the recorder lost what it had memory for, because then it did less work than it says.
//! `bulk` is the exception: there a disk that is slower than memory loses, and how much is told.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;

use super::{Options, Settings, pinned};
use crate::{
    client::{self, Client},
    load::Load,
    only::Only,
    peers::fanout,
    process,
    schedule::{Schedule, WATCH},
    server::Server,
    stats::{Percentiles, Table},
};

mod alone;
mod gaps;
mod targets;
mod turns;

use gaps::gaps;
use targets::Target;
use turns::{Turns, in_turns};

const PARTS: [&str; 6] = ["pinned", "alone", "full", "schedule", "tokens", "bulk"];
const CONNECTIONS: usize = 16;
/// A rate at which nothing queues, and one that a busy proxy has.
const SCHEDULES: [Schedule; 2] = [
    Schedule { senders: 8, per_second: 1_000, watch: WATCH, blocking: true },
    Schedule { senders: 16, per_second: 10_000, watch: Duration::ZERO, blocking: false },
];
const BULK: usize = 100_000_000;
const MIB: f64 = (1 << 20) as f64;

/// Measures and prints.
///
/// # Errors
/// If a target does not start or answer, or a record is not whole.
pub fn run(settings: &Settings, options: &Options) -> anyhow::Result<()> {
    let parts = PARTS.map(str::to_owned).to_vec();
    let only = Only::parse(options.only.as_deref().unwrap_or(""), &[("part", parts)])?;
    let wants = |part| only.wants("part", part);
    if wants("pinned") {
        pinned::run()?;
    }
    if wants("alone") {
        alone::run(settings)?;
    }
    if !PARTS[2..].iter().any(|part| wants(part)) {
        return Ok(());
    }
    let origin = Server::origin()?;
    let targets = targets::all(settings, origin.address)?;
    let rounds = options.rounds.unwrap_or(settings.size(5, 1)).max(1);
    let time = |full: f64, quick: f64| {
        Duration::from_secs_f64(options.seconds.unwrap_or(settings.size(full, quick)).max(0.1))
    };
    if wants("full") {
        full(&targets, rounds, time(2.0, 0.5))?;
    }
    for schedule in SCHEDULES.into_iter().filter(|_| wants("schedule")) {
        scheduled(&targets, schedule, rounds, time(3.0, 0.5))?;
    }
    if wants("tokens") {
        tokens(&targets, rounds, settings.size(1_000, 100), time(4.0, 1.0))?;
    }
    gaps::told(&targets)?;
    if wants("bulk") {
        bulk(&targets, settings.size(rounds.min(3), 1))?;
    }
    Ok(())
}

/// A folder for records of this run.
fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("underpass-bench-record-{}-{name}", std::process::id()))
}

/// CPU time of the thread that writes records.
fn writer(target: &Target) -> Duration {
    process::threads(target.server.pid).get(alone::WRITER).copied().unwrap_or_default()
}

fn full(targets: &[Target], rounds: usize, time: Duration) -> anyhow::Result<()> {
    println!(
        "record, small answers at full load, {CONNECTIONS} connections, {time:?} a round, \
         {rounds} rounds, medians; ratios to `off` in the same round; CPU time of the proxy in µs \
         for each request, and the part of it that is the writer's\n"
    );
    let figures = in_turns(targets, rounds, |target| {
        process::reset_peak(target.server.pid)?;
        let mut load = Load::open(target.server.address, CONNECTIONS, "/")?;
        let (before, writer_before) = (process::cpu(target.server.pid)?, writer(target));
        let done = load.run(time)?;
        let used = process::cpu(target.server.pid)? - before;
        let written = writer(target).saturating_sub(writer_before);
        let requests = done.requests as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / requests;
        let peak = process::peak_rss(target.server.pid)? as f64 / MIB;
        Ok([requests / done.elapsed.as_secs_f64(), each(used.total()), each(written), peak])
    })?;
    let columns = ["target", "requests/s", "ratio", "CPU µs", "ratio", "writer µs", "peak MiB"];
    let mut table = Table::new(columns);
    for (at, target) in targets.iter().enumerate() {
        table.row([
            target.name.to_owned(),
            format!("{:.0}", figures.of(at, 0)),
            format!("{:.3}", figures.ratio(at, 0)),
            format!("{:.1}", figures.of(at, 1)),
            format!("{:.3}", figures.ratio(at, 1)),
            format!("{:.2}", figures.of(at, 2)),
            format!("{:.0}", figures.of(at, 3)),
        ]);
    }
    table.print();
    Ok(())
}

fn scheduled(
    targets: &[Target],
    schedule: Schedule,
    rounds: usize,
    time: Duration,
) -> anyhow::Result<()> {
    println!(
        "record, time to the first byte (µs), {} requests/s on schedule, {time:?} a round, \
         {rounds} rounds, medians; `unasked`: the share that was still to be asked after twice that \
         time\n",
        schedule.per_second
    );
    let figures = in_turns(targets, rounds, |target| {
        let (mut samples, unasked) = schedule.ask_until(target.server.address, time, time * 2)?;
        ensure!(!samples.is_empty(), "no time for a request");
        let all = samples.len() as f64 + unasked as f64;
        let [p50, _, p99] = Percentiles::of(&mut samples).columns();
        Ok([p50, p99, unasked as f64 / all * 100.0])
    })?;
    latencies(targets, &figures, "unasked %", |at| format!("{:.1}", figures.of(at, 2)));
    Ok(())
}

/// A table of p50 and p99, the first two columns, and of one more.
fn latencies<const N: usize>(
    targets: &[Target],
    figures: &Turns<N>,
    more: &str,
    cell: impl Fn(usize) -> String,
) {
    let mut table = Table::new(["target", "p50", "p99", "added p50", "added p99", more]);
    for (at, target) in targets.iter().enumerate() {
        table.row([
            target.name.to_owned(),
            format!("{:.0}", figures.of(at, 0)),
            format!("{:.0}", figures.of(at, 1)),
            format!("{:+.0}", figures.added(at, 0)),
            format!("{:+.0}", figures.added(at, 1)),
            cell(at),
        ]);
    }
    table.print();
}

fn tokens(targets: &[Target], rounds: usize, streams: u32, time: Duration) -> anyhow::Result<()> {
    println!(
        "record, {streams} streams of 20 tokens/s, {time:?} a round, {rounds} rounds, medians; \
         a token's way in µs\n"
    );
    let warm_up = Duration::from_millis(500);
    let figures = in_turns(targets, rounds, |target| {
        process::reset_peak(target.server.pid)?;
        let before = process::rss(target.server.pid)?;
        let pids = &target.server.pids;
        let writer_before = writer(target);
        let mut heard =
            fanout::listen(target.server.address, streams, (warm_up, time), (&[], pids))?;
        let written = writer(target).saturating_sub(writer_before);
        let came = heard.delays.len() as f64;
        let [p50, _, p99] = Percentiles::of(&mut heard.delays).columns();
        let share = |used: Duration, of: Duration| used.as_secs_f64() / of.as_secs_f64() * 100.0;
        let peak = process::peak_rss(target.server.pid)?;
        Ok([
            p50,
            p99,
            came / heard.elapsed.as_secs_f64() / f64::from(streams),
            share(heard.used.proxy, heard.elapsed),
            share(written, heard.elapsed + warm_up),
            peak as f64 / MIB,
            (peak - before).max(0) as f64 / 1024.0 / f64::from(streams),
        ])
    })?;
    latencies(targets, &figures, "tokens/s each", |at| format!("{:.2}", figures.of(at, 2)));
    println!(
        "The same: CPU as a share of one core, and the part of it that is the writer's; memory at \
         its peak, and what of it is more than before, for each stream\n"
    );
    let mut table = Table::new(["target", "CPU %", "ratio", "writer %", "peak MiB", "KiB each"]);
    for (at, target) in targets.iter().enumerate() {
        table.row([
            target.name.to_owned(),
            format!("{:.1}", figures.of(at, 3)),
            format!("{:.3}", figures.ratio(at, 3)),
            format!("{:.1}", figures.of(at, 4)),
            format!("{:.0}", figures.of(at, 5)),
            format!("{:.0}", figures.of(at, 6)),
        ]);
    }
    table.print();
    Ok(())
}

fn bulk(targets: &[Target], rounds: usize) -> anyhow::Result<()> {
    println!(
        "record, one answer of {BULK} bytes, {rounds} rounds, medians; what is not in the record \
         because the disk is slower than that\n"
    );
    let figures = in_turns(targets, rounds, |target| {
        process::reset_peak(target.server.pid)?;
        let missing = |target: &Target| match &target.folder {
            Some(folder) if target.is_ours => anyhow::Ok(gaps(folder)?.bytes as f64),
            _ => Ok(0.0),
        };
        let missing_before = missing(target)?;
        let before = process::cpu(target.server.pid)?;
        let started = std::time::Instant::now();
        let mut client = Client::connect(target.server.address)?;
        let answer = client.exchange(&client::get(&format!("/stream/{BULK}")))?;
        ensure!(answer.bytes > BULK, "a body was cut short");
        let rate = BULK as f64 / 1e6 / started.elapsed().as_secs_f64();
        // What waits is written meanwhile.
        std::thread::sleep(Duration::from_millis(500));
        let used = process::cpu(target.server.pid)? - before;
        let peak = process::peak_rss(target.server.pid)? as f64 / MIB;
        let lost = missing(target)? - missing_before;
        Ok([rate, used.total().as_secs_f64() * 1e3, peak, lost / BULK as f64 * 100.0])
    })?;
    let columns = ["target", "MB/s", "ratio", "CPU ms", "ratio", "peak MiB", "missing %"];
    let mut table = Table::new(columns);
    for (at, target) in targets.iter().enumerate() {
        let missing = match &target.folder {
            Some(_) if target.is_ours => format!("{:.1}", figures.of(at, 3)),
            _ => String::new(),
        };
        table.row([
            target.name.to_owned(),
            format!("{:.0}", figures.of(at, 0)),
            format!("{:.3}", figures.ratio(at, 0)),
            format!("{:.0}", figures.of(at, 1)),
            format!("{:.3}", figures.ratio(at, 1)),
            format!("{:.0}", figures.of(at, 2)),
            missing,
        ]);
    }
    table.print();
    Ok(())
}
