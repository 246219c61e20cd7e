//! How what is measured is started and ended: processes that say where they listen, and
//! HAProxy and nginx, which do not.
//!
//! Invariant: a child that does not come up is ended before its reason is told, and all
//! children are bound to end with us (`tunnel/spawn.rs`).

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    process,
    tunnel::spawn::{self, Host},
};

/// Loading programs and probing takes a while on a busy machine.
const START: Duration = Duration::from_secs(15);
const END: Duration = Duration::from_secs(3);
const HAPROXY: &str = "/usr/sbin/haproxy";
const NGINX: &str = "/usr/sbin/nginx";

/// Starts what prints `listening NAME SCHEME://ADDRESS` when it is ready.
///
/// # Errors
/// With the first line that it said instead.
pub(crate) fn announced(
    command: Command,
    name: &'static str,
    host: &Host,
) -> anyhow::Result<(Child, SocketAddr)> {
    let (child, addresses) = announced_all(command, name, host, 1)?;
    Ok((child, addresses[0].1))
}

/// The same with several listeners: their names and addresses, in the order it tells them.
///
/// # Errors
/// As [`announced`].
pub(crate) fn announced_all(
    mut command: Command,
    name: &'static str,
    host: &Host,
    listeners: usize,
) -> anyhow::Result<(Child, Vec<(String, SocketAddr)>)> {
    command.env("UNDERPASS_LOG", "warn").stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn::prepare(&mut command, host, Signal::KILL);
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let output = lines(child.stdout.take());
    let errors = lines(child.stderr.take());
    let next = || {
        let line = output.recv_timeout(START).ok()?;
        let (name, address) = line.strip_prefix("listening ")?.split_once(' ')?;
        Some((name.to_owned(), address.rsplit_once("://")?.1.trim().parse().ok()?))
    };
    let addresses: Vec<_> = std::iter::from_fn(next).take(listeners).collect();
    if addresses.len() == listeners {
        relay(name, errors);
        return Ok((child, addresses));
    }
    terminate(&mut child);
    bail!(reason(&errors).unwrap_or_else(|| "it did not say where it listens".into()))
}

/// HAProxy with this configuration.
///
/// # Errors
/// If it is not installed, or with the first line that it said.
pub(crate) fn haproxy(text: &str, host: &Host, listen: SocketAddr) -> anyhow::Result<Child> {
    let scratch = Scratch::new(listen, text)?;
    let mut command = Command::new(HAPROXY);
    command.args(["-q", "-db", "-f"]).arg(&scratch.file);
    listening(command, HAPROXY, "haproxy", host, listen, Signal::KILL)
}

/// nginx, with its folder and the processes of its `workers`, and behind them the one that looks
/// after a cache, if it has one. The configuration is made for that folder, in which its `pid`
/// has to be.
///
/// # Errors
/// If it is not installed, or with the first line that it said.
pub(crate) fn nginx(
    text: impl FnOnce(&Path) -> String,
    host: &Host,
    listen: SocketAddr,
    workers: usize,
) -> anyhow::Result<(Child, Scratch, Vec<u32>)> {
    let scratch = Scratch::new(listen, "")?;
    let text = text(&scratch.directory);
    fs::write(&scratch.file, &text)?;
    let managers = usize::from(text.contains("proxy_cache_path"));
    let mut command = Command::new(NGINX);
    command.args(["-e", "stderr", "-c"]).arg(&scratch.file);
    // Its master takes the workers along only if it may.
    let mut child = listening(command, NGINX, "nginx-light", host, listen, Signal::TERM)?;
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        // The one that reads what a cache has from before ends soon, and is left out.
        let children = process::children_of(child.id());
        let called = |title: &str| {
            let is = |pid: &u32| process::title(*pid).starts_with(title);
            children.iter().copied().filter(is).collect::<Vec<_>>()
        };
        let (mut pids, manager) = (called("nginx: worker"), called("nginx: cache manager"));
        if (pids.len(), manager.len()) == (workers, managers) {
            pids.extend(manager);
            return Ok((child, scratch, pids));
        }
        thread::sleep(Duration::from_millis(5));
    }
    terminate(&mut child);
    bail!("nginx has not got its workers")
}

/// Starts what listens at `address` when it is ready, without saying so.
///
/// # Errors
/// If the program is not there, naming Debian's package, or with the first line it said.
pub(crate) fn listening(
    mut command: Command,
    program: &str,
    package: &str,
    host: &Host,
    address: SocketAddr,
    signal: Signal,
) -> anyhow::Result<Child> {
    if !Path::new(program).exists() {
        bail!("{program} is not installed (Debian: {package})");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    spawn::prepare(&mut command, host, signal);
    let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
    let errors = lines(child.stderr.take());
    let deadline = Instant::now() + START;
    while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
        if is_listening(child.id(), address.port()) {
            return Ok(child);
        }
        thread::sleep(Duration::from_millis(5));
    }
    terminate(&mut child);
    bail!(reason(&errors).unwrap_or_else(|| format!("{program} does not listen")))
}

/// Ends it, by force if it takes too long. Not by SIGKILL at first: nginx's master takes
/// its workers along only if it may.
pub(crate) fn terminate(child: &mut Child) {
    if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let deadline = Instant::now() + END;
    while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Looks from inside the process's namespace: state 0A is LISTEN (proc_pid_net(5)).
fn is_listening(pid: u32, port: u16) -> bool {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let end = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&end)) && fields.nth(1) == Some("0A")
    })
}

fn lines(output: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(output) = output {
        thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
    }
    receiver
}

/// What it logs while it runs is of interest.
fn relay(name: &'static str, errors: Receiver<String>) {
    thread::spawn(move || errors.into_iter().for_each(|line| eprintln!("{name}: {line}")));
}

/// The first line that an ended process has said.
fn reason(errors: &Receiver<String>) -> Option<String> {
    let lines = std::iter::from_fn(|| errors.recv_timeout(Duration::from_secs(1)).ok());
    let mut lines = lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty());
    let first = lines.next()?;
    // clap and the configuration's errors come with a heading.
    if first.ends_with(':') {
        lines.next().map(|next| format!("{first} {next}"))
    } else {
        Some(first)
    }
}

/// A folder of a process that is started, with its configuration; gone when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: PathBuf,
    pub(crate) file: PathBuf,
}

impl Scratch {
    /// Its name is made of ours and the port that the process will listen on.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn new(listen: SocketAddr, text: &str) -> anyhow::Result<Self> {
        let name = format!("underpass-benches-{}-{}", std::process::id(), listen.port());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory)?;
        let file = directory.join("conf");
        fs::write(&file, text)?;
        Ok(Self { directory, file })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
