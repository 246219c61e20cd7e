//! `underpass doctor`: what this kernel offers, tier by tier.

use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { json: _ } = args;
    anyhow::bail!("the probe is not part of this build")
}
