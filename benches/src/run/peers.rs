//! Requests per second and CPU per request, beside nginx doing the same in the same run.
//!
//! CPU per request is the figure to trust on a small machine: generator, proxy and
//! origin share its cores, and requests per second tell as much of them as of the proxy.

use std::time::Duration;

use super::Settings;
use crate::{
    load::Load,
    process,
    server::Server,
    stats::{Table, median},
};

const CONNECTIONS: [usize; 2] = [1, 64];

/// What one round of one target came to.
#[derive(Debug, Clone, Copy)]
struct Round {
    per_second: f64,
    /// Of the proxy, µs per request.
    user: f64,
    system: f64,
    /// Of this process, µs per request.
    generator: f64,
}

/// Measures and prints.
///
/// # Errors
/// If a target does not start or answer.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let origin = Server::origin()?;
    let proxies: Vec<Server> =
        [Some(Server::underpass(settings, origin.address)?), Server::nginx(origin.address)?]
            .into_iter()
            .flatten()
            .collect();
    let targets: Vec<&Server> = proxies.iter().chain([&origin]).collect();
    let rounds = settings.size(7, 2);
    let time = settings.size(Duration::from_secs(2), Duration::from_millis(500));
    println!(
        "peers, 100-byte answers, one worker each, {rounds} rounds of {time:?} in turns, medians\n"
    );
    let mut table = Table::new([
        "target",
        "connections",
        "requests/s",
        "CPU µs/request",
        "user",
        "system",
        "generator µs",
        "CPU / nginx",
    ]);
    for connections in CONNECTIONS {
        let mut figures = vec![Vec::new(); targets.len()];
        for round in 0..rounds {
            for turn in 0..targets.len() {
                let target = (round + turn) % targets.len();
                figures[target].push(measure(targets[target], connections, time)?);
            }
        }
        let nginx = targets.iter().position(|target| target.name == "nginx");
        for (target, rounds) in targets.iter().zip(&figures) {
            let value = |of: fn(&Round) -> f64| median(rounds.iter().map(of));
            // Round by round: both sides of the ratio had the same neighbours.
            let ratio = nginx.filter(|_| target.name == "underpass").map(|nginx| {
                let pairs = rounds.iter().zip(&figures[nginx]);
                median(pairs.map(|(ours, theirs)| ours.cpu() / theirs.cpu()))
            });
            table.row([
                if target.name == "origin" { "direct" } else { target.name }.to_owned(),
                connections.to_string(),
                format!("{:.0}", value(|round| round.per_second)),
                format!("{:.1}", value(Round::cpu)),
                format!("{:.1}", value(|round| round.user)),
                format!("{:.1}", value(|round| round.system)),
                format!("{:.1}", value(|round| round.generator)),
                ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            ]);
        }
    }
    table.print();
    println!("`direct` is the origin itself: its CPU, and the ceiling of requests/s.");
    Ok(())
}

impl Round {
    fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

fn measure(target: &Server, connections: usize, time: Duration) -> anyhow::Result<Round> {
    let mut load = Load::open(target.address, connections)?;
    let ours = std::process::id();
    let (before, own_before) = (process::cpu(target.pid)?, process::cpu(ours)?);
    let done = load.run(time)?;
    let (used, own) = (process::cpu(target.pid)? - before, process::cpu(ours)? - own_before);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / done.requests as f64;
    Ok(Round {
        per_second: done.requests as f64 / done.elapsed.as_secs_f64(),
        user: each(used.user),
        system: each(used.system),
        generator: each(own.total()),
    })
}
