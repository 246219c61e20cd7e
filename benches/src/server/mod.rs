//! The HTTP processes that are measured, each ended by whoever holds it.
//!
//! All proxies are told to do the same job: the same number of workers, no access log,
//! HTTP/1.1 and kept connections to the origin, as many as there are clients, forwarding
//! fields, no limit on requests per connection. Everything else is each one's default.
//! `conf.rs` has it in their languages.

use std::{
    env,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use crate::{
    launch::{self, Scratch},
    run::Settings,
};

pub(crate) mod conf;

/// Where `cargo xtask bench` has put the proxy that is made with Pingora.
const PINGORA: &str = "UNDERPASS_BENCH_PINGORA";
/// Why there is none.
const WITHOUT_PINGORA: &str = "UNDERPASS_BENCH_WITHOUT_PINGORA";

/// A running process that listens.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Folders that it uses while it runs.
    _scratch: Option<Scratch>,
    /// What the tables call it.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// The process whose memory counts; with several, the first.
    pub pid: u32,
    /// Those whose CPU time counts.
    pub pids: Vec<u32>,
}

/// A proxy that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Underpass {
        /// `--local-bypass`.
        bypass: bool,
    },
    /// Debian's nginx.
    Nginx,
    /// Debian's HAProxy.
    HaProxy,
    /// `benches/pingora`.
    Pingora,
}

impl Kind {
    /// What tables and filters call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Underpass { bypass: false } => "underpass",
            Self::Underpass { bypass: true } => "underpass+bypass",
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Pingora => "pingora",
        }
    }
}

impl Server {
    /// The origin, in a process of its own so that its CPU time is not the load generator's.
    ///
    /// # Errors
    /// If it does not start.
    pub fn origin() -> anyhow::Result<Self> {
        Self::ourselves("origin")
    }

    /// The origin of gRPC, likewise.
    ///
    /// # Errors
    /// If it does not start.
    pub fn grpc_origin() -> anyhow::Result<Self> {
        Self::ourselves("grpc-origin")
    }

    fn ourselves(argument: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        // It ends with its standard input.
        command.arg(argument).stdin(Stdio::piped());
        let (child, address) = launch::announced(command, "origin", &None)?;
        Ok(Self::new("origin", address, child, None))
    }

    /// A proxy before `origin`, with so many workers.
    ///
    /// # Errors
    /// With one line that says why it is not to be had.
    pub fn start(
        kind: Kind,
        settings: &Settings,
        origin: SocketAddr,
        workers: usize,
    ) -> anyhow::Result<Self> {
        Self::start_with(kind, settings, origin, workers, &|text| text)
    }

    /// The same with a configuration that `change` makes of the usual one. Pingora has none.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        kind: Kind,
        settings: &Settings,
        origin: SocketAddr,
        workers: usize,
        change: &dyn Fn(String) -> String,
    ) -> anyhow::Result<Self> {
        // Free a moment ago; most cannot be given port 0.
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let name = kind.name();
        match kind {
            Kind::Underpass { bypass } => {
                let scratch =
                    Scratch::new(listen, &change(conf::underpass(listen, origin, workers)))?;
                let mut command = Command::new(underpass(settings)?);
                command.args(["run", "--config"]).arg(&scratch.file).stdin(Stdio::null());
                if bypass {
                    command.arg("--local-bypass");
                }
                let (child, address) = launch::announced(command, name, &None)?;
                Ok(Self::new(name, address, child, None))
            }
            Kind::Nginx => {
                let text = |folder: &Path| change(conf::nginx(folder, listen, origin, workers));
                let (child, scratch, pids) = launch::nginx(text, &None, listen, workers)?;
                let mut server = Self::new(name, listen, child, Some(scratch));
                (server.pid, server.pids) = (pids[0], pids);
                Ok(server)
            }
            Kind::HaProxy => {
                let text = change(conf::haproxy(listen, origin, workers));
                let child = launch::haproxy(&text, &None, listen)?;
                Ok(Self::new(name, listen, child, None))
            }
            Kind::Pingora => {
                let program = pingora()?;
                let mut command = Command::new(&program);
                command.args([listen.to_string(), origin.to_string(), workers.to_string()]);
                let program = program.display().to_string();
                let child =
                    launch::listening(command, &program, "none", &None, listen, Signal::KILL)?;
                Ok(Self::new(name, listen, child, None))
            }
        }
    }

    /// Ours, with one worker.
    ///
    /// # Errors
    /// If it is not built or does not start.
    pub fn underpass(settings: &Settings, origin: SocketAddr) -> anyhow::Result<Self> {
        Self::start(Kind::Underpass { bypass: false }, settings, origin, 1)
    }

    /// Ours with a configuration of its own, which listens at `listen` and perhaps elsewhere.
    ///
    /// # Errors
    /// If it is not built or does not start.
    pub fn underpass_with(
        settings: &Settings,
        listen: SocketAddr,
        config: &str,
    ) -> anyhow::Result<Self> {
        let scratch = Scratch::new(listen, config)?;
        let mut command = Command::new(underpass(settings)?);
        command.args(["run", "--config"]).arg(&scratch.file).stdin(Stdio::null());
        let (child, address) = launch::announced(command, "underpass", &None)?;
        Ok(Self::new("underpass", address, child, Some(scratch)))
    }

    /// nginx doing the same; `None`, which is told, where it is not to be had.
    pub fn nginx(settings: &Settings, origin: SocketAddr) -> Option<Self> {
        Self::start(Kind::Nginx, settings, origin, 1)
            .inspect_err(|reason| println!("nginx: not available: {reason:#}"))
            .ok()
    }

    /// What has been started elsewhere.
    pub fn of_child(name: &'static str, address: SocketAddr, child: Child) -> Self {
        Self::new(name, address, child, None)
    }

    fn new(
        name: &'static str,
        address: SocketAddr,
        child: Child,
        scratch: Option<Scratch>,
    ) -> Self {
        let pid = child.id();
        Self { child, _scratch: scratch, name, address, pid, pids: vec![pid] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        launch::terminate(&mut self.child);
    }
}

/// The proxy's binary.
///
/// # Errors
/// If it is not built.
pub fn underpass(settings: &Settings) -> anyhow::Result<PathBuf> {
    let beside = env::current_exe()?.with_file_name("underpass");
    let binary = settings.proxy.clone().unwrap_or(beside);
    if !binary.exists() {
        bail!(
            "{} is missing: `cargo build --release -p underpass` makes it, --proxy names another",
            binary.display()
        );
    }
    Ok(binary)
}

fn pingora() -> anyhow::Result<PathBuf> {
    let path = env::var_os(PINGORA).map(PathBuf::from);
    path.with_context(|| {
        env::var(WITHOUT_PINGORA).unwrap_or("`cargo xtask bench peers` builds it".into())
    })
}
