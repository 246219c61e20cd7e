//! TLS beside nginx and HAProxy: what a handshake costs, full and resumed, what requests cost
//! over both versions of HTTP, what a unary call of gRPC does, and what bulk does.
//!
//! All have one worker, one ECDSA P-256 certificate and TLS 1.3 with X25519, and everything else as
//! `server/conf.rs` has it. A connection of the rows of handshakes carries one small request,
//! because tickets come behind the handshake. gRPC has an origin of its own (`origin/grpc.rs`), which
//! all speak HTTP/2 to without TLS, and each answer is checked, its trailers too. The generator does as much cryptography as the
//! proxy and takes a core of its own: rates are bounded by it, CPU time is not.

use std::time::Duration;

use super::{Options, Settings};
use crate::{
    meter::Reading,
    server::{Kind, Server},
    stats::{Table, figure, median},
    tls::{Clients, Done, Files},
};

/// Connections that are made at once, and kept ones.
const AT_ONCE: usize = 8;
const KEPT: usize = 32;
const BULK_BYTES: u64 = 100_000_000;

const KINDS: [Kind; 3] = [Kind::Underpass { bypass: false }, Kind::Nginx, Kind::HaProxy];

/// A load, and what is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Full,
    Resumed,
    Http1,
    Http2,
    Grpc,
    Bulk,
}

impl Row {
    const ALL: [Self; 6] =
        [Self::Full, Self::Resumed, Self::Http1, Self::Http2, Self::Grpc, Self::Bulk];

    /// Of the rate, and of the CPU time.
    fn labels(self) -> [&'static str; 2] {
        match self {
            Self::Full => ["full handshakes/s", "CPU µs/full handshake, proxy"],
            Self::Resumed => ["resumed handshakes/s", "CPU µs/resumed handshake, proxy"],
            Self::Http1 => ["HTTP/1.1 requests/s", "CPU µs/HTTP/1.1 request, proxy"],
            Self::Http2 => ["HTTP/2 requests/s", "CPU µs/HTTP/2 request, proxy"],
            Self::Grpc => ["gRPC unary calls/s", "CPU µs/gRPC unary call, proxy"],
            Self::Bulk => ["100 MB down, MB/s", "CPU ms/GB, proxy"],
        }
    }

    /// What one of the counted is in the figures.
    fn scale(self) -> (f64, f64) {
        match self {
            // Bytes to MB; seconds per byte to milliseconds per GB.
            Self::Bulk => (1e-6, 1e12),
            _ => (1.0, 1e6),
        }
    }

    fn work(self, clients: &Clients<'_>, time: Duration) -> anyhow::Result<Done> {
        match self {
            Self::Full => clients.fresh(false, AT_ONCE, time),
            Self::Resumed => clients.fresh(true, AT_ONCE, time),
            Self::Http1 => clients.http1(KEPT, time),
            Self::Http2 => clients.http2(AT_ONCE, time),
            Self::Grpc => clients.grpc(AT_ONCE, time),
            Self::Bulk => clients.download(BULK_BYTES),
        }
    }
}

/// Measures and prints.
///
/// # Errors
/// If ours does not start, or something is not answered as it has to be.
pub fn run(settings: &Settings, options: &Options) -> anyhow::Result<()> {
    let files = Files::new()?;
    let (origin, grpc_origin) = (Server::origin()?, Server::grpc_origin()?);
    let rounds = options.rounds.unwrap_or(settings.size(5, 1)).max(1);
    let seconds = options.seconds.unwrap_or(settings.size(1.5, 0.3));
    let time = Duration::from_secs_f64(seconds);
    println!(
        "tls, one worker each, ECDSA P-256, TLS 1.3 with X25519, {rounds} rounds of {time:?}, medians"
    );
    let mut servers = Vec::new();
    for kind in KINDS {
        let start = |origin: &Server, change: &dyn Fn(String) -> String| {
            Server::start_with(kind, settings, origin.address, 1, change)
        };
        let web = start(&origin, &|text| files.secured(kind, &text));
        let grpc = start(&grpc_origin, &|text| files.secured_grpc(kind, &text));
        match web.and_then(|web| Ok([web, grpc?])) {
            Ok(both) => servers.push(both),
            Err(reason) if matches!(kind, Kind::Underpass { .. }) => return Err(reason),
            Err(reason) => println!("{}: not available: {reason:#}", kind.name()),
        }
    }
    println!();
    let names = servers.iter().map(|[web, _]| web.name);
    let mut table = Table::new(["figure"].into_iter().chain(names));
    for row in Row::ALL {
        let mut figures = vec![[Vec::new(), Vec::new()]; servers.len()];
        for round in 0..rounds {
            for turn in 0..servers.len() {
                let index = (round + turn) % servers.len();
                let server = &servers[index][usize::from(row == Row::Grpc)];
                let measured = measure(row, &files, server, time)?;
                for (all, figure) in figures[index].iter_mut().zip(measured) {
                    all.push(figure);
                }
            }
        }
        for (at, label) in row.labels().into_iter().enumerate() {
            let medians = figures.iter().map(|figures| median(figures[at].iter().copied()));
            let cells = medians.map(|value| figure(Some(value)));
            table.row([label.to_owned()].into_iter().chain(cells).collect::<Vec<_>>());
        }
    }
    table.print();
    Ok(())
}

/// Rate and CPU time of one measurement.
fn measure(row: Row, files: &Files, server: &Server, time: Duration) -> anyhow::Result<[f64; 2]> {
    let clients = Clients::new(files, server.address);
    // Connections to the origin, and whatever is made at the first request.
    match row {
        Row::Grpc => clients.grpc(AT_ONCE, time / 10)?,
        _ => clients.http1(KEPT, time / 10)?,
    };
    let before = Reading::now(&[], &server.pids)?;
    let done = row.work(&clients, time)?;
    let used = Reading::now(&[], &server.pids)?.since(&before).proxy;
    let (rate, cost) = row.scale();
    let count = done.count as f64;
    Ok([count * rate / done.elapsed.as_secs_f64(), used.as_secs_f64() * cost / count])
}
