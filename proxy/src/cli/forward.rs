//! `underpass forward`: a quick forward proxy without a file.
//!
//! Safe by default: on loopback, and never to link-local or metadata addresses. A
//! password can come by the environment, because other users see a process's flags.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use ipnet::IpNet;

use crate::config::{
    Config, Errors, ForwardPolicy, HostPattern, Intercept, NotTls, Place, Protocol, Wrong,
    intercept, value,
};

use super::common::{self, Common};

/// `name:password`, for one user more.
const USER: &str = "UNDERPASS_PROXY_USER";

#[derive(clap::Args)]
pub(super) struct Args {
    /// Address to listen on; port 0 picks one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3128", value_parser = value::address)]
    listen: SocketAddr,

    /// Network that may be reached; with one or more, no other is
    #[arg(long, value_name = "NET", value_parser = value::network)]
    allow: Vec<IpNet>,

    /// Network that is never reached, besides link-local and the like
    #[arg(long, value_name = "NET", value_parser = value::network)]
    deny: Vec<IpNet>,

    /// Port or range that may be reached; with one or more, no other is
    #[arg(long = "allow-port", value_name = "PORTS", value_parser = value::ports)]
    allow_ports: Vec<(u16, u16)>,

    /// Port or range that is never reached
    #[arg(long = "deny-port", value_name = "PORTS", value_parser = value::ports)]
    deny_ports: Vec<(u16, u16)>,

    /// Who may use the proxy; UNDERPASS_PROXY_USER in the environment keeps it off the command line
    // No value parser: clap would print the password with the error.
    #[arg(long = "user", value_name = "NAME:PASSWORD")]
    users: Vec<String>,

    /// Host whose TLS is taken apart, so that what goes through can be recorded:
    /// api.example.org or *.example.org (docs/guide/intercepting.md)
    #[arg(long, value_name = "HOST", value_parser = intercept::host)]
    intercept: Vec<HostPattern>,

    /// Folder of the authority that signs for it [default: that of `underpass record ca init`]
    #[arg(long, value_name = "DIR", requires = "intercept")]
    intercept_ca: Option<PathBuf>,

    /// Who may have signed the certificates of its servers [default: whom the system trusts]
    #[arg(long, value_name = "FILE", requires = "intercept")]
    intercept_server_ca: Option<PathBuf>,

    #[command(flatten)]
    common: Common,
}

/// Without the passwords.
impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args").field("listen", &self.listen).finish_non_exhaustive()
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let from_environment = match std::env::var(USER) {
        Ok(user) => Some(user),
        Err(std::env::VarError::NotPresent) => None,
        // Serving without the password that was meant would be an open door.
        Err(std::env::VarError::NotUnicode(_)) => {
            let wrong = Wrong::new("a user that is not UTF-8", "write \"name:password\"");
            return Err(Errors::one(Place::Flag(USER.to_owned()), wrong).into());
        }
    };
    common::serve(config(args, from_environment)?)
}

pub(super) fn config(args: Args, from_environment: Option<String>) -> Result<Config, Errors> {
    let mut errors = Errors::default();
    let mut policy = ForwardPolicy {
        allow: args.allow,
        allow_ports: args.allow_ports,
        deny_ports: args.deny_ports,
        ..ForwardPolicy::default()
    };
    policy.deny.extend(args.deny);
    let users = args.users.into_iter().map(|user| ("--user", user));
    for (flag, user) in users.chain(from_environment.map(|user| (USER, user))) {
        match value::user(&user) {
            Ok(user) => policy.users.push(user),
            Err(wrong) => errors.add(&Place::Flag(flag.to_owned()), wrong),
        }
    }
    let mut draft = common::draft();
    let protocol = Protocol::Forward(policy);
    let mut listener = common::listener("forward", args.listen, protocol);
    if !args.intercept.is_empty() {
        let place = |flag: &str| Place::Flag(flag.to_owned());
        let folder = args.intercept_ca.map_or_else(super::record::default_folder, Ok);
        match folder {
            Ok(folder) => {
                let servers = place("--intercept-server-ca");
                listener.intercept = Intercept::new(
                    args.intercept,
                    (folder, &place("--intercept-ca")),
                    args.intercept_server_ca.map(|path| (path, &servers)),
                    NotTls::Tunnel,
                    &mut errors,
                );
            }
            Err(wrong) => errors.add(&place("--intercept-ca"), wrong),
        }
    }
    draft.listeners.push(listener);
    args.common.apply(&mut draft);
    draft.resolve(errors)
}
