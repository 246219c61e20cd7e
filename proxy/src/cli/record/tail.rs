//! `underpass record tail`: exchanges as they end, until interrupted.

use std::{ops::ControlFlow, process::ExitCode, thread, time::Duration};

use anyhow::Context as _;

use crate::record::read::{Follow, Place, lines_from};

use super::{Lines, write_out};

/// How often is looked whether there is more.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    lines: Lines,

    /// Begin with all that has been recorded
    #[arg(long)]
    all: bool,

    /// End after so many
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<usize>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (mut place, mut follow) = (Place::default(), Follow::default());
    let mut left = args.count.unwrap_or(usize::MAX);
    let mut tells = args.all;
    while left > 0 {
        let mut out = String::new();
        let read = lines_from(&args.lines.folder.dir, &mut place, |line| {
            let Some(record) = follow.take(line) else { return ControlFlow::Continue(()) };
            if tells && left > 0 && args.lines.filter.takes(&record) {
                out += &args.lines.shown(&record);
                left -= 1;
            }
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        read.with_context(|| format!("reading {}", args.lines.folder.dir.display()))?;
        if !write_out(out.as_bytes())? {
            break;
        }
        // What was there before has been seen, for what belongs to it.
        tells = true;
        if left > 0 {
            thread::sleep(LOOK);
        }
    }
    Ok(ExitCode::SUCCESS)
}
