//! `underpass record ca`: the authority that a forward proxy signs with for hosts that it
//! intercepts, made, and its certificate given to clients.

use std::{fs, io::Write as _, net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};

use super::write_out;
use crate::{
    config::{HostPattern, Wrong, intercept},
    intercept::files::{self, Scope},
};

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Make an authority: its certificate and its key, in a folder that nobody else can enter.
    Init(Init),
    /// Write the certificate of the authority, in PEM, for clients to trust. Never the key.
    Export(Export),
}

/// Where the authority is.
#[derive(Debug, clap::Args)]
struct Folder {
    /// Folder of the authority [default: underpass/ca in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Init {
    /// Hosts that it may sign for, with all below them; any, if none are named
    #[arg(value_name = "HOST", value_parser = intercept::host)]
    hosts: Vec<HostPattern>,

    #[command(flatten)]
    folder: Folder,

    /// How long it is good for
    #[arg(long, value_name = "DAYS", default_value_t = files::DAYS)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,

    /// Put it in the place of one that is there
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    folder: Folder,

    /// Those that the system trusts as well, for clients that read one file only
    #[arg(long)]
    bundle: bool,

    /// Write to a file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The folder that is meant where none is named.
pub(in crate::cli) fn default_folder() -> Result<PathBuf, Wrong> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    let none = || Wrong::new("no folder for a CA: HOME is not set", "name one");
    data.map(|data| data.join("underpass/ca")).ok_or_else(none)
}

impl Folder {
    fn path(&self) -> anyhow::Result<PathBuf> {
        match &self.dir {
            Some(path) => Ok(path.clone()),
            None => default_folder()
                .map_err(|_| anyhow::Error::msg("HOME is not set; name a folder with --dir")),
        }
    }
}

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(args) => init(args),
        Command::Export(args) => export(args),
    }
}

fn init(args: &Init) -> anyhow::Result<ExitCode> {
    let directory = args.folder.path()?;
    let scope = scope(&args.hosts);
    files::init(&directory, &scope, args.days, args.replace)?;
    let certificate = files::certificate(&directory);
    let whom = match &scope {
        Scope::Any => "any host: whoever gets its key can be any host to clients that trust it; \
                       name hosts to make it one for those only"
            .to_owned(),
        Scope::Only(names, addresses) => {
            let addresses = addresses.iter().map(ToString::to_string);
            let all: Vec<String> = names.iter().cloned().chain(addresses).collect();
            format!("{} and what is below", all.join(", "))
        }
    };
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "It may sign for {whom}.");
    write_out(format!("{}\n", certificate.display()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn scope(hosts: &[HostPattern]) -> Scope {
    if hosts.is_empty() {
        return Scope::Any;
    }
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for host in hosts {
        let name = match host {
            HostPattern::Exact(name) => intercept::plain(name),
            HostPattern::Wildcard(suffix) => suffix.trim_start_matches('.').to_owned(),
        };
        match name.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name),
        }
    }
    Scope::Only(names, addresses)
}

fn export(args: &Export) -> anyhow::Result<ExitCode> {
    let directory = args.folder.path()?;
    let own = files::certificates(&directory)?;
    let mut text = files::pem(&own[0]);
    if args.bundle {
        let system = rustls_native_certs::load_native_certs().certs;
        if system.is_empty() {
            bail!("this system trusts nobody: no root certificates were found");
        }
        text.extend(system.iter().map(files::pem));
    }
    match &args.output {
        Some(path) => {
            fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        None => _ = write_out(text.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}
