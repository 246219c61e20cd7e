//! What TCP Fast Open to servers saves: time to the first byte through the proxy when each request
//! needs a new connection, to an origin that is a round trip of 20 ms away.
//!
//! The distance is made by this process (`distance.rs`), so that only the difference between the
//! two rows means something: a round trip, if it works.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::Settings;
use crate::{
    client::{self, Client},
    distance,
    launch::{self, Scratch},
    server,
    stats::{Percentiles, Table, median},
    tunnel::netns::{self, Namespace},
};

/// Networks for documentation (RFC 5737).
const ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const ROUND_TRIP: Duration = Duration::from_millis(20);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
const PORT: u16 = 7001;

/// Measures and prints.
///
/// # Errors
/// Without root, or if something does not start or answer, or if requests that should have gone out early did
/// not.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    netns::require_root()?;
    let (near, far) = (Arc::new(Namespace::new()?), Namespace::new()?);
    distance::join([&near, &far], ENDS, ROUND_TRIP / 2)?;
    [&*near, &far].into_iter().try_for_each(distance::allow_fast_open)?;
    let origin = SocketAddr::from((ENDS[1], PORT));
    let listener = far.within(|| TcpListener::bind(origin))?;
    thread::spawn(move || answer(&listener));

    let mut proxies = Vec::new();
    for (row, fast) in [("ordinary", false), ("tcp_fast_open", true)] {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT + 1 + u16::from(fast)));
        let scratch = Scratch::new(listen, &config(listen, origin, fast))?;
        let mut command = Command::new(server::underpass(settings)?);
        command.args(["run", "--config"]).arg(&scratch.file).stdin(Stdio::null());
        let host = Some(Arc::clone(&near));
        let (child, address) = launch::announced(command, "underpass", &host)?;
        let child = server::Server::of_child("underpass", address, child);
        proxies.push((row, address, child, scratch));
    }
    let (rounds, requests) = (settings.size(5, 2), settings.size(50, 10));
    println!(
        "fast-open, {requests} requests a round on new connections, {rounds} rounds, a round trip \
         of {ROUND_TRIP:?}, time to the first byte, medians (ms)\n"
    );
    let mut figures = [const { Vec::new() }; 2];
    for round in 0..=rounds {
        for (at, (_, address, ..)) in proxies.iter().enumerate() {
            let mut samples = near.within(|| ask(*address, requests))?;
            // The first brings the cookie.
            if round > 0 {
                figures[at].push(Percentiles::of(&mut samples).columns());
            }
        }
    }
    let early = distance::begun_with_data(&far)?;
    ensure!(early >= (rounds * requests) as u64, "only {early} requests went out early");
    let mut table = Table::new(["connections", "p50", "p95", "saved p50", "round trips saved"]);
    for (at, (row, ..)) in proxies.iter().enumerate() {
        let value = |column: usize| median(figures[at].iter().map(|round| round[column])) / 1e3;
        let pairs = figures[0].iter().zip(&figures[at]);
        let saved = median(pairs.map(|(ordinary, own)| ordinary[0] - own[0])) / 1e3;
        let trips = saved / (ROUND_TRIP.as_secs_f64() * 1e3);
        let mut cells = vec![(*row).to_owned(), format!("{:.1}", value(0))];
        cells.push(format!("{:.1}", value(1)));
        cells.extend(match at {
            0 => [String::new(), String::new()],
            _ => [format!("{saved:.1}"), format!("{trips:.2}")],
        });
        table.row(cells);
    }
    table.print();
    Ok(())
}

fn ask(address: SocketAddr, requests: usize) -> anyhow::Result<Vec<Duration>> {
    let request = client::get("/");
    let mut client = Client::connect(address)?;
    (0..requests)
        .map(|_| {
            let asked = Instant::now();
            let answer = client.exchange(&request)?;
            Ok(answer.first_byte.duration_since(asked))
        })
        .collect()
}

fn answer(listener: &TcpListener) {
    for stream in listener.incoming().map_while(Result::ok) {
        thread::spawn(move || -> anyhow::Result<()> {
            let (mut stream, mut head) = (stream, Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                let mut piece = [0; 4096];
                let length = stream.read(&mut piece)?;
                ensure!(length > 0, "gone");
                head.extend_from_slice(&piece[..length]);
            }
            Ok(stream.write_all(ANSWER)?)
        });
    }
}

fn config(listen: SocketAddr, origin: SocketAddr, fast: bool) -> String {
    format!(
        "workers = 1
[log]
access = \"off\"
[[listener]]
name = \"web\"
address = \"{listen}\"
[[route]]
upstream = \"origin\"
[[upstream]]
name = \"origin\"
servers = [\"{origin}\"]
tcp_fast_open = {fast}
"
    )
}
