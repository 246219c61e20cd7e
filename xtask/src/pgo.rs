//! `cargo xtask pgo`: the proxy in release, arranged by what it does under load (rustc book,
//! "Profile-guided Optimization"): built so that it counts, put under the loads of the benchmarks,
//! and built again for what was counted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    bench, ebpf,
    workspace::{bpf_dir, call, cargo, host, output, root, say},
};

/// What is counted: every way that many bytes or requests take. One short round of each.
const LOADS: [&[&str]; 5] = [
    &[
        "peers",
        "--only",
        "row=small1|small64|new|body1m|stream100m|sse1000,engine=underpass|underpass+bypass",
    ],
    &["tls"],
    &["cache", "--only", "row=hit1k|hit64k|disk64k|miss|partial,engine=underpass|underpass+disk"],
    &["record", "--only", "part=full|tokens"],
    &[
        "tunnel",
        "--only",
        "topology=loopback,load=pingpong64|down1|tokens200,engine=copy|pipe|auto",
    ],
];

/// Where both builds and what was counted are.
const FOLDER: &str = "pgo";

/// Builds it, and says where it is.
pub(crate) fn run() -> Result<()> {
    let profdata = profdata()?;
    ebpf::build_or_warn();
    let folder = bpf_dir(FOLDER);
    let (counts, merged) = (folder.join("counts"), folder.join("merged.profdata"));
    say("pgo: a build that counts (1 of 3)");
    let counting = build(&folder.join("counting"), &flag("-Cprofile-generate=", &counts)?)?;
    say("pgo: the loads of the benchmarks (2 of 3)");
    // Of another source, or of an earlier run.
    let _ = fs::remove_dir_all(&counts);
    for load in LOADS {
        call(bench::harness_of(&counting)?.args(load).args(["--quick", "--rounds", "1"]))
            .with_context(|| format!("the load `{}`", load[0]))?;
    }
    if fs::read_dir(&counts).map_or(0, Iterator::count) == 0 {
        bail!("the proxy has counted nothing: {} is empty", counts.display());
    }
    call(Command::new(profdata).arg("merge").arg("-o").args([&merged, &counts]))?;
    say("pgo: the build for what was counted (3 of 3)");
    let guided = build(&folder.join("guided"), &flag("-Cprofile-use=", &merged)?)?;
    say(format_args!("pgo: {}", guided.display()));
    Ok(())
}

/// Builds the proxy below a folder of its own, with one more flag for the compiler.
fn build(folder: &Path, flag: &str) -> Result<PathBuf> {
    let host = host()?;
    let mut command = cargo();
    command.args(["build", "--release", "--package", "underpass", "--bin", "underpass"]);
    // With a target of its own, so that build scripts and macros neither count nor are guided.
    command.args(["--target", &host, "--target-dir"]).arg(folder);
    command.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flag);
    call(&mut command)?;
    Ok(folder.join(host).join("release/underpass"))
}

fn flag(name: &str, path: &Path) -> Result<String> {
    let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("{name}{path}"))
}

/// The tool that merges counts: of the toolchain, because it has to be as old as the compiler.
fn profdata() -> Result<PathBuf> {
    let sysroot = output(Command::new("rustc").current_dir(root()).args(["--print", "sysroot"]))?;
    let lib = Path::new(sysroot.trim()).join("lib/rustlib").join(host()?);
    let tool = lib.join("bin/llvm-profdata");
    if !tool.exists() {
        say("pgo: adding the component llvm-tools");
        let mut rustup = Command::new("rustup");
        call(rustup.current_dir(root()).args(["component", "add", "llvm-tools"]))?;
    }
    if !tool.exists() {
        bail!("llvm-tools has no {}", tool.display());
    }
    Ok(tool)
}
