//! Tunnels: what each engine moves, at which cost, beside no proxy and other proxies.
//!
//! In each round every target has its turn, under the same load, the first one being
//! another each time. All proxies run all the time: an idle one costs nothing. Nothing
//! here fails by a figure. What cannot be had or breaks is told beside the tables.

use std::{
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::{Options, Settings};
use crate::{
    calm::Calm,
    meter::Reading,
    process,
    server::underpass,
    tunnel::{
        cells::{Load, Only, Target, Topology},
        figures::{Figures, Row},
        network::Network,
        opener::Opener,
        peer::Peer,
        proxies::{Proxy, Way},
        report::Report,
        spawn,
    },
};

/// What proxies still do after tunnels have ended.
const SETTLE: Duration = Duration::from_millis(40);
/// The same where memory is measured.
const SETTLE_IDLE: Duration = Duration::from_millis(300);
/// What a proxy has open besides connections, at most.
const OTHER_DESCRIPTORS: u64 = 400;
/// Measurements that are made again, in a whole run: bounds its time.
const RETRIES: u32 = 40;

/// Measures and prints.
///
/// # Errors
/// If the filter is none, or peers do not start.
pub fn run(settings: &Settings, options: &Options) -> anyhow::Result<()> {
    let only = Only::parse(options.only.as_deref().unwrap_or_default())?;
    let program = underpass(settings)?;
    let way = Way::of(&program);
    let seconds = options.seconds.unwrap_or(settings.size(0.5, 0.15));
    let mut bench = Bench {
        rounds: options.rounds.unwrap_or(settings.size(3, 1)).max(1),
        time: Duration::try_from_secs_f64(seconds).context("--seconds")?,
        warm_up: Duration::from_millis(settings.size(200, 50)),
        calm: Calm::new(settings.size(RETRIES, 0)),
        program,
        way,
        only,
        report: Report::new(options.json.as_deref())?,
    };
    println!(
        "tunnels, one worker each, {} round(s) of {:?} in turns, medians; through Underpass by {}",
        bench.rounds,
        bench.time,
        bench.way.name()
    );
    println!(
        "CPU: of all who take part, peers and the kernel's threads included; `machine` is busy \
         time of all CPUs, whoever used it\n"
    );
    println!(
        "Linux {}, congestion control {}\n",
        setting("kernel/osrelease"),
        setting("net/ipv4/tcp_congestion_control")
    );
    for topology in Topology::ALL {
        if !bench.only.topology(topology) {
            continue;
        }
        match Network::new(topology) {
            Ok(network) => bench.topology(topology, network, settings.quick)?,
            Err(reason) => println!("{}: not available: {reason:#}\n", topology.name()),
        }
    }
    println!("Summary, medians\n");
    bench.report.summary();
    bench.report.verdict();
    Ok(())
}

fn setting(key: &str) -> String {
    let value = std::fs::read_to_string(format!("/proc/sys/{key}")).unwrap_or_default();
    value.trim().to_owned()
}

struct Bench {
    rounds: usize,
    time: Duration,
    warm_up: Duration,
    calm: Calm,
    program: PathBuf,
    way: Way,
    only: Only,
    report: Report,
}

/// One topology while it is measured.
struct Stage {
    network: Network,
    server: Peer,
    server_port: u16,
    client: Peer,
}

/// A target and how it is reached, or why it is not.
struct Entry {
    target: Target,
    proxy: Result<Option<Proxy>, String>,
}

impl Bench {
    fn topology(
        &mut self,
        topology: Topology,
        network: Network,
        quick: bool,
    ) -> anyhow::Result<()> {
        let peer = std::env::current_exe()?;
        let (server, server_port) = Peer::server(&peer, &network.server)?;
        let client = Peer::client(&peer, &network.client)?;
        let mut stage = Stage { network, server, server_port, client };
        let loads = Load::ALL.into_iter().filter(|&load| {
            // Too slow to be quick, unless it is asked for.
            self.only.load(load) && (self.only.names_load() || !quick || load != Load::Idle(10_000))
        });
        let loads: Vec<Load> = loads.collect();
        let (idle, busy): (Vec<_>, Vec<_>) =
            loads.into_iter().partition(|load| matches!(load, Load::Idle(_)));
        let wanted =
            |target: &Target| self.only.target(*target) && target.applies(topology, Load::Up(1));
        let targets: Vec<Target> = Target::ALL.into_iter().filter(wanted).collect();
        if !busy.is_empty() {
            let mut entries: Vec<Entry> =
                targets.iter().map(|&target| self.enter(target, &mut stage)).collect();
            for entry in &entries {
                if let Err(reason) = &entry.proxy {
                    println!(
                        "{}, {}: not available: {reason}",
                        topology.name(),
                        entry.target.name()
                    );
                }
            }
            println!();
            for load in busy {
                self.busy(topology, load, &mut entries, &mut stage)?;
            }
        }
        for load in idle {
            self.idle(topology, load, &targets, &mut stage)?;
        }
        Ok(())
    }

    fn enter(&self, target: Target, stage: &mut Stage) -> Entry {
        let ours = (self.program.as_path(), self.way);
        let proxy = Proxy::start(target, ours, &mut stage.network, stage.server_port)
            .map_err(|reason| format!("{reason:#}"));
        Entry { target, proxy }
    }

    fn busy(
        &mut self,
        topology: Topology,
        load: Load,
        entries: &mut [Entry],
        stage: &mut Stage,
    ) -> anyhow::Result<()> {
        let mut rows: Vec<Row> = entries.iter().map(|entry| Row::new(entry.target)).collect();
        for round in 0..self.rounds {
            for turn in 0..entries.len() {
                let index = (round + turn) % entries.len();
                let entry = &entries[index];
                let figures = match &entry.proxy {
                    Ok(_) if rows[index].reason.is_some() => None,
                    Ok(proxy) => match self.calm.measure(
                        |figures: &Figures| figures.others_cpus,
                        || measure(self.warm_up, self.time, load, proxy.as_ref(), stage),
                    ) {
                        Ok(figures) => Some(figures),
                        Err(error) => {
                            rows[index].reason = Some(format!("failed: {error:#}"));
                            // Neither side may carry anything over into the next load.
                            let peer = std::env::current_exe()?;
                            stage.client = Peer::client(&peer, &stage.network.client)?;
                            entries[index] = self.enter(entries[index].target, stage);
                            None
                        }
                    },
                    // Told above.
                    Err(_) => None,
                };
                if let Some(figures) = &figures {
                    self.report.measured(topology, load, rows[index].target, round, figures)?;
                }
                rows[index].rounds.push(figures);
            }
        }
        self.report.load(topology, load, rows);
        Ok(())
    }

    /// A process for each: memory that was freed is not given back.
    fn idle(
        &mut self,
        topology: Topology,
        load: Load,
        targets: &[Target],
        stage: &mut Stage,
    ) -> anyhow::Result<()> {
        let Load::Idle(wanted) = load else { bail!("not a load of idle tunnels") };
        // Two descriptors of the proxy for each.
        let most = u32::try_from((spawn::descriptors() - OTHER_DESCRIPTORS) / 2)?;
        if wanted > most {
            println!(
                "{}: {most} tunnels instead of {wanted}: a process has {} descriptors here\n",
                topology.name(),
                spawn::descriptors()
            );
        }
        let load = Load::Idle(wanted.min(most));
        let mut rows = Vec::new();
        for &target in targets.iter().filter(|target| target.applies(topology, load)) {
            let mut row = Row::new(target);
            let entry = self.enter(target, stage);
            match entry.proxy.map_err(anyhow::Error::msg) {
                Ok(Some(proxy)) => match memory(load, &proxy, stage) {
                    Ok(figures) => {
                        self.report.measured(topology, load, target, 0, &figures)?;
                        row.rounds.push(Some(figures));
                    }
                    Err(error) => {
                        row.reason = Some(format!("failed: {error:#}"));
                        let peer = std::env::current_exe()?;
                        stage.client = Peer::client(&peer, &stage.network.client)?;
                    }
                },
                Ok(None) => {}
                Err(reason) => {
                    println!("{}, {}: not available: {reason}\n", topology.name(), target.name());
                }
            }
            rows.push(row);
        }
        self.report.load(topology, load, rows);
        Ok(())
    }
}

fn measure(
    warm_up: Duration,
    time: Duration,
    load: Load,
    proxy: Option<&Proxy>,
    stage: &mut Stage,
) -> anyhow::Result<Figures> {
    let direct = SocketAddr::new(stage.network.direct_ip, stage.server_port);
    let opener = proxy.map_or(Opener::Raw { to: direct }, |proxy| proxy.opener);
    let peers = [stage.server.pid(), stage.client.pid()];
    let pid: Vec<u32> = proxy.iter().map(|proxy| proxy.pid).collect();
    stage.client.begin(opener, load)?;
    thread::sleep(warm_up);
    let moved = || proxy.map_or(Ok(None), Proxy::moved);
    let moved_before = moved()?;
    let (here, there) = (stage.client.count()?, stage.server.count()?);
    let (started, before) = (Instant::now(), Reading::now(&peers, &pid)?);
    thread::sleep(time);
    let used = Reading::now(&peers, &pid)?.since(&before);
    let elapsed = started.elapsed().as_secs_f64();
    let (here_after, there_after) = (stage.client.count()?, stage.server.count()?);
    let moved = moved()?;
    let outcome = stage.client.finish()?;
    thread::sleep(SETTLE);

    // Counts and CPU are each per second of their own span.
    let span = |from: u64, to: u64| (to - from) as f64 / 1e9;
    let received = (here_after.bytes - here.bytes) as f64 / span(here.at_ns, here_after.at_ns);
    let sunk = (there_after.bytes - there.bytes) as f64 / span(there.at_ns, there_after.at_ns);
    let operations =
        (here_after.operations - here.operations) as f64 / span(here.at_ns, here_after.at_ns);
    // Bytes of the direction that the load goes; none came the other way.
    let bytes = received + sunk;
    let (rate, unit) = if load.is_bulk() {
        (bytes * 8.0 / 1e9, bytes / 1e9)
    } else {
        (operations, operations / 1e6)
    };
    ensure!(rate > 0.0, "nothing came through");
    let cpu = |used: Duration| used.as_secs_f64() / elapsed / unit;
    Ok(Figures {
        rate,
        beside_gbit_s: matches!(load, Load::Mixed(_)).then_some(bytes * 8.0 / 1e9),
        cpu: cpu(used.counted),
        cpu_machine: cpu(used.machine),
        cpu_proxy: cpu(used.proxy),
        p50_us: outcome.p50_us,
        p99_us: outcome.p99_us,
        bypassed_percent: moved
            .zip(moved_before)
            .and_then(|(now, then)| now.bypassed_percent(then)),
        bytes_per_tunnel: None,
        answered: None,
        others_cpus: used.machine.saturating_sub(used.counted).as_secs_f64() / elapsed,
    })
}

fn memory(load: Load, proxy: &Proxy, stage: &mut Stage) -> anyhow::Result<Figures> {
    let Load::Idle(tunnels) = load else { bail!("not a load of idle tunnels") };
    // Code pages and the first tunnel are not the others'.
    stage.client.begin(proxy.opener, Load::Idle(1))?;
    stage.client.finish()?;
    thread::sleep(SETTLE_IDLE);
    let before = process::rss(proxy.pid)?;
    stage.client.begin(proxy.opener, load)?;
    thread::sleep(SETTLE_IDLE);
    let growth = process::rss(proxy.pid)? - before;
    let outcome = stage.client.finish()?;
    Ok(Figures {
        bytes_per_tunnel: Some(growth as f64 / f64::from(tunnels)),
        answered: Some(outcome.answered),
        ..Figures::default()
    })
}
