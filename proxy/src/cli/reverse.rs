//! `underpass reverse`: a quick reverse proxy without a file.
//!
//! One listener, one upstream, everything goes there: requests, or whole connections if the
//! servers are given as `tcp://…`. The admin endpoint is off unless
//! `--admin` asks for it, so that two quick proxies never meet on its port.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use crate::config::{
    Config, Errors, Place, Protocol, ServerTls, Speaks, Wrong, tls,
    value::{self, Gets, Target},
};

use super::common::{self, Common};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address to listen on; port 0 picks one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = value::address)]
    listen: SocketAddr,

    /// Server that answers: http://127.0.0.1:3000, https://host, host:port, h2c://host:port for one that
    /// speaks HTTP/2, or tcp://host:port for connections that are passed on as they are;
    /// several share the load
    #[arg(long, value_name = "SERVER", required = true, value_parser = value::target)]
    to: Vec<Target>,

    /// Certificate to show clients, PEM; the listener speaks TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    common::serve(config(args)?)
}

pub(super) fn config(args: Args) -> Result<Config, Errors> {
    let mut draft = common::draft();
    let mut errors = Errors::default();
    let gets = args.to.first().map_or(Gets::Http1, |target| target.gets);
    if args.to.iter().any(|target| target.gets != gets) {
        errors.add(
            &Place::Flag("--to".to_owned()),
            Wrong::new(
                "servers that are to get different things",
                "write all of them with the same of http://, https://, h2c:// and tcp://",
            ),
        );
    }
    let tcp = gets == Gets::Tcp;
    let protocol = if tcp { Protocol::Tcp } else { Protocol::Http };
    let mut listener = common::listener("reverse", args.listen, protocol);
    if let Some(files) = args.tls_cert.zip(args.tls_key) {
        listener.tls = tls::from_flags("reverse", files, tcp, &mut errors);
    }
    draft.listeners.push(listener);
    common::route_all_to(&mut draft, args.to.into_iter().map(|target| target.server).collect());
    if gets == Gets::Https {
        match ServerTls::quick() {
            Ok(tls) => draft.upstreams.iter_mut().for_each(|draft| {
                draft.upstream.tls = Some(tls.clone());
            }),
            Err(what) => {
                let wrong = Wrong::new(format!("TLS to servers: {what}"), "write a configuration");
                errors.add(&Place::Flag("--to".to_owned()), wrong);
            }
        }
    }
    if gets == Gets::Http2 {
        draft.upstreams.iter_mut().for_each(|draft| draft.upstream.speaks = Speaks::Http2);
    }
    args.common.apply(&mut draft);
    draft.resolve(errors)
}
