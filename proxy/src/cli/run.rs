//! `underpass run`: what a configuration file says, with flags over it.

use std::{path::PathBuf, process::ExitCode};

use crate::{
    app::Source,
    config::{self, Loaded},
};

use super::common::{self, Common};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Configuration file (TOML)
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,

    /// Take the sockets of the process that serves (`handover` says where), and have it finish;
    /// where there is none, start as ever
    #[arg(long)]
    take_over: bool,

    /// Follow changes of the file without a signal
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    common::serve(args)
}

/// The file may be read again at any time, the flags stay.
impl Source for Args {
    const CHANGES: bool = true;

    fn load(&self) -> Loaded {
        let mut loaded = config::load_draft(&self.config);
        self.common.apply(&mut loaded.draft);
        loaded.draft.take_over = self.take_over;
        if self.watch {
            loaded.draft.watch = Some(true);
        }
        loaded.resolve()
    }
}
