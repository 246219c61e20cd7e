//! The proxy under steady load for as long as is asked for: what it holds must not grow,
//! and must be gone when the load is.
//!
//! Three parts. A short load, so that everything that is made once has been made, and calm:
//! the base. Then the load, whose first quarter (five minutes at most) is warm-up; what is
//! sampled after it is fitted. Then calm again, in which everything has to come back to the
//! base. Ends with an error if something is wrong (`soak/verdict.rs` says what).

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tokio::sync::watch;
use underpass::splice::IDLE_PIPES;

use super::Settings;
use crate::{
    lines::Lines,
    soak::{
        fit::Point,
        load::{self, Outcome, Targets},
        sample::{Gauge, Sample},
        stage::{IDLE, Stage},
        verdict::{self, Trend},
    },
    stats::{Table, figure},
    tunnel::{netns::Namespace, spawn},
};

/// What is made once is made within this.
const PRIME: Duration = Duration::from_secs(4);
/// Pools are empty after their idle time; threads of runtimes end after ten seconds.
const CALM: Duration = Duration::from_secs(30);
const WARM_UP_MOST: Duration = Duration::from_secs(300);
/// Between two samples: the longest, and how many there are of a short run.
const STEP_MOST: Duration = Duration::from_secs(5);
const SAMPLES: u32 = 120;
/// Between two lines about where it stands.
const TELL: Duration = Duration::from_secs(60);

/// What the command line said about a soak.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long the load is, in minutes.
    pub minutes: f64,
    /// Worker threads of the proxy.
    pub workers: usize,
    /// Share of the usual rate.
    pub rate: f64,
    /// With `--local-bypass`.
    pub local_bypass: bool,
    /// All samples as lines of JSON.
    pub json: Option<PathBuf>,
}

/// Runs it and prints what came of it.
///
/// # Errors
/// If something does not start, or is not as it has to be.
pub fn run(settings: &Settings, options: &Options) -> anyhow::Result<()> {
    ensure!(options.minutes > 0.0 && options.rate > 0.0, "--minutes and --rate are above 0");
    let time = Duration::try_from_secs_f64(options.minutes * 60.0).context("--minutes")?;
    spawn::descriptors();
    if let Err(reason) = Namespace::enter_new() {
        println!("soak: on the host's own loopback interface: {reason:#}");
    }
    let stage = Stage::start(settings, options.workers, options.local_bypass)?;
    let mut json = Lines::new(options.json.as_deref())?;
    let warm_up = (time / 4).min(WARM_UP_MOST);
    println!(
        "soak: {:.1} minutes at {:.0} % of the usual rate, {} worker(s); {:.0} s of it warm-up",
        options.minutes,
        100.0 * options.rate,
        options.workers,
        warm_up.as_secs_f64()
    );
    Running::start(stage.targets, options.rate)?.end_after(PRIME)?;
    let base = calm(&stage)?;

    let running = Running::start(stage.targets, options.rate)?;
    let samples = watch_it(&stage, time, &mut json)?;
    let outcomes = running.stop()?;
    let pipes = (options.workers * IDLE_PIPES * 2) as f64;
    let ended = Instant::now();
    let end = loop {
        thread::sleep(Duration::from_secs(1));
        let end = stage.watched.sample()?;
        if verdict::left(&base, &end, pipes).is_empty() || ended.elapsed() > CALM {
            break end;
        }
    };

    let steady: Vec<&(Duration, Sample)> =
        samples.iter().filter(|(at, _)| *at >= warm_up).collect();
    let trends: Vec<Trend> = base.keys().map(|&gauge| trend(gauge, &steady)).collect();
    println!("\nTrends of {} samples after the warm-up\n", steady.len());
    print_trends(&trends, &base, &end);
    print_outcomes(&outcomes, time);
    if let Some(memory) = trends.iter().find(|trend| trend.gauge == Gauge::Anon) {
        println!(
            "Growth is the Theil-Sen slope, with its interval of 95 %. Memory fails where the lower \
             end is above 1 % per hour; a run of this length can see {:.1} % per hour and more.",
            100.0 * memory.visible()
        );
    }
    println!(
        "{:.0} s after the load everything had to be back at its base.",
        ended.elapsed().as_secs_f64()
    );
    let faults = verdict::faults(&trends, &outcomes, (&base, &end), pipes);
    if !faults.is_empty() {
        bail!("soak: {}", faults.join("; "));
    }
    println!("soak: nothing grows, nothing is left.");
    Ok(())
}

/// A load in a thread of its own.
struct Running {
    stop: watch::Sender<bool>,
    thread: thread::JoinHandle<anyhow::Result<Vec<Outcome>>>,
}

impl Running {
    fn start(targets: Targets, rate: f64) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let load = move || load::run(targets, rate, stopped);
        let thread = thread::Builder::new().name("load".into()).spawn(load)?;
        Ok(Self { stop, thread })
    }

    fn end_after(self, time: Duration) -> anyhow::Result<Vec<Outcome>> {
        thread::sleep(time);
        self.stop()
    }

    fn stop(self) -> anyhow::Result<Vec<Outcome>> {
        self.stop.send(true).ok().context("the load has ended by itself")?;
        self.thread.join().ok().context("the load panicked")?
    }
}

/// What it holds when nothing is asked of it.
fn calm(stage: &Stage) -> anyhow::Result<Sample> {
    let started = Instant::now();
    thread::sleep(IDLE);
    let mut last = None;
    loop {
        let sample = stage.watched.sample()?;
        let of = |gauge| sample.get(&gauge).copied().unwrap_or(0.0);
        let busy = of(Gauge::Tunnels) + of(Gauge::ToOrigin) > 0.0;
        if !busy && last == Some(of(Gauge::Sockets)) {
            return Ok(sample);
        }
        ensure!(started.elapsed() < CALM, "connections stay after the load: {sample:?}");
        last = Some(of(Gauge::Sockets));
        thread::sleep(Duration::from_secs(2));
    }
}

fn watch_it(
    stage: &Stage,
    time: Duration,
    json: &mut Lines,
) -> anyhow::Result<Vec<(Duration, Sample)>> {
    let step = (time / SAMPLES).clamp(Duration::from_millis(250), STEP_MOST);
    let (started, mut told) = (Instant::now(), Instant::now());
    let mut samples = Vec::new();
    while started.elapsed() < time {
        thread::sleep(step);
        let (at, sample) = (started.elapsed(), stage.watched.sample()?);
        json.write(&serde_json::json!({ "seconds": at.as_secs_f64(), "sample": sample }))?;
        if told.elapsed() >= TELL {
            told = Instant::now();
            let of = |gauge| sample.get(&gauge).copied().unwrap_or(0.0);
            println!(
                "{:>6.0} s: {:.2} MB anonymous, {} sockets, {} tunnels",
                at.as_secs_f64(),
                of(Gauge::Anon) / 1e6,
                of(Gauge::Sockets),
                of(Gauge::Tunnels)
            );
        }
        samples.push((at, sample));
    }
    Ok(samples)
}

fn trend(gauge: Gauge, samples: &[&(Duration, Sample)]) -> Trend {
    let points: Vec<Point> = samples
        .iter()
        .filter_map(|(at, sample)| Some((at.as_secs_f64() / 3600.0, *sample.get(&gauge)?)))
        .collect();
    Trend::of(gauge, &points)
}

fn print_trends(trends: &[Trend], base: &Sample, end: &Sample) {
    let mut table = Table::new([
        "what",
        "base",
        "under load",
        "growth per hour",
        "from",
        "to",
        "% per hour",
        "at the end",
    ]);
    for trend in trends {
        let (scale, unit) = trend.gauge.unit();
        let of = |sample: &Sample| figure(sample.get(&trend.gauge).map(|value| value / scale));
        let slope = |of: fn(&crate::soak::fit::Slope) -> f64| {
            figure(trend.slope.as_ref().map(|slope| of(slope) / scale))
        };
        let share = trend.slope.map(|slope| 100.0 * trend.share(slope.per_hour));
        table.row([
            format!("{}{unit}", trend.gauge.name()),
            of(base),
            figure(Some(trend.level / scale)),
            slope(|slope| slope.per_hour),
            slope(|slope| slope.low),
            slope(|slope| slope.high),
            figure(share.filter(|_| !unit.is_empty())),
            of(end),
        ]);
    }
    table.print();
}

fn print_outcomes(outcomes: &[Outcome], time: Duration) {
    let mut table = Table::new(["load", "done", "a second", "failed"]);
    for outcome in outcomes {
        table.row([
            outcome.name.to_owned(),
            outcome.done.to_string(),
            figure(Some(outcome.done as f64 / time.as_secs_f64())),
            outcome.failed.to_string(),
        ]);
    }
    table.print();
}
