//! The command line: arguments to a command, a command to a [`Config`](crate::config::Config).
//!
//! One file per command. Each builds a draft of the configuration through the same
//! checks as the file and ends in a call of [`app::run`](crate::app::run). Invariant:
//! stdout carries only what the command was asked for; logs and errors go to stderr.
//! Exit status: 0 after a clean drain, 2 for bad arguments or configuration, 1 otherwise.

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{config::Errors, process_log};

mod cache;
mod check;
mod common;
mod demo;
mod doctor;
mod forward;
mod logging;
mod record;
mod reverse;
mod run;
#[cfg(test)]
mod tests;

/// Bad arguments or configuration; clap uses the same number.
const BAD_CONFIGURATION: u8 = 2;

/// A hybrid L4/L7 proxy: streams HTTP in userspace, moves tunnels inside the kernel.
#[derive(Debug, Parser)]
#[command(name = "underpass", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reverse proxy in front of one or more servers.
    Reverse(reverse::Args),
    /// Forward proxy: CONNECT and absolute-form requests.
    Forward(forward::Args),
    /// Run what a configuration file says.
    Run(run::Args),
    /// Check a configuration file and tell everything that is wrong in it.
    Check(check::Args),
    /// Proxy an embedded origin with things to try: HTTP, SSE, WebSocket.
    Demo(demo::Args),
    /// Look at what has been recorded.
    #[command(subcommand)]
    Record(record::Command),
    /// Look into the cache of a running proxy, or have it forget.
    #[command(subcommand)]
    Cache(cache::Command),
    /// What this kernel offers, tier by tier: yes, or no because …
    Doctor(doctor::Args),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

fn main_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with status 0, the rest to stderr with 2.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let _log = Log;
    let outcome = match cli.command {
        Command::Reverse(args) => reverse::run(args),
        Command::Forward(args) => forward::run(args),
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Record(command) => record::run(command),
        Command::Cache(command) => cache::run(command),
        Command::Doctor(args) => doctor::run(args),
    };
    outcome.unwrap_or_else(|error| report(&error))
}

/// Tells an error on stderr and gives the status that belongs to it.
fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(errors) = error.downcast_ref::<Errors>() {
        process_log::tell(&format!("{errors}\n"));
        return ExitCode::from(BAD_CONFIGURATION);
    }
    process_log::tell(&format!("underpass: {error:#}\n"));
    ExitCode::FAILURE
}

/// The process log, if there is one: it is written before the process ends, also by a panic.
struct Log;

impl Drop for Log {
    fn drop(&mut self) {
        process_log::finish();
    }
}
