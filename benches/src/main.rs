//! `underpass-benches NAME [--quick]`: one measurement, its table on standard output.
//!
//! The proxy that is measured is the binary beside this one, or `--proxy PATH`; only
//! `allocs` runs it inside this process, to see its heap.

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
};

use clap::{Parser, ValueEnum};
use underpass_benches::{counting, origin, run, tunnel};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[derive(Debug, Parser)]
#[command(about = "Measurements of Underpass beside a direct connection and other proxies")]
struct Args {
    /// What to measure
    #[arg(value_enum)]
    name: Name,

    /// Fewer and shorter rounds: shows that it works, not how fast
    #[arg(long)]
    quick: bool,

    /// The proxy [default: `underpass` beside this binary]
    #[arg(long, value_name = "PATH")]
    proxy: Option<PathBuf>,

    /// peers, tunnel, cache, record: only these cells, for example
    /// row=small64|sse,engine=underpass|nginx, or topology=remote,load=pingpong64,engine=auto|haproxy,
    /// or part=alone|full
    #[arg(long, value_name = "KEY=NAME|NAME,…")]
    only: Option<String>,

    /// peers, tunnel, cache: every measurement as a line of JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// peers, tunnel, tls, cache, record: rounds [default: 5, tunnel 3, quick 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// peers, tunnel, tls, cache, record: seconds of one measurement [default: 1.5, tunnel 0.5,
    /// record 2 to 4, less with --quick]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,

    /// peers, cache, soak: worker threads of each proxy. With two cores the other one is for the
    /// generator and the origin
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,

    /// cache: GB of the working set, which is ten times what a cache may hold in memory, and
    /// takes as much of the disk [default: 10, quick 0.4]
    #[arg(long, value_name = "N")]
    gigabytes: Option<f64>,

    /// soak: how long the load is
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    minutes: f64,

    /// soak: share of the usual rate
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    rate: f64,

    /// soak: with the proxy's --local-bypass
    #[arg(long)]
    local_bypass: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// Time to the first byte, direct against proxied
    Ttfb,
    /// Memory while 100 MB stream, and per idle connection
    Rss,
    /// Heap allocations per request; fails above the pinned bound
    Allocs,
    /// What the recorder costs: by itself, off, zero_latency, standard, mitmproxy
    Record,
    /// Finding a route among 10 to 10,000; fails if that allocates
    Routes,
    /// What TCP Fast Open to servers saves, over a cable of 20 ms there and back
    FastOpen,
    /// New connections beside long ones that are all at one worker
    Steer,
    /// All of the above but record, which takes long, and fast-open, which needs root
    All,
    /// HTTP beside nginx, HAProxy and Pingora: throughput, cost, latency, memory
    Peers,
    /// TLS beside nginx and HAProxy: handshakes, requests, gRPC, bulk
    Tls,
    /// Tunnels by every engine beside HAProxy and nginx, between network namespaces too
    Tunnel,
    /// Caches beside nginx and Varnish: hits, misses, ranges, joining, a large working set
    Cache,
    /// The proxy under steady load for long: what grows, and what is left afterwards
    Soak,
    /// The origin alone, until standard input ends (what the others start)
    #[value(hide = true)]
    Origin,
    /// The origin of gRPC alone, ditto
    #[value(hide = true)]
    GrpcOrigin,
    /// The server end of the tunnels, ditto
    #[value(hide = true)]
    TunnelServer,
    /// The client end of the tunnels, ditto
    #[value(hide = true)]
    TunnelClient,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let settings = run::Settings { quick: args.quick, proxy: args.proxy };
    let Args { only, json, rounds, seconds, .. } = args;
    let soak = run::soak::Options {
        minutes: args.minutes,
        workers: args.workers.max(1),
        rate: args.rate,
        local_bypass: args.local_bypass,
        json: json.clone(),
    };
    let options = run::Options { only, json, rounds, seconds };
    match args.name {
        Name::Ttfb => run::ttfb::run(&settings),
        Name::Rss => run::rss::run(&settings),
        Name::Allocs => run::allocs::run(&settings),
        Name::Record => run::record::run(&settings, &options),
        Name::Routes => run::routes::run(&settings),
        Name::FastOpen => run::fast_open::run(&settings),
        Name::Steer => run::steer::run(&settings),
        Name::All => {
            run::ttfb::run(&settings)?;
            run::rss::run(&settings)?;
            run::steer::run(&settings)?;
            run::routes::run(&settings)?;
            run::allocs::run(&settings)
        }
        Name::Peers => run::peers::run(&settings, &options, args.workers.max(1)),
        Name::Cache => run::cache::run(&settings, &options, args.workers.max(1), args.gigabytes),
        Name::Tls => run::tls::run(&settings, &options),
        Name::Tunnel => run::tunnel::run(&settings, &options),
        Name::Soak => run::soak::run(&settings, &soak),
        Name::Origin => serve_origin(origin::spawn()?),
        Name::GrpcOrigin => serve_origin(origin::grpc::spawn()?),
        Name::TunnelServer => tunnel::serve(),
        Name::TunnelClient => tunnel::ask(),
    }
}

/// Ends with whoever started it: its standard input is their pipe.
fn serve_origin(address: std::net::SocketAddr) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening origin http://{address}")?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
