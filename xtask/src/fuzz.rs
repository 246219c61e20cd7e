//! `cargo xtask fuzz`: builds and runs the fuzz targets on the stable compiler.
//!
//! libFuzzer needs counters at every edge, which is an LLVM pass that any rustc has; it
//! needs no sanitizer, hence no nightly and no cargo-fuzz. Flags are those of cargo-fuzz
//! with `--sanitizer none`, but for the single codegen unit, which costs minutes.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::workspace::{call, cargo, host, root, say};

/// Fuzz what reads bytes from peers
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the targets, run none
    #[arg(long)]
    build_only: bool,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target
    target: Option<String>,
}

const COVERAGE: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Folded branches would hide edges.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Cdebug-assertions",
    "--cfg=fuzzing",
];

/// Whether the targets are right, as far as the compiler can tell without making code of them.
pub(crate) fn check() -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    // Where the rest of the workspace is checked: dependencies are, with the same features.
    let target_dir = root().join("target");
    let mut check = cargo();
    check.current_dir(root().join("fuzz")).args(["clippy", "--bins", "--target-dir"]);
    call(check.arg(target_dir).args(["--", "-D", "warnings"]))
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !is_possible() {
        return Ok(());
    }
    let triple = host()?;
    let package = root().join("fuzz");
    let target_dir = root().join("target/fuzz");
    call(
        cargo()
            .current_dir(&package)
            .args(["build", "--release", "--bins"])
            // Named, so that build scripts and macros are built without the counters.
            .args(["--target", &triple])
            .arg("--target-dir")
            .arg(&target_dir)
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\u{1f}")),
    )?;
    if args.build_only {
        say("fuzz: built");
        return Ok(());
    }

    let mut ran = 0;
    for name in targets()? {
        if args.target.as_ref().is_some_and(|target| *target != name) {
            continue;
        }
        say(format_args!("fuzz: {name}, {} s", args.seconds));
        let corpus = package.join("corpus").join(&name);
        let found = package.join("artifacts").join(&name);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&found)?;
        call(
            Command::new(target_dir.join(&triple).join("release").join(&name))
                .arg(format!("-max_total_time={}", args.seconds))
                // A buffer without bound is a fault as much as a panic.
                .args(["-rss_limit_mb=512", "-timeout=10"])
                .arg(format!("-artifact_prefix={}/", found.display()))
                .arg(&corpus),
        )?;
        ran += 1;
    }
    if ran == 0 {
        bail!("there is no such fuzz target");
    }
    Ok(())
}

/// libFuzzer is C++; without a compiler for it there is nothing to build.
fn is_possible() -> bool {
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let is_there = Command::new(&compiler).arg("--version").output().is_ok();
    if !is_there {
        say(format_args!("fuzz: skipped, there is no C++ compiler (`{compiler}`)"));
    }
    is_there
}

fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path: PathBuf = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let stem = path.file_stem().context("a file has a name")?;
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
