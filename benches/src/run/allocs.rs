//! Heap allocations of the proxy per request, counted and pinned.
//!
//! The proxy runs inside this process; only its worker's thread is counted. The bounds
//! are here, in the source: they only ever go down (REQ-CTRL-003). A count is the same
//! on every machine, so a test asserts it as well.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};

use super::Settings;
use crate::{
    client::{self, Client},
    counting::{self, Count},
    origin,
    stats::Table,
};

/// Allocations per GET on a kept connection with a small answer, access log off.
pub const MAX_GET: f64 = 7.0;
/// Allocations per POST of 1,000 bytes with a small answer.
pub const MAX_POST: f64 = 8.0;
/// Allocations per event that comes alone on a chunked stream.
pub const MAX_SSE_CHUNK: f64 = 0.0;

/// A worker does a few things by the clock, about two allocations a second.
const CLOCK: f64 = 0.1;
const BODY_BYTES: usize = 1_000;
const WARM_UP: usize = 100;

/// Cost of one unit, of one kind of traffic.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// What was sent.
    pub label: &'static str,
    /// Allocations of each.
    pub allocations: f64,
    /// Bytes asked for, of each.
    pub bytes: f64,
    /// The pinned bound.
    pub bound: f64,
}

impl Cost {
    /// Whether it is no more than it was when it was pinned.
    pub fn is_within_bound(&self) -> bool {
        self.allocations <= self.bound + CLOCK
    }
}

/// Measures, prints, and compares with the bounds.
///
/// # Errors
/// If a bound is exceeded, or the proxy does not answer.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let costs = measure(settings.size(5_000, 500))?;
    println!("allocs, of the worker's thread, per request or chunk, access log off\n");
    let mut table = Table::new(["traffic", "allocations", "bytes", "bound"]);
    for cost in costs {
        table.row([
            cost.label.into(),
            format!("{:.2}", cost.allocations),
            format!("{:.0}", cost.bytes),
            format!("{:.0}", cost.bound),
        ]);
    }
    table.print();
    for cost in costs {
        ensure!(
            cost.is_within_bound(),
            "{}: {:.2} allocations, pinned at {:.0}",
            cost.label,
            cost.allocations,
            cost.bound
        );
    }
    Ok(())
}

/// Starts a proxy in this process, which goes on until the process ends, and counts.
/// The global allocator must be [`counting::Counting`].
///
/// # Errors
/// If it does not answer.
pub fn measure(requests: usize) -> anyhow::Result<[Cost; 3]> {
    let proxy = start_proxy(origin::spawn()?)?;
    let get = client::get("/");
    let mut post = client::post("/", BODY_BYTES);
    post.resize(post.len() + BODY_BYTES, b'x');
    let get = per_request(proxy, &get, requests)?;
    let post = per_request(proxy, &post, requests)?;
    let chunk = per_chunk(proxy, requests.min(1_000))?;
    ensure!(get.allocations > 0, "nothing was counted: is the allocator the counting one?");
    let cost = |label, count: Count, units: usize, bound| Cost {
        label,
        allocations: count.allocations as f64 / units as f64,
        bytes: count.bytes as f64 / units as f64,
        bound,
    };
    Ok([
        cost("GET, kept connection, 100 bytes back", get, requests, MAX_GET),
        cost("POST of 1,000 bytes, 100 bytes back", post, requests, MAX_POST),
        cost("chunk of an event stream", chunk, requests.min(1_000), MAX_SSE_CHUNK),
    ])
}

fn per_request(proxy: SocketAddr, request: &[u8], requests: usize) -> anyhow::Result<Count> {
    let mut client = Client::connect(proxy)?;
    for _ in 0..WARM_UP {
        client.exchange(request)?;
    }
    let before = counting::of_threads("worker-");
    for _ in 0..requests {
        client.exchange(request)?;
    }
    Ok(counting::of_threads("worker-") - before)
}

/// The difference between a long and a short stream, so that their heads cancel out.
fn per_chunk(proxy: SocketAddr, chunks: usize) -> anyhow::Result<Count> {
    let mut client = Client::connect(proxy)?;
    let mut of = |chunks: usize| -> anyhow::Result<Count> {
        let before = counting::of_threads("worker-");
        client.exchange(&client::get(&format!("/sse/{chunks}")))?;
        Ok(counting::of_threads("worker-") - before)
    };
    of(10)?;
    let short = of(100)?;
    let long = of(100 + chunks)?;
    // The heads of two streams do not cost exactly the same; less than none is none.
    Ok(long.beyond(short))
}

fn start_proxy(origin: SocketAddr) -> anyhow::Result<SocketAddr> {
    // Free a moment ago; the library does not say which port it was given.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let text = format!(
        "workers = 1
[log]
access = \"off\"
[[listener]]
name = \"bench\"
address = \"{address}\"
[[route]]
upstream = \"origin\"
[[upstream]]
name = \"origin\"
servers = [\"{origin}\"]
"
    );
    let config = underpass::config::parse(&text, "bench")?;
    std::thread::Builder::new().name("proxy".into()).spawn(move || {
        if let Err(error) = underpass::app::run(config) {
            eprintln!("the proxy ended: {error:#}");
        }
    })?;
    for _ in 0..500 {
        if Client::connect(address).is_ok() {
            return Ok(address);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None.context("the proxy did not start")
}
