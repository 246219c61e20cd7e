//! One measurement: a row through an engine.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    client::{self, Client},
    idle::Idle,
    load::{self, Load},
    meter::{Reading, Used},
    process,
    schedule::{Schedule, WATCH},
    server::Server,
    stats::Percentiles,
};

use super::{
    cells::{Figures, Measure, Row},
    fanout,
};

/// Kept connections that load in bulk, and connections that are made at once.
const AT_ONCE: usize = 8;
const BODY_BYTES: usize = 1_000_000;
const STREAM_BYTES: usize = 100_000_000;
/// Connections that share a schedule.
const SENDERS: u32 = 16;
/// At more than so many requests a second, watching the clock would be a CPU by itself.
const WATCHED_PER_SECOND: u32 = 2_000;
const MB: f64 = 1e6;

/// Whom it goes through, and how long it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path<'a> {
    pub(crate) origin: &'a Server,
    /// `None` where nothing stands between.
    pub(crate) proxy: Option<&'a Server>,
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
}

/// Requests a second that nobody answers: each is due before the one in front of it is answered.
const TOO_MANY_PER_SECOND: u32 = 1_000_000;

/// How many requests a second are answered over the connections of a schedule, each of them asked
/// again as soon as it has its answer.
///
/// # Errors
/// If something is not answered.
pub(crate) fn most_per_second(address: SocketAddr, time: Duration) -> anyhow::Result<f64> {
    let schedule = Schedule {
        senders: SENDERS,
        per_second: TOO_MANY_PER_SECOND,
        watch: Duration::ZERO,
        blocking: false,
    };
    let (samples, _) = schedule.ask_until(address, time, time)?;
    Ok(samples.len() as f64 / time.as_secs_f64())
}

/// Measures one row.
///
/// # Errors
/// If something is not answered as it has to be; for a [`Row::Load`], whose rate has to be found
/// first.
pub(crate) fn measure(row: Row, path: Path<'_>) -> anyhow::Result<Figures> {
    let address = path.address();
    match row {
        Row::Small(connections) => {
            let mut load = Load::open(address, connections as usize, "/")?;
            path.work(|time| Ok(load.run(time)?.requests as f64))
        }
        Row::New => path.work(|time| Ok(load::fresh(address, AT_ONCE, time)?.requests as f64)),
        Row::Body => {
            let mut load = Load::open(address, AT_ONCE, &format!("/stream/{BODY_BYTES}"))?;
            path.work(|time| Ok(load.run(time)?.requests as f64 * BODY_BYTES as f64 / MB))
        }
        Row::Stream => {
            let mut client = Client::connect(address)?.nonblocking()?;
            let request = client::get(&format!("/stream/{STREAM_BYTES}"));
            path.work(|_| Ok(client.exchange(&request)?.bytes as f64 / MB))
        }
        Row::Sse(streams) => path.listen(streams),
        Row::Latency(per_second) => path.on_schedule(per_second),
        Row::Load(_) => bail!("a rate is not known yet"),
        Row::Memory(connections) => {
            let proxy = path.proxy.context("memory is that of a proxy")?;
            memory(proxy, connections as usize, path.time)
        }
    }
}

impl Path<'_> {
    fn address(&self) -> SocketAddr {
        self.proxy.unwrap_or(self.origin).address
    }

    /// Processes that take part, but not as the proxy: we are one.
    fn peers(&self) -> [u32; 2] {
        [std::process::id(), self.origin.pid]
    }

    fn pids(&self) -> &[u32] {
        self.proxy.map_or(&[], |proxy| &proxy.pids)
    }

    /// Runs `work`, which says how many operations it has done.
    fn work(
        self,
        mut work: impl FnMut(Duration) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Figures> {
        let user = || self.pids().iter().map(|&pid| Ok(process::cpu(pid)?.user)).sum();
        let user_before: anyhow::Result<Duration> = user();
        let (before, started) = (Reading::now(&self.peers(), self.pids())?, Instant::now());
        let operations = work(self.time)?;
        let elapsed = started.elapsed();
        let used = Reading::now(&self.peers(), self.pids())?.since(&before);
        let userspace = user()?.saturating_sub(user_before?);
        let mut figures = costs(used, elapsed, operations);
        if self.proxy.is_some() {
            figures.values.insert(Measure::CpuUser, userspace.as_secs_f64() * 1e6 / operations);
        }
        Ok(figures)
    }

    fn listen(self, streams: u32) -> anyhow::Result<Figures> {
        let clock = (self.warm_up, self.time);
        let pids = (self.peers(), self.pids());
        let mut heard = fanout::listen(self.address(), streams, clock, (&pids.0, pids.1))?;
        let tokens = heard.delays.len() as f64;
        let mut figures = costs(heard.used, heard.elapsed, tokens);
        figures.delays(&mut heard.delays);
        Ok(figures)
    }

    fn on_schedule(self, per_second: u32) -> anyhow::Result<Figures> {
        let watch = if per_second <= WATCHED_PER_SECOND { WATCH } else { Duration::ZERO };
        let schedule = Schedule { senders: SENDERS, per_second, watch, blocking: false };
        let mut samples = Vec::new();
        let mut figures = self.work(|time| {
            samples = schedule.ask(self.address(), time)?;
            Ok(samples.len() as f64)
        })?;
        ensure!(!samples.is_empty(), "no time for a request");
        figures.delays(&mut samples);
        Ok(figures)
    }
}

impl Figures {
    fn delays(&mut self, samples: &mut [Duration]) {
        let of = Percentiles::of(samples);
        let delays = [(Measure::P50, of.p50), (Measure::P99, of.p99), (Measure::P999, of.p999)];
        self.values.extend(delays);
    }
}

fn costs(used: Used, elapsed: Duration, operations: f64) -> Figures {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / operations;
    let mut values = std::collections::BTreeMap::from([
        (Measure::Rate, operations / elapsed.as_secs_f64()),
        (Measure::CpuAll, each(used.counted)),
        (Measure::CpuMachine, each(used.machine)),
    ]);
    if !used.proxy.is_zero() {
        values.insert(Measure::CpuProxy, each(used.proxy));
    }
    let others = used.machine.saturating_sub(used.counted);
    Figures { values, others_cpus: others.as_secs_f64() / elapsed.as_secs_f64() }
}

/// Of a process that has done nothing yet.
fn memory(proxy: &Server, connections: usize, time: Duration) -> anyhow::Result<Figures> {
    let idle = Idle::open(proxy, connections, true)?;
    for &pid in &proxy.pids {
        process::reset_peak(pid)?;
    }
    Load::open(proxy.address, 64, "/")?.run(time)?;
    Load::open(proxy.address, 64, &format!("/stream/{BODY_BYTES}"))?.run(time)?;
    let peaks = proxy.pids.iter().map(|&pid| process::peak_rss(pid));
    let peak = peaks.sum::<anyhow::Result<i64>>()?;
    let growth = (idle.after - idle.before) as f64;
    Ok(Figures {
        values: [
            (Measure::Base, idle.at_rest as f64 / MB),
            (Measure::Each, growth / 1024.0 / connections as f64),
            (Measure::Peak, peak as f64 / MB),
        ]
        .into(),
        others_cpus: 0.0,
    })
}
