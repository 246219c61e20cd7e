//! `underpass record export`: exchanges for other programs.

use std::{
    fs::OpenOptions,
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;

use crate::{
    config::value,
    record::{
        export::{Format, export},
        read::Lookup,
    },
};

use super::{Filter, Folder, MOST_BYTES, Redacting};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Only these exchanges, by id
    ids: Vec<String>,

    #[command(flatten)]
    folder: Folder,

    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    redacting: Redacting,

    /// har, html, jsonl or curl
    #[arg(long, short, value_name = "FORMAT", value_parser = format)]
    format: Format,

    /// File to write, for nobody else to read; standard output if it is not given
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Most that is unpacked of a compressed body
    #[arg(long, value_name = "SIZE", default_value = MOST_BYTES, value_parser = value::size)]
    max_decoded: u64,
}

fn format(text: &str) -> Result<Format, String> {
    let found = Format::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, format)| *format).ok_or_else(|| "write har, html, jsonl or curl".to_owned())
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let most = args.max_decoded as usize;
    let mut records = args.folder.records(Lookup::All)?;
    records.retain(|record| {
        (args.ids.is_empty() || args.ids.contains(&record.id))
            && args.filter.takes_also(record, most)
    });
    args.redacting.apply(&mut records, most)?;
    let written = match &args.output {
        Some(path) => {
            let mut options = OpenOptions::new();
            let file = options.create(true).write(true).truncate(true).mode(0o600).open(path);
            let file = file.with_context(|| format!("writing {}", path.display()))?;
            let mut out = BufWriter::new(file);
            export(&records, args.format, most, &mut out).and_then(|()| out.flush())
        }
        None => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            export(&records, args.format, most, &mut out).and_then(|()| out.flush())
        }
    };
    super::unless_nobody_reads(written)?;
    Ok(ExitCode::SUCCESS)
}
