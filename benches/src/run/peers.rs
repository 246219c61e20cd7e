//! Underpass beside nginx, HAProxy and Pingora, doing the same job in the same run.
//!
//! In each round every engine has its turn, under the same load, another one beginning each
//! time. All proxies run all the time: an idle one costs nothing. CPU per request is the
//! figure to trust on a small machine: generator, proxy and origin share its cores, and a
//! rate tells as much of them as of the proxy. Nothing here fails by a figure; what is not
//! to be had or breaks is told.

use std::time::Duration;

use anyhow::Context as _;

use super::{Options, Settings};
use crate::{
    calm::{Calm, other_work},
    lines::Lines,
    peers::{
        cells::{Engine, Figures, Only, Row},
        measure::{Path, measure, most_per_second},
        report::{self, Cells},
    },
    server::{Kind, Server},
    tunnel::{netns::Namespace, spawn},
};

/// Measurements that are made again, in a whole run: bounds its time.
const RETRIES: u32 = 30;
/// Measures and prints.
///
/// # Errors
/// If the filter is none, or the origin does not start.
pub fn run(settings: &Settings, options: &Options, workers: usize) -> anyhow::Result<()> {
    let only = Only::parse(options.only.as_deref().unwrap_or_default())?;
    let seconds = options.seconds.unwrap_or(settings.size(1.5, 0.4));
    let rounds = options.rounds.unwrap_or(settings.size(5, 1)).max(1);
    // Descriptors for all connections, ports of our own, none held by TIME_WAIT.
    spawn::descriptors();
    let own = Namespace::enter_new();
    let mut bench = Bench {
        settings,
        workers,
        only,
        rounds,
        time: Duration::try_from_secs_f64(seconds).context("--seconds")?,
        warm_up: Duration::from_millis(settings.size(700, 250)),
        calm: Calm::new(settings.size(RETRIES, 0)),
        json: Lines::new(options.json.as_deref())?,
        origin: Server::origin()?,
        others: Vec::new(),
    };
    println!(
        "peers: {workers} worker(s) each, kept connections to the origin, no access log; \
         {rounds} round(s) of {:?} in turns, medians",
        bench.time
    );
    println!(
        "CPU of all: generator, origin, proxy and the kernel's threads; of the machine: busy time of all CPUs"
    );
    if let Err(reason) = own {
        println!("on the host's own loopback interface: {reason:#}");
    }
    println!();
    let entries = bench.enter();
    let mut all = Vec::new();
    for row in Row::ALL {
        if !bench.only.row(row) {
            continue;
        }
        all.push(bench.row(settings.quick, row, &entries)?);
    }
    println!();
    report::table(&all);
    println!(
        "Ratios are underpass beside the other, round by round, and above 1 where underpass is \
         better (a higher rate; less CPU, time or memory). `added` is the difference to `direct`."
    );
    println!("{}", other_work(&bench.others));
    Ok(())
}

struct Bench<'a> {
    settings: &'a Settings,
    workers: usize,
    only: Only,
    rounds: usize,
    time: Duration,
    warm_up: Duration,
    calm: Calm,
    json: Lines,
    origin: Server,
    others: Vec<f64>,
}

impl Bench<'_> {
    /// Starts what was asked for; what is not to be had is told and left out.
    fn enter(&self) -> Vec<(Engine, Option<Server>)> {
        let wanted = Engine::ALL.into_iter().filter(|&engine| self.only.engine(engine));
        let start = |engine| match engine {
            Engine::Direct => Some((engine, None)),
            Engine::Proxy(kind) => match self.start(kind) {
                Ok(server) => Some((engine, Some(server))),
                Err(reason) => {
                    println!("{}: not available: {reason:#}", engine.name());
                    None
                }
            },
        };
        wanted.filter_map(start).collect()
    }

    fn start(&self, kind: Kind) -> anyhow::Result<Server> {
        Server::start(kind, self.settings, self.origin.address, self.workers)
    }

    fn row(
        &mut self,
        quick: bool,
        row: Row,
        entries: &[(Engine, Option<Server>)],
    ) -> anyhow::Result<Cells> {
        let wanted = |engine: Engine| engine != Engine::Direct || !matches!(row, Row::Memory(_));
        let entries: Vec<_> = entries.iter().filter(|entry| wanted(entry.0)).collect();
        let mut cells =
            Cells { row, engines: entries.iter().map(|entry| (entry.0, Vec::new())).collect() };
        for round in 0..self.rounds {
            let load = match self.load(row, &entries) {
                Ok(load) => load,
                Err(error) => {
                    println!("{row}: failed: {error:#}");
                    continue;
                }
            };
            for turn in 0..entries.len() {
                let index = (round + turn) % entries.len();
                let (engine, server) = entries[index];
                let figures = match self.measure(quick, load, *engine, server.as_ref()) {
                    Ok(figures) => Some(figures),
                    Err(error) => {
                        println!("{row}, {}: failed: {error:#}", engine.name());
                        None
                    }
                };
                if let Some(figures) = &figures {
                    // Nobody's CPU time is read beside memory.
                    if !matches!(row, Row::Memory(_)) {
                        self.others.push(figures.others_cpus);
                    }
                    self.json.write(&serde_json::json!({
                        "row": row.to_string(),
                        "engine": engine.name(),
                        "round": round,
                        "figures": figures,
                    }))?;
                }
                cells.engines[index].1.push(figures);
            }
        }
        Ok(cells)
    }

    /// The row with its rate, where that depends on what somebody answers.
    fn load(&self, row: Row, entries: &[&(Engine, Option<Server>)]) -> anyhow::Result<Row> {
        let Row::Load(percent) = row else { return Ok(row) };
        let named = entries.iter().find(|entry| entry.0 == Engine::YARDSTICK);
        let proxy = named.or_else(|| entries.iter().find(|entry| entry.1.is_some()));
        let (_, server) = proxy.context("no proxy to take the rate of")?;
        let address = server.as_ref().context("no proxy to take the rate of")?.address;
        let most = most_per_second(address, self.time)?;
        Ok(Row::Latency(((most * f64::from(percent) / 100.0) as u32).max(1)))
    }

    fn measure(
        &mut self,
        quick: bool,
        row: Row,
        engine: Engine,
        proxy: Option<&Server>,
    ) -> anyhow::Result<Figures> {
        let path = Path { origin: &self.origin, proxy, warm_up: self.warm_up, time: self.time };
        if let (Row::Memory(connections), Engine::Proxy(kind)) = (row, engine) {
            // A process of its own: what earlier rows have left behind is not its memory.
            let fresh = self.start(kind)?;
            let row = Row::Memory(if quick { connections / 4 } else { connections });
            return measure(row, Path { proxy: Some(&fresh), ..path });
        }
        self.calm.measure(|figures: &Figures| figures.others_cpus, || measure(row, path))
    }
}
