//! `underpass check`: everything that is wrong in a file, without starting anything.
//!
//! stdout: `FILE: ok` and a summary, or with `--effective` a TOML file in which these
//! lines are comments. Warnings and errors go to stderr; errors give status 2.

use std::{fmt::Write as _, io::Write as _, path::PathBuf, process::ExitCode};

use crate::config::{self, Action, Config, Loaded, Protocol, Route};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file (TOML)
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,

    /// Write the configuration in force, defaults included and passwords hidden, as TOML
    #[arg(long)]
    effective: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Loaded { config, sources } = config::load_draft(&args.config).resolve();
    let config = config?;
    for warning in &config.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    let mut summary = format!("{}: ok\n", args.config.display());
    for included in sources.files().skip(1) {
        let _ = writeln!(summary, "  include {}", included.display());
    }
    summarise(&config, &mut summary);
    let text = if args.effective {
        let comments = summary.lines().fold(String::new(), |all, line| all + "# " + line + "\n");
        comments + "\n" + &config.effective()
    } else {
        summary
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// One line per listener, and below it one per route.
pub(super) fn summarise(config: &Config, out: &mut String) {
    // Writing to a `String` cannot fail.
    for (index, listener) in config.listeners.iter().enumerate() {
        let (name, address) = (&listener.name, listener.address);
        match &listener.protocol {
            Protocol::Http => {
                let _ = writeln!(out, "  listener {name}: http on {address}");
                write_routes(config, index, false, out);
            }
            Protocol::Tcp => {
                let _ = writeln!(out, "  listener {name}: tcp on {address}");
                write_routes(config, index, true, out);
            }
            Protocol::Forward(policy) => {
                let users = match policy.users.len() {
                    0 => "no password".to_owned(),
                    1 => "1 user".to_owned(),
                    n => format!("{n} users"),
                };
                let _ = writeln!(out, "  listener {name}: forward on {address}, {users}");
            }
        }
    }
    if let Some(acme) = &config.acme {
        let (directory, storage) = (&acme.directory, acme.storage.display());
        let challenge = config::acme::challenge(acme);
        let _ = writeln!(out, "  acme: {directory} by {challenge}, stored in {storage}");
    }
    let admin = config.admin.map_or("off".to_owned(), |address| address.to_string());
    let _ = writeln!(out, "  admin: {admin}");
}

fn write_routes(config: &Config, listener: usize, tcp: bool, out: &mut String) {
    let on = |route: &&Route| route.is_on(listener, tcp);
    for route in config.routes.iter().filter(on) {
        let _ = writeln!(out, "    {}", describe(config, route, tcp));
    }
}

fn describe(config: &Config, route: &Route, tcp: bool) -> String {
    let methods: Vec<&str> = route.methods.iter().map(http::Method::as_str).collect();
    let method = match methods.as_slice() {
        [] => String::new(),
        methods => methods.join(",") + " ",
    };
    let host = route.host.as_ref().or(route.sni.as_ref());
    let host = host.map_or("*".to_owned(), ToString::to_string);
    let path = match &route.path {
        Some(path) if path.key() == "path" => format!("{path} exactly"),
        Some(path) => path.to_string(),
        None => if tcp { "" } else { "/" }.to_owned(),
    };
    let more = match (route.headers.is_empty(), route.query.is_empty()) {
        (true, true) => "",
        (false, true) => " by headers",
        (true, false) => " by query",
        (false, false) => " by headers and query",
    };
    let upstream = |index: usize| {
        let Some(upstream) = config.upstreams.get(index) else { return String::new() };
        let servers: Vec<String> = upstream.servers.iter().map(ToString::to_string).collect();
        format!("{} ({})", upstream.name, servers.join(", "))
    };
    let action = match &route.action {
        Action::Upstream(index) => upstream(*index),
        Action::Split(split) => {
            let part = |(index, weight): &(usize, u32)| format!("{weight} of {}", upstream(*index));
            split.upstreams.iter().map(part).collect::<Vec<_>>().join(", ")
        }
        Action::Redirect(redirect) => format!("{} {}", redirect.status.as_u16(), redirect.to),
        Action::Respond(respond) => format!("{} by itself", respond.status.as_u16()),
    };
    format!("{method}{host}{path}{more} -> {action}")
}
