//! `cargo xtask bench` and `cargo xtask soak`: build in release, then hand over to the
//! package `benches`.

use std::{
    env,
    path::{self, Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    ebpf,
    workspace::{binary, call, cargo, exit, root, say},
};

/// The proxy to be measured, if it is not that of this tree.
const PROXY: &str = "UNDERPASS_BIN";

/// What the harness reads: the proxy that is made with Pingora, or why there is none.
const PINGORA: &str = "UNDERPASS_BENCH_PINGORA";
const WITHOUT_PINGORA: &str = "UNDERPASS_BENCH_WITHOUT_PINGORA";

/// Compares every record of many exchanges with what both ends sent.
const EXCHANGES: &str = "record::exchanges::a_million_exchanges_are_stored_as_they_were";

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

/// Builds everything, then runs the soak: `underpass-benches soak ARGS`, or with `--record
/// [EXCHANGES]` that of the recorder.
pub(crate) fn soak(args: &[String]) -> Result<ExitCode> {
    match args {
        [first, rest @ ..] if first == "--record" => record(rest),
        _ => exit(harness()?.arg("soak").args(args)),
    }
}

/// The test of the recorder that is too long for every day, with the proxy in release.
fn record(args: &[String]) -> Result<ExitCode> {
    let exchanges = match args {
        [] => 1_000_000,
        [number] => number.parse::<u64>().context("soak --record [EXCHANGES]")?,
        _ => bail!("soak --record [EXCHANGES]"),
    };
    let proxy = measured()?;
    let mut command = cargo();
    command.args([
        "test",
        "--package",
        "underpass-tests",
        "--test",
        "behaviour",
        "--",
        "--ignored",
    ]);
    command.args(["--exact", "--nocapture", EXCHANGES]);
    command.env(PROXY, proxy);
    exit(command.env("UNDERPASS_TEST_EXCHANGES", exchanges.to_string()))
}

/// The proxy that [`PROXY`] names, or that of this tree, built.
fn measured() -> Result<PathBuf> {
    if let Some(named) = env::var_os(PROXY) {
        return Ok(path::absolute(named)?);
    }
    ebpf::build_or_warn();
    call(cargo().args(["build", "--release", "--package", "underpass", "--bin", "underpass"]))?;
    binary("release", "underpass")
}

fn harness() -> Result<Command> {
    harness_of(&measured()?)
}

/// The harness, for a proxy that is there.
pub(crate) fn harness_of(proxy: &Path) -> Result<Command> {
    if !proxy.exists() {
        bail!("{} is not there", proxy.display());
    }
    let mut command = cargo();
    command.args(["run", "--release", "--package", "underpass-benches", "--", "--proxy"]);
    command.arg(proxy);
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
