//! Time to the first byte at low load: what a proxy in between adds.
//!
//! Two ways to ask, each in rounds that take turns between the targets:
//! - one request after the other over one kept connection, from the send to the first
//!   byte read: the bare cost of the hop;
//! - 1,000 requests a second on a fixed schedule, from the moment a request was due, so
//!   that a stall counts for every request it delays (no coordinated omission). The
//!   generator's own lateness is in all targets alike, and so not in the deltas.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::Settings;
use crate::{
    client,
    schedule::{self, Schedule, WATCH},
    server::Server,
    stats::{Percentiles, Table, median},
};

const PER_SECOND: u32 = 1_000;
/// Each of its connections owes a request every 8 ms.
const SCHEDULE: Schedule =
    Schedule { senders: 8, per_second: PER_SECOND, watch: WATCH, blocking: true };

/// Measures and prints.
///
/// # Errors
/// If a target does not start or answer.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let origin = Server::origin()?;
    let proxies: Vec<Server> = [
        Some(Server::underpass(settings, origin.address)?),
        Server::nginx(settings, origin.address),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut targets = vec![("direct", origin.address)];
    targets.extend(proxies.iter().map(|proxy| (proxy.name, proxy.address)));
    let rounds = settings.size(7, 2);

    let requests = settings.size(3_000, 300);
    println!("ttfb, {requests} sequential requests a round, {rounds} rounds, medians (µs)\n");
    table(&targets, rounds, |address| sequential(address, requests))?;

    let time = settings.size(Duration::from_secs(4), Duration::from_millis(500));
    println!(
        "ttfb, {PER_SECOND} requests/s on schedule, {time:?} a round, {rounds} rounds, medians (µs)\n"
    );
    table(&targets, rounds, |address| SCHEDULE.ask(address, time))
}

fn table(
    targets: &[(&str, SocketAddr)],
    rounds: usize,
    measure: impl Fn(SocketAddr) -> anyhow::Result<Vec<Duration>>,
) -> anyhow::Result<()> {
    let mut figures = vec![Vec::new(); targets.len()];
    for round in 0..rounds {
        // Another one begins each round: none has always the same neighbour.
        for turn in 0..targets.len() {
            let target = (round + turn) % targets.len();
            let mut samples = measure(targets[target].1)?;
            figures[target].push(Percentiles::of(&mut samples).columns());
        }
    }
    let mut table =
        Table::new(["target", "p50", "p95", "p99", "delta p50", "delta p95", "delta p99"]);
    for (target, rounds) in targets.iter().zip(&figures) {
        let value = |column: usize| median(rounds.iter().map(|round| round[column]));
        // The delta of each round by itself: what disturbed one round stays in it.
        let delta = |column: usize| {
            let pairs = rounds.iter().zip(&figures[0]);
            let delta = median(pairs.map(|(round, direct)| round[column] - direct[column]));
            if target.0 == "direct" { "".into() } else { format!("{delta:+.0}") }
        };
        table.row([
            target.0.to_owned(),
            format!("{:.0}", value(0)),
            format!("{:.0}", value(1)),
            format!("{:.0}", value(2)),
            delta(0),
            delta(1),
            delta(2),
        ]);
    }
    table.print();
    Ok(())
}

fn sequential(address: SocketAddr, requests: usize) -> anyhow::Result<Vec<Duration>> {
    let mut client = schedule::warm(address)?;
    let request = client::get("/");
    let mut samples = Vec::with_capacity(requests);
    for _ in 0..requests {
        let sent = Instant::now();
        samples.push(client.exchange(&request)?.first_byte - sent);
    }
    Ok(samples)
}
