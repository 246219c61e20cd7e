//! `underpass record ls`: exchanges in the order in which they began, one a line.

use std::{fmt::Write as _, process::ExitCode};

use serde_json::json;

use crate::{
    config::value,
    record::{
        Side,
        read::{Lookup, Record},
        show::plain,
    },
};

use super::{Lines, MOST_BYTES, write_out};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    lines: Lines,

    /// Only the last so many
    #[arg(long, short = 'n', value_name = "N")]
    last: Option<usize>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // A model is named in a body.
    let Lines { folder, filter, .. } = &args.lines;
    let wanted = if filter.model.is_some() { Lookup::All } else { Lookup::Heads };
    let most = value::size(MOST_BYTES).map_or(usize::MAX, |bytes| bytes as usize);
    let mut records = folder.records(wanted)?;
    records.retain(|record| filter.takes_also(record, most));
    let from = args.last.map_or(0, |last| records.len().saturating_sub(last));
    let out: String = records[from..].iter().map(|record| args.lines.shown(record)).collect();
    write_out(out.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

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

pub(super) fn as_json(record: &Record) -> serde_json::Value {
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
