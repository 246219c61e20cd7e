//! `cargo xtask bench` and `cargo xtask soak`: build in release, then hand over to the
//! package `benches`.

use std::{path::PathBuf, process::Command, process::ExitCode};

use anyhow::{Context, Result};

use crate::{
    ebpf,
    workspace::{binary, call, cargo, exit, root, say},
};

/// What the harness reads: the proxy that is made with Pingora, or why there is none.
const PINGORA: &str = "UNDERPASS_BENCH_PINGORA";
const WITHOUT_PINGORA: &str = "UNDERPASS_BENCH_WITHOUT_PINGORA";

/// Builds everything, then runs the benchmark harness.
pub(crate) fn bench(args: &[String]) -> Result<ExitCode> {
    let mut harness = harness()?;
    if asks_for_pingora(args) {
        match pingora() {
            Ok(program) => harness.env(PINGORA, program),
            Err(reason) => harness.env(WITHOUT_PINGORA, format!("{reason:#}")),
        };
    }
    exit(harness.args(args))
}

/// Builds everything, then runs the soak: `underpass-benches soak ARGS`.
pub(crate) fn soak(args: &[String]) -> Result<ExitCode> {
    exit(harness()?.arg("soak").args(args))
}

/// The harness, which finds the proxy beside itself.
fn harness() -> Result<Command> {
    ebpf::build_or_warn();
    call(cargo().args(["build", "--release", "--package", "underpass", "--bin", "underpass"]))?;
    let mut command = cargo();
    command.args(["run", "--release", "--package", "underpass-benches", "--"]);
    command.env("UNDERPASS_BIN", binary("release", "underpass")?);
    Ok(command)
}

fn asks_for_pingora(args: &[String]) -> bool {
    let named = |arg: &String| !arg.contains("engine=") || arg.contains("pingora");
    args.first().is_some_and(|name| name == "peers") && args.iter().all(named)
}

/// Builds `benches/pingora`, a package of its own with a target folder of its own.
fn pingora() -> Result<PathBuf> {
    // zlib-ng, which Pingora compresses with, is built by it.
    Command::new("cmake").arg("--version").output().context("no cmake (Debian: cmake)")?;
    let package = root().join("benches/pingora");
    let target = root().join("target/pingora");
    say("bench: building the proxy that is made with Pingora (minutes the first time)");
    call(
        cargo()
            .current_dir(&package)
            .args(["build", "--release", "--locked", "--quiet", "--target-dir"])
            .arg(&target),
    )
    .context("it cannot be built here")?;
    Ok(target.join("release/underpass-bench-pingora"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pingora_is_built_only_for_who_asks_for_it() {
        let asks =
            |text: &str| asks_for_pingora(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(asks("peers --quick") && asks("peers --only row=new"));
        assert!(asks("peers --only engine=nginx|pingora"));
        assert!(!asks("peers --only row=new,engine=nginx") && !asks("tunnel --quick"));
    }
}
