//! `underpass-benches NAME [--quick]`: one measurement, its table on standard output.
//!
//! The proxy that is measured is the binary beside this one, or `--proxy PATH`; only
//! `allocs` runs it inside this process, to see its heap.

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
};

use clap::{Parser, ValueEnum};
use underpass_benches::{counting, origin, run};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[derive(Debug, Parser)]
#[command(about = "Measurements of Underpass beside a direct connection and nginx")]
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
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// Time to the first byte, direct against proxied
    Ttfb,
    /// Memory while 100 MB stream, and per idle connection
    Rss,
    /// Heap allocations per request; fails above the pinned bound
    Allocs,
    /// Requests per second and CPU per request beside nginx
    Peers,
    /// All of the above, in this order
    All,
    /// The origin alone, until standard input ends (what the others start)
    #[value(hide = true)]
    Origin,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let settings = run::Settings { quick: args.quick, proxy: args.proxy };
    match args.name {
        Name::Ttfb => run::ttfb::run(&settings),
        Name::Rss => run::rss::run(&settings),
        Name::Allocs => run::allocs::run(&settings),
        Name::Peers => run::peers::run(&settings),
        Name::All => {
            run::ttfb::run(&settings)?;
            run::rss::run(&settings)?;
            run::peers::run(&settings)?;
            run::allocs::run(&settings)
        }
        Name::Origin => serve_origin(),
    }
}

/// Ends with whoever started it: its standard input is their pipe.
fn serve_origin() -> anyhow::Result<()> {
    let address = origin::spawn()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening origin http://{address}")?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
