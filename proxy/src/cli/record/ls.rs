//! `underpass record ls`: exchanges in the order in which they began, one a line.

use std::{fmt::Write as _, process::ExitCode};

use serde_json::json;

use crate::record::{
    Side,
    read::{Lookup, Record},
};

use super::{Filter, Folder, plain, write_out};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    folder: Folder,

    #[command(flatten)]
    filter: Filter,

    /// One JSON object a line
    #[arg(long)]
    json: bool,

    /// Only the last so many
    #[arg(long, short = 'n', value_name = "N")]
    last: Option<usize>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut records = args.folder.records(Lookup::Heads)?;
    records.retain(|record| args.filter.takes(record));
    let from = args.last.map_or(0, |last| records.len().saturating_sub(last));
    let mut out = String::new();
    for record in &records[from..] {
        match args.json {
            true => _ = writeln!(out, "{}", as_json(record)),
            false => _ = writeln!(out, "{}", as_line(record)),
        }
    }
    write_out(out.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// A line of plain text.
pub(super) fn as_line(record: &Record) -> String {
    let mut line = record.id.clone();
    if let Some(begin) = &record.begin {
        let time = begin.time.get(..23).unwrap_or(&begin.time);
        let _ = write!(line, "  {time}  {:6} {}", begin.method, begin.url());
    } else {
        line += "  (its beginning is gone)";
    }
    match &record.answer {
        Some(answer) => _ = write!(line, "  {}", answer.status),
        None => line += "  -",
    }
    let [up, down] = Side::ALL.map(|side| record.body(side).length);
    let _ = write!(line, "  {up} B up, {down} B down");
    match &record.end {
        Some(end) => _ = write!(line, "  {:.1} ms  {}", end.at as f64 / 1e3, end.how),
        None => line += "  unfinished",
    }
    let missing = record.missing_bytes();
    if missing > 0 {
        let _ = write!(line, "  {missing} B missing");
    }
    plain(&line, false)
}

fn as_json(record: &Record) -> serde_json::Value {
    let begin = record.begin.as_ref();
    json!({
        "id": record.id,
        "time": begin.map(|begin| &begin.time),
        "method": begin.map(|begin| &begin.method),
        "url": begin.map(|begin| begin.url()),
        "host": begin.map(|begin| &begin.host),
        "listener": begin.map(|begin| &begin.listener),
        "route": begin.and_then(|begin| begin.route.as_ref()),
        "status": record.answer.as_ref().map(|answer| answer.status),
        "ttfb_us": record.answer.as_ref().map(|answer| answer.at),
        "duration_us": record.end.as_ref().map(|end| end.at),
        "end": record.end.as_ref().map(|end| &end.how),
        "error": record.end.as_ref().and_then(|end| end.error.as_ref()),
        "request_bytes": record.body(Side::Request).length,
        "response_bytes": record.body(Side::Response).length,
        "response_chunks": record.body(Side::Response).chunks.len(),
        "missing_bytes": record.missing_bytes(),
        "whole": record.is_whole(),
    })
}
