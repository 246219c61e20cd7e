//! `cargo xtask run` and `cargo xtask bench`: build in release, then hand over.

use std::{os::unix::process::CommandExt as _, process::Command, process::ExitCode};

use anyhow::Result;

use crate::{
    ebpf,
    workspace::{binary, call, cargo, exit, say},
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

/// Builds everything, then runs the benchmark harness.
pub(crate) fn bench(args: &[String]) -> Result<ExitCode> {
    ebpf::build_or_warn();
    call(cargo().args(["build", "--release", "--package", "underpass", "--bin", "underpass"]))?;
    exit(
        cargo()
            .args(["run", "--release", "--package", "underpass-benches", "--"])
            .args(args)
            .env("UNDERPASS_BIN", binary("release", "underpass")?),
    )
}
