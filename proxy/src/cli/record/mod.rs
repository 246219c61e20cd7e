//! `underpass record`: what has been recorded, listed and shown. Reads a folder, also while it is
//! written; what is torn or damaged is skipped, and said on stderr.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use crate::record::read::{Damage, Lookup, Record, assemble};

mod ca;
mod export;
mod filter;
mod ls;
mod redact;
mod show;
mod tail;

pub(super) use ca::default_folder;
use filter::Filter;
use redact::Redacting;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List exchanges, one a line.
    Ls(ls::Args),
    /// Show one exchange: heads, events, the message of a language model.
    Show(show::Args),
    /// List exchanges as they end, until interrupted.
    Tail(tail::Args),
    /// Write exchanges for other programs: HAR 1.2, a page, JSON lines, curl commands.
    Export(export::Args),
    /// The authority for hosts whose TLS is taken apart.
    #[command(subcommand)]
    Ca(ca::Command),
}

/// Most that is unpacked of a compressed body, unless it is said.
const MOST_BYTES: &str = "64MiB";

/// Where the records are.
#[derive(Debug, clap::Args)]
struct Folder {
    /// Folder of the recorder
    #[arg(long, short, value_name = "DIR")]
    dir: PathBuf,
}

/// Exchanges, one a line: which, and in which form.
#[derive(Debug, clap::Args)]
struct Lines {
    #[command(flatten)]
    folder: Folder,

    #[command(flatten)]
    filter: Filter,

    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Lines {
    /// A record in a line.
    fn shown(&self, record: &Record) -> String {
        match self.json {
            true => format!("{}\n", ls::as_json(record)),
            false => ls::as_line(record) + "\n",
        }
    }
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ls(args) => ls::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Ca(command) => ca::run(&command),
    }
}

impl Folder {
    /// The records that are wanted; what is not whole is told on stderr.
    fn records(&self, wanted: Lookup<'_>) -> anyhow::Result<Vec<Record>> {
        let read = assemble(&self.dir, wanted);
        let (records, unrecorded, damage) =
            read.with_context(|| format!("reading {}", self.dir.display()))?;
        tell(damage, unrecorded);
        Ok(records)
    }

    /// One record; `last`: the one that began last.
    fn record(&self, id: &str) -> anyhow::Result<Record> {
        let last;
        let id = match id {
            "last" => {
                let heads = self.records(Lookup::Heads)?.pop();
                last = heads.with_context(|| format!("no records in {}", self.dir.display()))?.id;
                &last
            }
            id => id,
        };
        let found = self.records(Lookup::One(id))?.pop();
        found.with_context(|| format!("no record {id} in {}", self.dir.display()))
    }
}

fn tell(damage: Damage, unrecorded: u64) {
    let mut stderr = std::io::stderr().lock();
    if damage.torn > 0 {
        let _ = writeln!(stderr, "skipped: {} segments end in a torn line", damage.torn);
    }
    if damage.unreadable > 0 {
        let _ = writeln!(stderr, "skipped: {} lines that cannot be read", damage.unreadable);
    }
    if unrecorded > 0 {
        let _ = writeln!(stderr, "missing: {unrecorded} exchanges found no memory for a record");
    }
}

/// Writes to standard output. False: nobody reads on, which is no failure.
fn write_out(bytes: &[u8]) -> anyhow::Result<bool> {
    let mut stdout = std::io::stdout().lock();
    unless_nobody_reads(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

fn unless_nobody_reads(written: std::io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}
