//! What stands between: Underpass in each of its engines, HAProxy and nginx, one worker
//! each, all told to do the same and to limit nothing.

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

use crate::process;

use super::{
    cells::{Engine, Target},
    network::Network,
    opener::{self, Opener},
    spawn::{self, Host},
};

/// Loading programs and probing takes a while on a busy machine.
const START: Duration = Duration::from_secs(15);
const END: Duration = Duration::from_secs(3);
const HAPROXY: &str = "/usr/sbin/haproxy";
/// Descriptors that HAProxy wants besides those of its connections and pipes.
const HAPROXY_OTHERS: u64 = 64;
/// Pipes of HAProxy. It reserves descriptors for all: a quarter of the connections unless
/// told, of which there are never so many in bulk here.
const HAPROXY_PIPES: u64 = 100;
const NGINX: &str = "/usr/sbin/nginx";
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// How tunnels through Underpass are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A TCP listener, as the peers have.
    Listener,
    /// CONNECT: for versions without such listeners.
    Connect,
}

/// A proxy that serves.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Child,
    /// The process whose CPU and memory count.
    pub(crate) pid: u32,
    pub(crate) opener: Opener,
}

impl Way {
    /// Finds out by trying.
    pub(crate) fn of(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["reverse", "--listen", "127.0.0.1:0", "--to", "tcp://127.0.0.1:1"]);
        command.args(["--admin", "off", "--splice", "copy", "--workers", "1"]);
        match announced(command, &None) {
            Ok((child, _)) => {
                end(child);
                Self::Listener
            }
            Err(_) => Self::Connect,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Listener => "a TCP listener",
            Self::Connect => "CONNECT",
        }
    }
}

impl Proxy {
    /// Starts it; `None` where nothing stands between.
    ///
    /// # Errors
    /// With one line that says why it is not to be had.
    pub(crate) fn start(
        target: Target,
        (underpass, way): (&Path, Way),
        network: &mut Network,
        server_port: u16,
    ) -> anyhow::Result<Option<Self>> {
        let server = SocketAddr::new(network.server_ip, server_port);
        let listen = network.listen()?;
        let host = &network.proxy;
        Ok(Some(match target {
            Target::Direct => return Ok(None),
            Target::Underpass { engine, bypass } => {
                Self::underpass(underpass, way, engine, bypass, host, listen, server)?
            }
            Target::HaProxy => Self::haproxy(&["splice-auto"], host, listen, server)?,
            Target::HaProxySplice => {
                Self::haproxy(&["splice-request", "splice-response"], host, listen, server)?
            }
            Target::Nginx => Self::nginx(host, listen, server)?,
        }))
    }

    fn underpass(
        program: &Path,
        way: Way,
        engine: Engine,
        bypass: bool,
        host: &Host,
        listen: SocketAddr,
        server: SocketAddr,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        let listen = listen.to_string();
        match way {
            Way::Listener => {
                command.args(["reverse", "--listen", &listen, "--to", &format!("tcp://{server}")])
            }
            Way::Connect => command.args(["forward", "--listen", &listen, "--user", opener::USER]),
        };
        command.args(["--splice", engine.name(), "--workers", "1", "--admin", "off"]);
        command.args(["--access-log", "off", "--drain-timeout", "1s"]);
        if bypass {
            command.arg("--local-bypass");
        }
        let (child, address) = announced(command, host)?;
        let opener = match way {
            Way::Listener => Opener::Raw { to: address },
            Way::Connect => Opener::Connect { proxy: address, to: server },
        };
        Ok(Self { pid: child.id(), child, opener })
    }

    fn haproxy(
        options: &[&str],
        host: &Host,
        listen: SocketAddr,
        server: SocketAddr,
    ) -> anyhow::Result<Self> {
        let scratch = Scratch::new(listen, &haproxy_conf(options, listen, server))?;
        let mut command = Command::new(HAPROXY);
        command.args(["-q", "-db", "-f"]).arg(&scratch.file);
        let child = listening(command, HAPROXY, "haproxy", host, listen, Signal::KILL)?;
        Ok(Self { pid: child.id(), child, opener: Opener::Raw { to: listen } })
    }

    fn nginx(host: &Host, listen: SocketAddr, server: SocketAddr) -> anyhow::Result<Self> {
        // Where it is compiled in there is no module, and none is needed.
        let module = Path::new(NGINX_STREAM).exists().then_some(NGINX_STREAM);
        let scratch = Scratch::new(listen, "")?;
        let pid_file = scratch.directory.join("pid");
        fs::write(&scratch.file, nginx_conf(module, &pid_file, listen, server))?;
        let mut command = Command::new(NGINX);
        command.args(["-e", "stderr", "-c"]).arg(&scratch.file);
        // Its master takes the worker along only if it may.
        let started = listening(command, NGINX, "nginx-light", host, listen, Signal::TERM);
        let child = match module {
            Some(_) => started?,
            None => started
                .context("nginx's stream module is not installed (Debian: libnginx-mod-stream)")?,
        };
        let mut this = Self { pid: child.id(), child, opener: Opener::Raw { to: listen } };
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let Some(worker) = process::child_of(this.child.id()) {
                this.pid = worker;
                return Ok(this);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("nginx has no worker");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        terminate(&mut self.child);
    }
}

fn end(mut child: Child) {
    terminate(&mut child);
}

fn terminate(child: &mut Child) {
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

/// Starts what prints `listening NAME SCHEME://ADDRESS` when it is ready.
fn announced(mut command: Command, host: &Host) -> anyhow::Result<(Child, SocketAddr)> {
    command.env("UNDERPASS_LOG", "warn");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn::prepare(&mut command, host, Signal::KILL);
    let mut child = command.spawn().context("starting underpass")?;
    let output = lines(child.stdout.take());
    let errors = lines(child.stderr.take());
    let address = output.recv_timeout(START).ok().and_then(|line| {
        line.rsplit_once("://").and_then(|(_, address)| address.trim().parse().ok())
    });
    match address {
        Some(address) => {
            relay("underpass", errors);
            Ok((child, address))
        }
        None => {
            terminate(&mut child);
            bail!(reason(&errors).unwrap_or_else(|| "it did not say where it listens".into()))
        }
    }
}

/// Starts what listens at `address` when it is ready, without saying so.
fn listening(
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

/// A folder that is there while a proxy starts; it has read its file then.
struct Scratch {
    directory: PathBuf,
    file: PathBuf,
}

impl Scratch {
    fn new(listen: SocketAddr, text: &str) -> anyhow::Result<Self> {
        let name = format!("underpass-benches-{}-{}", std::process::id(), listen.port());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory)?;
        let file = directory.join("conf");
        fs::write(&file, text)?;
        Ok(Self { directory, file })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn haproxy_conf(options: &[&str], listen: SocketAddr, server: SocketAddr) -> String {
    let options: String = options.iter().map(|option| format!("  option {option}\n")).collect();
    let tunnels = (spawn::descriptors() - 2 * HAPROXY_PIPES - HAPROXY_OTHERS) / 2;
    format!(
        "global
  nbthread 1
  maxconn {tunnels}
  maxpipes {HAPROXY_PIPES}
defaults
  mode tcp
{options}  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend in
  bind {listen}
  default_backend out
backend out
  server one {server}
"
    )
}

fn nginx_conf(module: Option<&str>, pid: &Path, listen: SocketAddr, server: SocketAddr) -> String {
    let load = module.map(|path| format!("load_module {path};\n")).unwrap_or_default();
    let pid = pid.display();
    format!(
        "{load}daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {pid};
error_log stderr crit;
events {{ worker_connections 32768; }}
stream {{
  server {{
    listen {listen};
    proxy_pass {server};
    proxy_timeout 1h;
  }}
}}
"
    )
}
