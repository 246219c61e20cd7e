//! `underpass record`: what has been recorded, listed and shown. Reads a folder, also while it is
//! written; what is torn or damaged is skipped, and said on stderr.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use crate::record::read::{Damage, Lookup, Record, assemble};

mod filter;
mod ls;
mod show;

use filter::Filter;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List exchanges, one a line.
    Ls(ls::Args),
    /// Show one exchange.
    Show(show::Args),
}

/// Where the records are.
#[derive(Debug, clap::Args)]
struct Folder {
    /// Folder of the recorder
    #[arg(long, short, value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ls(args) => ls::run(&args),
        Command::Show(args) => show::run(&args),
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

    /// One record.
    fn record(&self, id: &str) -> anyhow::Result<Record> {
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

/// Writes to standard output; that nobody reads on is no failure.
fn write_out(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A text for a terminal: whatever could be taken for a command of it is escaped. `lines`: line
/// feeds and tabs stay.
fn plain(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let stays = lines && matches!(character, '\n' | '\t');
        let marks = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
        if !stays && (character.is_control() || marks) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}
