//! `cargo xtask ci`: what has to pass before a change is merged, cheapest first.
//!
//! `.ci/run` is this and the packages of the system that the tests like to have.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::{
    ebpf, fuzz, test, tidy, trace, vm,
    workspace::{call, cargo, say},
};

pub(crate) fn run() -> Result<ExitCode> {
    step("format");
    call(cargo().args(["fmt", "--all", "--check"]))?;
    step("tidy");
    tidy::run()?;
    step("trace");
    trace::run()?;
    // Before anything that builds the proxy, which embeds it.
    step("BPF programs");
    ebpf::build_or_warn();
    step("clippy");
    call(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // What only tests are built with. The whole workspace again, or its dependencies would have
    // other features and be built once more.
    let lib = ["clippy", "--workspace", "--features", "underpass/fault-injection", "--all-targets"];
    call(cargo().args(lib).args(["--", "-D", "warnings"]))?;
    step("documentation");
    let mut doc = cargo();
    call(doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    step("fuzz targets");
    fuzz::check()?;
    step("other kernels");
    if vm::run(&vm::Args::or_skip())? != ExitCode::SUCCESS {
        bail!("the tests on other kernels failed");
    }
    // Last, so that the output ends with the runner's summary.
    step("tests");
    test::run(&[])
}

fn step(name: &str) {
    say(format_args!("ci: {name}"));
}
