//! `cargo xtask …`: everything that is done with this workspace, each by one command.
//!
//! Invariant: a command sets up what it needs by itself, once, and says in one line what
//! it could not have and goes on without it where that is possible. One file per command.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod cache_tests;
mod ci;
mod ebpf;
mod fuzz;
mod pgo;
mod run;
mod setup;
mod sources;
mod test;
mod tidy;
mod trace;
mod vm;
mod workspace;

#[path = "../../proxy-ebpf/fingerprint.rs"]
mod fingerprint;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, set-up, test and demo commands of Underpass")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the BPF build needs (once; below target/)
    Setup,
    /// Build the BPF programs, for the proxy to embed
    BuildEbpf,
    /// Build everything in release and run `underpass demo ARGS`
    Run {
        /// Passed on to `underpass demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run every test that this machine can run, and say what it cannot
    Test {
        /// Passed on to `cargo test --workspace`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run tests/kernel on other kernels, in virtual machines
    VmTest(vm::Args),
    /// Run the benchmarks
    Bench {
        /// Passed on to the benchmark harness
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the proxy under steady load and watch what it holds: memory, descriptors, tunnels
    Soak {
        /// Passed on: `--minutes N` and others, see `--help`. Or `--record [EXCHANGES]`: compares
        /// that many recorded exchanges with what both ends sent (a million)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the proxy in release, arranged by what it does under load (profile-guided)
    Pgo,
    /// Fuzz what reads bytes from peers
    Fuzz(fuzz::Args),
    /// Run the public tests for HTTP caches against the proxy
    CacheTests(cache_tests::Args),
    /// Check that every requirement has a test, and every mention a requirement
    Trace,
    /// Check the rules of the code base
    Tidy,
    /// Everything that has to pass before a change is merged
    Ci,
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            workspace::say(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup => _ = setup::run()?,
        Command::BuildEbpf => ebpf::build()?,
        Command::Run { args } => return run::demo(&args),
        Command::Test { args } => return test::run(&args),
        Command::VmTest(args) => return vm::run(&args),
        Command::Bench { args } => return bench::bench(&args),
        Command::Soak { args } => return bench::soak(&args),
        Command::Pgo => pgo::run()?,
        Command::Fuzz(args) => fuzz::run(&args)?,
        Command::CacheTests(args) => cache_tests::run(&args)?,
        Command::Trace => trace::run()?,
        Command::Tidy => tidy::run()?,
        Command::Ci => return ci::run(),
    }
    Ok(ExitCode::SUCCESS)
}
