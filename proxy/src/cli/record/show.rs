//! `underpass record show`: one exchange.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    config::value,
    record::{
        Side,
        read::Record,
        show::{Detail, Shown, as_text, decode, look, socket::as_messages},
    },
};

use super::{Folder, MOST_BYTES, Redacting, write_out};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Its id, as `ls` has it; `last` for the one that began last
    id: String,

    #[command(flatten)]
    folder: Folder,

    #[command(flatten)]
    redacting: Redacting,

    /// Every event of a stream, with its time
    #[arg(long)]
    events: bool,

    /// Every chunk, with its time
    #[arg(long, conflicts_with = "events")]
    chunks: bool,

    /// As JSON
    #[arg(long, conflicts_with_all = ["events", "chunks"])]
    json: bool,

    /// Only the bytes of a body, as they were recorded
    #[arg(long, value_name = "request|response", value_parser = side)]
    raw: Option<Side>,

    /// With --raw: without its content coding
    #[arg(long, requires = "raw")]
    decoded: bool,

    /// Most that is unpacked of a compressed body
    #[arg(long, value_name = "SIZE", default_value = MOST_BYTES, value_parser = value::size)]
    max_decoded: u64,
}

fn side(text: &str) -> Result<Side, String> {
    let found = Side::ALL.into_iter().find(|side| side.name() == text);
    found.ok_or_else(|| "write request or response".to_owned())
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut record = args.folder.record(&args.id)?;
    let most = args.max_decoded as usize;
    args.redacting.apply(std::slice::from_mut(&mut record), most)?;
    if let Some(side) = args.raw {
        let bytes = match args.decoded {
            false => record.body(side).bytes.clone(),
            true => {
                let fields = match side {
                    Side::Request => record.begin.as_ref().map(|begin| &begin.headers),
                    Side::Response => record.answer.as_ref().map(|answer| &answer.headers),
                };
                decode(record.body(side), fields.unwrap_or(&Vec::new()), most).bytes
            }
        };
        write_out(&bytes)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = look(&record, most);
    let detail = match (args.events, args.chunks) {
        (true, _) => Detail::Events,
        (_, true) => Detail::Chunks,
        _ => Detail::Message,
    };
    let text = match args.json {
        true => as_json(&record, &shown),
        false => as_text(&record, &shown, detail),
    };
    write_out(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn as_json(record: &Record, shown: &Shown) -> String {
    let [request, response] = Side::ALL.map(|side| {
        let (body, decoded) = (record.body(side), &shown.decoded[side as usize]);
        let gaps: Vec<_> = body
            .gaps
            .iter()
            .map(|gap| json!({ "offset": gap.offset, "missing": gap.missing }))
            .collect();
        let text = std::str::from_utf8(&decoded.bytes).ok();
        json!({
            "bytes": body.length,
            "json": shown.json[side as usize],
            "text": text.filter(|_| shown.json[side as usize].is_none()),
            "stopped": decoded.stopped,
            "missing": gaps,
            "trailers": body.trailers,
        })
    });
    let json = json!({
        "id": record.id,
        "begin": record.begin,
        "answer": record.answer,
        "end": record.end,
        "whole": record.is_whole(),
        "request": request,
        "response": response,
        "events": shown.events,
        "message": shown.message,
        "websocket": as_messages(&shown.socket),
    });
    serde_json::to_string_pretty(&json).unwrap_or_default() + "\n"
}
