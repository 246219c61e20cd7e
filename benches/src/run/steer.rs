//! New connections beside long ones that are all at one worker.
//!
//! Two workers. Connections that come by the kernel's hash are let go until a number of them is
//! at the first worker and none at the second; those are kept busy, one request after the other.
//! Meanwhile new connections come, each for one request, by the choice that is measured: where
//! they arrive, and how long it takes from `connect` to the first byte.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::Settings;
use crate::{
    client::{self, Client},
    server::Server,
    stats::{Percentiles, Table, median},
};

/// Long connections, and as many threads that keep them busy.
const LONG: usize = 8;
/// By hash every other connection is at the first worker; so many tries do not fail by chance.
const TRIES: usize = 1000;
/// Between two new connections, so that they are no load of their own.
const PAUSE: Duration = Duration::from_millis(1);
/// For a count of the proxy to become what it should be.
const PATIENCE: Duration = Duration::from_secs(5);

const CHOICES: [&str; 3] = ["load", "cpu", "hash"];

/// Measures and prints.
///
/// # Errors
/// If the proxy does not start or answer.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let origin = Server::origin()?;
    let rounds = settings.size(5, 1);
    let time = settings.size(Duration::from_secs(2), Duration::from_millis(300));
    println!(
        "steer, {LONG} busy connections at worker 0, {time:?} of new ones a round, {rounds} rounds, \
         medians (from connect to first byte, µs)\n"
    );
    let mut figures = vec![Vec::new(); CHOICES.len()];
    for round in 0..rounds {
        for turn in 0..CHOICES.len() {
            let choice = (round + turn) % CHOICES.len();
            figures[choice].push(measure(settings, &origin, CHOICES[choice], time)?);
        }
    }
    let head = ["steering", "new at 0", "new at 1", "p50", "p95", "p99", "busy requests/s"];
    let mut table = Table::new(head);
    for (choice, rounds) in CHOICES.iter().zip(&figures) {
        let mut row = vec![(*choice).to_owned()];
        for column in 0..head.len() - 1 {
            row.push(format!("{:.0}", median(rounds.iter().map(|round| round[column]))));
        }
        table.row(row);
    }
    table.print();
    Ok(())
}

/// One row: new connections at either worker, percentiles, requests per second of the others.
fn measure(
    settings: &Settings,
    origin: &Server,
    choice: &str,
    time: Duration,
) -> anyhow::Result<[f64; 6]> {
    // Free a moment ago, each still held while the others are looked for.
    let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); 3];
    for (address, held) in addresses.iter_mut().zip(held) {
        *address = held?.local_addr()?;
    }
    let [by_hash, measured, admin] = addresses;
    let _proxy =
        Server::underpass_with(settings, by_hash, &config(addresses, origin.address, choice))?;

    let mut long = Vec::new();
    for _ in 0..TRIES {
        let client = Client::connect(by_hash)?;
        let [first, _] = settled(admin, long.len() + 1)?;
        if first > long.len() as f64 {
            long.push(client);
        } else {
            drop(client);
            settled(admin, long.len())?;
        }
        if long.len() == LONG {
            break;
        }
    }
    ensure!(long.len() == LONG, "the first worker got too few connections");

    let (over, busy) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = counts(admin, "accepted_total")?;
    let mut samples = std::thread::scope(|scope| {
        let keep_busy = |mut client: Client| {
            while !over.load(Relaxed) && client.exchange(&client::get("/")).is_ok() {
                busy.fetch_add(1, Relaxed);
            }
        };
        long.into_iter().for_each(|client| _ = scope.spawn(move || keep_busy(client)));
        let samples = new_ones(measured, time);
        over.store(true, Relaxed);
        samples
    })?;
    let after = counts(admin, "accepted_total")?;
    let [p50, p95, p99] = Percentiles::of(&mut samples).columns();
    let rate = busy.into_inner() as f64 / time.as_secs_f64();
    Ok([after[0] - before[0], after[1] - before[1], p50, p95, p99, rate])
}

fn new_ones(address: SocketAddr, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let until = Instant::now() + time;
    let mut samples = Vec::new();
    while Instant::now() < until || samples.is_empty() {
        let begin = Instant::now();
        let answer = Client::connect(address)?.exchange(&client::get("/"))?;
        samples.push(answer.first_byte - begin);
        std::thread::sleep(PAUSE);
    }
    Ok(samples)
}

fn config(addresses: [SocketAddr; 3], origin: SocketAddr, choice: &str) -> String {
    let [by_hash, measured, admin] = addresses;
    format!(
        "workers = 2\ndrain_timeout = \"1s\"\n[admin]\naddress = \"{admin}\"\n\
         [log]\naccess = \"off\"\n\
         [[listener]]\nname = \"hash\"\naddress = \"{by_hash}\"\nsteering = \"hash\"\n\
         [[listener]]\nname = \"measured\"\naddress = \"{measured}\"\nsteering = \"{choice}\"\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{origin}\"]\n"
    )
}

/// Waits until so many connections are open, and says at which worker.
fn settled(admin: SocketAddr, count: usize) -> anyhow::Result<[f64; 2]> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let open = counts(admin, "open")?;
        if open[0] + open[1] == count as f64 {
            return Ok(open);
        }
    }
    bail!("connections are not counted as they were opened")
}

/// A count of connections of each worker.
fn counts(admin: SocketAddr, what: &str) -> anyhow::Result<[f64; 2]> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let of = |worker: usize| {
        let series = format!("underpass_worker_connections_{what}{{worker=\"{worker}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.context("no such count")?.parse::<f64>().context("a number")
    };
    Ok([of(0)?, of(1)?])
}
