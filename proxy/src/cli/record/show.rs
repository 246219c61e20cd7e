//! `underpass record show`: one exchange.

use std::process::ExitCode;

use crate::record::Side;

use super::{Folder, write_out};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Its id, as `ls` has it
    id: String,

    #[command(flatten)]
    folder: Folder,

    /// Only the bytes of a body, as they were recorded
    #[arg(long, value_name = "request|response", value_parser = side)]
    raw: Option<Side>,
}

fn side(text: &str) -> Result<Side, String> {
    let found = Side::ALL.into_iter().find(|side| side.name() == text);
    found.ok_or_else(|| "write request or response".to_owned())
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let record = args.folder.record(&args.id)?;
    if let Some(side) = args.raw {
        write_out(&record.body(side).bytes)?;
        return Ok(ExitCode::SUCCESS);
    }
    write_out(super::ls::as_line(&record).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
