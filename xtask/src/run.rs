//! `cargo xtask run`: builds in release, then hands over.

use std::{os::unix::process::CommandExt as _, process::Command, process::ExitCode};

use anyhow::Result;

use crate::{
    ebpf,
    workspace::{binary, call, cargo, say},
};

/// Builds BPF programs and proxy, then becomes `underpass demo`.
pub(crate) fn demo(args: &[String]) -> Result<ExitCode> {
    ebpf::build_or_warn();
    say("building the proxy in release (a few minutes the first time)");
    call(cargo().args(["build", "--release", "--package", "underpass", "--bin", "underpass"]))?;
    // Replaced, not called: signals and exit status are the proxy's own.
    let error = Command::new(binary("release", "underpass")?).arg("demo").args(args).exec();
    Err(error.into())
}
