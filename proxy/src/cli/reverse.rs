//! `underpass reverse`: a quick reverse proxy without a file.
//!
//! One listener, one upstream, everything goes there. The admin endpoint is off unless
//! `--admin` asks for it, so that two quick proxies never meet on its port.

use std::{net::SocketAddr, process::ExitCode};

use crate::config::{Config, Errors, Protocol, Server, value};

use super::common::{self, Common};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address to listen on; port 0 picks one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = value::address)]
    listen: SocketAddr,

    /// Server that answers: http://127.0.0.1:3000 or host:port; several share the load
    #[arg(long, value_name = "SERVER", required = true, value_parser = value::server)]
    to: Vec<Server>,

    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    common::serve(config(args)?)
}

pub(super) fn config(args: Args) -> Result<Config, Errors> {
    let mut draft = common::draft();
    draft.listeners.push(common::listener("reverse", args.listen, Protocol::Http));
    common::route_all_to(&mut draft, args.to);
    args.common.apply(&mut draft);
    draft.resolve(Errors::default())
}
