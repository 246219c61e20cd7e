//! Underpass with a cache beside nginx and Varnish, doing the same job in the same run.
//!
//! In each round every engine has its turn, another one beginning each time. What is large
//! (`join`, `set`) is measured once, one engine at a time, each a fresh process whose files are
//! gone when the next one begins. CPU per request is the figure to trust on a small machine:
//! generator, proxy and origin share its cores. Nothing here fails by a figure; an answer that is
//! not what it has to be fails its measurement, which is told, as is what is not to be had.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{Options, Settings};
use crate::{
    cache::{
        cells::{Engine, Figures, Only, Row},
        engines::{Proxy, free_disk},
        measure::Stage,
        report::{self, Cells},
        sizes::Sizes,
    },
    calm::{Calm, other_work},
    lines::Lines,
    server::Server,
    tunnel::{netns::Namespace, spawn},
};

/// Measurements that are made again, in a whole run: bounds its time.
const RETRIES: u32 = 20;

/// Measures and prints. `gigabytes`: of the working set, if not the default.
///
/// # Errors
/// If the filter is none, the working set too large, or the origin does not start.
pub fn run(
    settings: &Settings,
    options: &Options,
    workers: usize,
    gigabytes: Option<f64>,
) -> anyhow::Result<()> {
    let only = Only::parse(options.only.as_deref().unwrap_or_default())?;
    let sizes = Sizes::new(settings.quick, gigabytes)?;
    let seconds = options.seconds.unwrap_or(settings.size(1.5, 0.4));
    // Descriptors for all connections, ports of our own, none held by TIME_WAIT.
    spawn::descriptors();
    let own = Namespace::enter_new();
    let mut bench = Bench {
        settings,
        workers,
        only,
        sizes,
        rounds: options.rounds.unwrap_or(settings.size(5, 1)).max(1),
        time: Duration::try_from_secs_f64(seconds).context("--seconds")?,
        calm: Calm::new(settings.size(RETRIES, 0)),
        json: Lines::new(options.json.as_deref())?,
        origin: Server::origin()?,
        others: Vec::new(),
        told: Vec::new(),
    };
    println!(
        "cache: {workers} worker(s) each (varnish: one pool of threads), no access log; {} round(s) \
         of {:?} in turns, medians; join and set: one round",
        bench.rounds, bench.time
    );
    if let Err(reason) = own {
        println!("on the host's own loopback interface: {reason:#}");
    }
    println!();
    let mut all = Vec::new();
    for row in Row::ALL {
        if bench.only.row(row) {
            all.push(bench.row(row)?);
        }
    }
    println!();
    report::table(&all);
    println!(
        "Ratios are underpass (disk64k: underpass+disk) beside the other, round by round, and \
         above 1 where underpass is better (a higher rate or more hits; less of all else). CPU is \
         user and system together."
    );
    println!("{}", other_work(&bench.others));
    Ok(())
}

struct Bench<'a> {
    settings: &'a Settings,
    workers: usize,
    only: Only,
    sizes: Sizes,
    rounds: usize,
    time: Duration,
    calm: Calm,
    json: Lines,
    origin: Server,
    others: Vec<f64>,
    /// Engines that were told to be missing.
    told: Vec<Engine>,
}

impl Bench<'_> {
    fn row(&mut self, row: Row) -> anyhow::Result<Cells> {
        let mut cells = Cells { row, engines: Vec::new() };
        if let Err(reason) = self.has_disk(row) {
            println!("{row}: left out: {reason:#}");
            return Ok(cells);
        }
        let engines = row.engines().iter().copied().filter(|&engine| self.only.engine(engine));
        let engines: Vec<Engine> = engines.collect();
        if matches!(row, Row::Join | Row::Set) {
            for engine in engines {
                let Some(proxy) = self.start(row, engine) else { continue };
                let figures = self.measure(row, engine, proxy.as_ref(), 0)?;
                cells.engines.push((engine, vec![figures]));
            }
            return Ok(cells);
        }
        let mut entries = Vec::new();
        for engine in engines {
            let Some(proxy) = self.start(row, engine) else { continue };
            let (origin, sizes, time) = (&self.origin, self.sizes, self.time);
            let stage = Stage { row, engine, sizes, origin, proxy: proxy.as_ref(), time };
            match stage.prepare() {
                Ok(()) => entries.push((engine, proxy)),
                Err(error) => println!("{row}, {}: not prepared: {error:#}", engine.name()),
            }
        }
        cells.engines = entries.iter().map(|entry| (entry.0, Vec::new())).collect();
        for round in 0..self.rounds {
            for turn in 0..entries.len() {
                let index = (round + turn) % entries.len();
                let (engine, proxy) = &entries[index];
                let figures = self.measure(row, *engine, proxy.as_ref(), round)?;
                cells.engines[index].1.push(figures);
            }
        }
        Ok(cells)
    }

    /// What is not to be had is told once, with what to install for it.
    fn start(&mut self, row: Row, engine: Engine) -> Option<Option<Proxy>> {
        let (needs, origin) = (self.sizes.needs(row, engine), self.origin.address);
        let started = Proxy::start(engine, self.settings, origin, self.workers, needs);
        match started {
            Ok(proxy) => Some(proxy),
            Err(reason) => {
                if !self.told.contains(&engine) {
                    println!("{}: not available: {reason:#}", engine.name());
                    self.told.push(engine);
                }
                None
            }
        }
    }

    fn measure(
        &mut self,
        row: Row,
        engine: Engine,
        proxy: Option<&Proxy>,
        round: usize,
    ) -> anyhow::Result<Option<Figures>> {
        let (origin, sizes, time) = (&self.origin, self.sizes, self.time);
        let stage = Stage { row, engine, sizes, origin, proxy, time };
        let measure = || stage.measure();
        let measured = match row {
            // What has been asked for once is another load the second time.
            Row::Join | Row::Set => measure(),
            _ => self.calm.measure(|figures: &Figures| figures.others_cpus, measure),
        };
        match measured {
            Ok(figures) => {
                self.others.push(figures.others_cpus);
                self.json.write(&serde_json::json!({
                    "row": row.to_string(),
                    "engine": engine.name(),
                    "round": round,
                    "figures": figures,
                }))?;
                Ok(Some(figures))
            }
            Err(error) => {
                println!("{row}, {}: failed: {error:#}", engine.name());
                Ok(None)
            }
        }
    }

    fn has_disk(&self, row: Row) -> anyhow::Result<()> {
        let folder = std::env::temp_dir();
        let (free, wanted) = (free_disk(&folder)?, self.sizes.disk(row));
        let gb = |bytes: u64| bytes as f64 / 1e9;
        ensure!(
            free > wanted + wanted / 4,
            "it takes up to {:.1} GB in {}, where {:.1} GB are free",
            gb(wanted),
            folder.display(),
            gb(free)
        );
        Ok(())
    }
}
