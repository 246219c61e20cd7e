//! `underpass run`: what a configuration file says, with flags over it.

use std::{path::PathBuf, process::ExitCode};

use crate::config::{self, Config, Errors};

use super::common::{self, Common};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file (TOML)
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,

    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    common::serve(config(args)?)
}

pub(super) fn config(args: &Args) -> Result<Config, Errors> {
    let (mut draft, errors) = config::load_draft(&args.config)?;
    args.common.apply(&mut draft);
    draft.resolve(errors)
}
