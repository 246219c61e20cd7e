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

use anyhow::Context as _;

use super::Settings;
use crate::{
    client::{self, Client},
    server::Server,
    stats::{Percentiles, Table, median},
};

/// Connections that share the schedule; each owes a request every 8 ms.
const SENDERS: u32 = 8;
const PER_SECOND: u32 = 1_000;
/// The clock is watched for so long before a request is due: a sleep alone ends late by
/// the timer slack of 50 µs.
const WATCH: Duration = Duration::from_micros(80);

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
    table(&targets, rounds, |address| scheduled(address, time))
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
    let mut client = warm(address)?;
    let request = client::get("/");
    let mut samples = Vec::with_capacity(requests);
    for _ in 0..requests {
        let sent = Instant::now();
        samples.push(client.exchange(&request)?.first_byte - sent);
    }
    Ok(samples)
}

fn scheduled(address: SocketAddr, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let step = Duration::from_secs(1) / PER_SECOND;
    let start = Instant::now() + Duration::from_millis(50);
    let sender = |index: u32| -> anyhow::Result<Vec<Duration>> {
        let mut client = warm(address)?;
        let request = client::get("/");
        let mut samples = Vec::new();
        let mut due = start + step * index;
        while due < start + time {
            if let Some(ahead) = due.checked_duration_since(Instant::now() + WATCH) {
                std::thread::sleep(ahead);
            }
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            // Late or not, it counts from when it was due.
            samples.push(client.exchange(&request)?.first_byte - due);
            due += step * SENDERS;
        }
        Ok(samples)
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> =
            (0..SENDERS).map(|index| scope.spawn(move || sender(index))).collect();
        let mut samples = Vec::new();
        for sender in senders {
            samples.extend(sender.join().ok().context("a sender panicked")??);
        }
        Ok(samples)
    })
}

fn warm(address: SocketAddr) -> anyhow::Result<Client> {
    let mut client = Client::connect(address)?;
    for _ in 0..20 {
        client.exchange(&client::get("/"))?;
    }
    Ok(client)
}
