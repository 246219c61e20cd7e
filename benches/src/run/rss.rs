//! Resident memory of the proxy: while bodies stream, and for connections that idle.
//!
//! A stream of 100 MB may move it by less than 5 MB (REQ-CORE-001); that is asserted.
//! Memory of the kernel's socket buffers is in no process's figure.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::Settings;
use crate::{
    client::{self, Client},
    process,
    server::Server,
    stats::Table,
};

const STREAM_BYTES: usize = 100_000_000;
/// REQ-CORE-001, of one stream.
const MAX_DELTA_BYTES: i64 = 5_000_000;
/// After each read of up to 64 KiB: about 30 MB/s.
const SLOW: Duration = Duration::from_millis(2);
/// What the proxy still does after our last byte.
const SETTLE: Duration = Duration::from_millis(300);
/// Until a connection counts as idle: by then what a proxy gives up has been given up.
const IDLE: Duration = Duration::from_secs(5);
/// Connections of clients that have idled before: what there is once, and what the allocator
/// has left over from the start, is not theirs.
const WARM: usize = 200;

/// Measures and prints.
///
/// # Errors
/// If a target does not start or answer, or a stream moves the memory beyond its bound.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let origin = Server::origin()?;
    let bytes = settings.size(STREAM_BYTES, STREAM_BYTES / 10);
    println!(
        "rss while {} MB stream, KB; `peak` is the highest, not a sample\n",
        bytes / 1_000_000
    );
    let mut table = Table::new(["proxy", "streams", "baseline", "peak", "delta", "MB/s"]);
    let mut worst = 0;
    for case in [
        Case { label: "1 down, fast reader", streams: 1, pause: Duration::ZERO, up: false },
        Case { label: "1 down, slow reader", streams: 1, pause: SLOW, up: false },
        Case { label: "1 up", streams: 1, pause: Duration::ZERO, up: true },
        Case { label: "10 down, fast readers", streams: 10, pause: Duration::ZERO, up: false },
        Case { label: "10 down, slow readers", streams: 10, pause: SLOW, up: false },
    ] {
        // A process for each case: what one leaves behind is not the other's baseline.
        for proxy in proxies(settings, origin.address)? {
            let measured = case.measure(&proxy, bytes)?;
            let delta = measured.peak - measured.baseline;
            if proxy.name == "underpass" && case.streams == 1 {
                worst = worst.max(delta);
            }
            table.row([
                format!("{}: {}", proxy.name, case.label),
                case.streams.to_string(),
                kb(measured.baseline),
                kb(measured.peak),
                kb(delta),
                format!("{:.0}", measured.rate / 1e6),
            ]);
        }
    }
    table.print();

    let connections = settings.size(1_000, 200);
    println!("rss of {connections} connections that have idled for {IDLE:?}\n");
    let mut table = Table::new(["proxy", "connections", "before KB", "after KB", "KB each"]);
    for kind in [Idle::Unused, Idle::Used, Idle::Pooled] {
        // Again a process for each: not all memory that was freed is given back.
        for proxy in proxies(settings, origin.address)? {
            let (before, after) = idle(&proxy, connections, kind)?;
            let each = (after - before) as f64 / 1024.0 / connections as f64;
            table.row([
                proxy.name.into(),
                kind.label().into(),
                kb(before),
                kb(after),
                format!("{each:.2}"),
            ]);
        }
    }
    table.print();
    ensure!(
        worst < MAX_DELTA_BYTES,
        "one stream moved the memory by {worst} bytes; the bound is {MAX_DELTA_BYTES}"
    );
    Ok(())
}

fn proxies(settings: &Settings, origin: SocketAddr) -> anyhow::Result<Vec<Server>> {
    let proxies = [Some(Server::underpass(settings, origin)?), Server::nginx(settings, origin)];
    Ok(proxies.into_iter().flatten().collect())
}

/// Which connections idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Idle {
    /// A client's, without a request.
    Unused,
    /// A client's, after one request.
    Used,
    /// To the origin, after one request each, all at once; their clients have left.
    Pooled,
}

impl Idle {
    fn label(self) -> &'static str {
        match self {
            Self::Unused => "of clients, unused",
            Self::Used => "of clients, after a request",
            Self::Pooled => "to the origin, pooled",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Case {
    label: &'static str,
    streams: usize,
    pause: Duration,
    up: bool,
}

struct Measured {
    baseline: i64,
    peak: i64,
    rate: f64,
}

impl Case {
    fn measure(self, proxy: &Server, bytes: usize) -> anyhow::Result<Measured> {
        // Code pages and the first connection are not the stream's.
        Client::connect(proxy.address)?.exchange(&client::get("/stream/1000000"))?;
        process::reset_peak(proxy.pid)?;
        let baseline = process::rss(proxy.pid)?;
        let started = Instant::now();
        let address = proxy.address;
        std::thread::scope(|scope| {
            let streams: Vec<_> = (0..self.streams)
                .map(|_| scope.spawn(move || self.stream(address, bytes)))
                .collect();
            for stream in streams {
                stream.join().ok().context("a stream panicked")??;
            }
            anyhow::Ok(())
        })?;
        let rate = (bytes * self.streams) as f64 / started.elapsed().as_secs_f64();
        Ok(Measured { baseline, peak: process::peak_rss(proxy.pid)?.max(baseline), rate })
    }

    fn stream(self, address: SocketAddr, bytes: usize) -> anyhow::Result<()> {
        let mut client = Client::connect(address)?;
        if !self.up {
            client.pause = self.pause;
            let answer = client.exchange(&client::get(&format!("/stream/{bytes}")))?;
            ensure!(answer.bytes > bytes, "a body was cut short");
            return Ok(());
        }
        client.send(&client::post("/", bytes))?;
        let piece = vec![b'x'; 64 * 1024];
        let mut left = bytes;
        while left > 0 {
            let n = left.min(piece.len());
            client.send(&piece[..n])?;
            left -= n;
        }
        client.receive().map(drop)
    }
}

/// Memory before and after.
fn idle(proxy: &Server, connections: usize, kind: Idle) -> anyhow::Result<(i64, i64)> {
    let mut warm = Vec::with_capacity(WARM);
    for _ in 0..WARM {
        let mut client = Client::connect(proxy.address)?;
        client.exchange(&client::get("/"))?;
        warm.push(client);
    }
    std::thread::sleep(IDLE);
    let before = process::rss(proxy.pid)?;
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut client = Client::connect(proxy.address)?;
        match kind {
            Idle::Unused => client.forget_buffer(),
            Idle::Used => {
                client.exchange(&client::get("/"))?;
                client.forget_buffer();
            }
            // Its body is held back, so that the next one needs another connection.
            Idle::Pooled => client.send(&client::post("/", 1))?,
        }
        open.push(client);
    }
    if kind == Idle::Pooled {
        std::thread::sleep(SETTLE);
        for mut client in open.drain(..) {
            client.send(b"x")?;
            client.receive()?;
        }
    }
    std::thread::sleep(IDLE);
    let after = process::rss(proxy.pid)?;
    drop(warm);
    Ok((before, after))
}

fn kb(bytes: i64) -> String {
    (bytes / 1024).to_string()
}
