//! `underpass demo`: an embedded origin behind the proxy, so that a fresh clone has
//! something to try at once.
//!
//! Never fails because a port is taken: the ports of the guide are used where they are
//! free, picked ones otherwise, and the `listening …` lines say which.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::{
    config::{Config, Errors, Protocol, Server, errors::Placed, value},
    demo,
};

use super::common::{self, Common};

const LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
const ADMIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9900);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address to listen on [default: 127.0.0.1:8080, or a free port if that is taken]
    #[arg(long, value_name = "ADDR", value_parser = value::address)]
    listen: Option<SocketAddr>,

    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let origin = demo::start().context("starting the demo's origin")?;
    let listen = args.listen.unwrap_or_else(|| free_or_picked(LISTEN));
    let admin = (!args.common.says_admin()).then(|| free_or_picked(ADMIN));
    common::serve(config(&args.common, listen, admin, origin)?)
}

pub(super) fn config(
    common: &Common,
    listen: SocketAddr,
    admin: Option<SocketAddr>,
    origin: SocketAddr,
) -> Result<Config, Errors> {
    let mut draft = common::draft();
    draft.listeners.push(common::listener("demo", listen, Protocol::Http));
    let server = Server { host: origin.ip().to_string(), port: origin.port() };
    common::route_all_to(&mut draft, vec![server]);
    draft.admin = admin.map(|address| Placed::flag(address, "--admin"));
    common.apply(&mut draft);
    draft.resolve(Errors::default())
}

/// The address if it can be bound now, else the same with port 0, and says so.
///
/// Without SO_REUSEPORT, so that a second demo does not silently share the first one's
/// port. Somebody may take it between this and the real bind; then that one fails.
pub(super) fn free_or_picked(address: SocketAddr) -> SocketAddr {
    match TcpListener::bind(address) {
        Ok(_) => address,
        Err(error) => {
            // Logging starts later, with the configuration that this address is part of.
            let mut stderr = std::io::stderr();
            let _ = writeln!(
                stderr,
                "underpass: {address} cannot be used ({error}), a free port is picked"
            );
            SocketAddr::new(address.ip(), 0)
        }
    }
}
