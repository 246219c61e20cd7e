//! The processes that are measured, each ended by whoever holds it.
//!
//! nginx is told to do the same job: one worker, no access log, HTTP/1.1 and kept
//! connections to the origin, forwarding headers, no limit on requests per connection.

use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{process, run::Settings};

const START: Duration = Duration::from_secs(5);
const END: Duration = Duration::from_secs(3);
const NGINX: &str = "/usr/sbin/nginx";
/// Idle connections to the origin that a proxy keeps at most.
pub const POOLED: usize = 1024;

/// A running process that listens.
#[derive(Debug)]
pub struct Server {
    child: Child,
    directory: Option<PathBuf>,
    /// What the tables call it.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// The process whose CPU and memory count.
    pub pid: u32,
}

impl Server {
    /// The origin, in a process of its own so that its CPU time is not the load generator's.
    ///
    /// # Errors
    /// If it does not start.
    pub fn origin() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("origin").stdin(Stdio::piped());
        Self::announced("origin", command)
    }

    /// The proxy, with one worker and without an access log.
    ///
    /// # Errors
    /// If it is not built or does not start.
    pub fn underpass(settings: &Settings, origin: SocketAddr) -> anyhow::Result<Self> {
        let mut command = Command::new(underpass(settings)?);
        command
            .args(["reverse", "--listen", "127.0.0.1:0", "--workers", "1", "--access-log", "off"])
            .args(["--drain-timeout", "1s", "--to", &format!("http://{origin}")])
            .env("UNDERPASS_LOG", "warn")
            .stdin(Stdio::null());
        Self::announced("underpass", command)
    }

    /// The same with a pool of [`POOLED`] idle connections, which takes a configuration.
    ///
    /// # Errors
    /// If it is not built or does not start.
    pub fn underpass_pooling(settings: &Settings, origin: SocketAddr) -> anyhow::Result<Self> {
        let directory = directory(origin.port())?;
        let file = directory.join("underpass.toml");
        let config = format!(
            "workers = 1\n[log]\naccess = \"off\"\n\
             [[listener]]\nname = \"bench\"\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nupstream = \"origin\"\n\
             [[upstream]]\nname = \"origin\"\nservers = [\"{origin}\"]\n\
             max_idle_connections = {POOLED}\n"
        );
        std::fs::write(&file, config)?;
        let mut command = Command::new(underpass(settings)?);
        command.args(["run", "--drain-timeout", "1s", "--config"]).arg(&file);
        command.env("UNDERPASS_LOG", "warn").stdin(Stdio::null());
        let mut server = Self::announced("underpass", command)?;
        server.directory = Some(directory);
        Ok(server)
    }

    /// nginx doing the same; `None` where it is not installed.
    ///
    /// # Errors
    /// If it is there but does not start.
    pub fn nginx(origin: SocketAddr) -> anyhow::Result<Option<Self>> {
        if !Path::new(NGINX).exists() {
            println!("{NGINX} is not installed: measured without it");
            return Ok(None);
        }
        // Free a moment ago; nginx cannot be given port 0.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let directory = directory(address.port())?;
        let file = directory.join("nginx.conf");
        std::fs::write(&file, nginx_conf(&directory.display().to_string(), address, origin))?;
        let child = Command::new(NGINX)
            .args(["-e", "stderr", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .context("starting nginx")?;
        let pid = child.id();
        let mut server = Self { child, directory: Some(directory), name: "nginx", address, pid };
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let (Some(worker), Ok(_)) = (process::child_of(pid), TcpStream::connect(address)) {
                server.pid = worker;
                return Ok(Some(server));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("nginx did not start")
    }

    /// Starts what prints `listening NAME http://ADDRESS` when it is ready.
    fn announced(name: &'static str, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().context(name)?;
        let stdout = child.stdout.take().context("no standard output")?;
        let pid = child.id();
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        // From here on it is ended if anything fails.
        let mut server = Self { child, directory: None, name, address: unknown, pid };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().rsplit_once("http://").with_context(|| {
            format!("{name} did not start: expected `listening NAME http://…`, got `{line}`")
        })?;
        server.address = address.1.parse()?;
        Ok(server)
    }
}

/// A directory for one process that listens on this port.
fn directory(port: u16) -> anyhow::Result<PathBuf> {
    let name = format!("underpass-benches-{}-{port}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// The proxy's binary.
///
/// # Errors
/// If it is not built.
pub fn underpass(settings: &Settings) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("underpass");
    let binary = settings.proxy.clone().unwrap_or(beside);
    if !binary.exists() {
        bail!(
            "{} is missing: `cargo build --release -p underpass` makes it, --proxy names another",
            binary.display()
        );
    }
    Ok(binary)
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not SIGKILL at first: nginx's master takes its worker along only if it may.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + END;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

fn nginx_conf(directory: &str, listen: SocketAddr, origin: SocketAddr) -> String {
    format!(
        "daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  # Bodies stream: none is limited, none goes through a file.
  client_max_body_size 0;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  upstream origin {{
    server {origin};
    keepalive {POOLED};
    keepalive_requests 1000000000;
    keepalive_time 1d;
  }}
  server {{
    listen {listen};
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
    }}
  }}
}}
"
    )
}
