//! What stands between: Underpass in each of its engines, HAProxy and nginx, one worker
//! each, all told to do the same and to limit nothing.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

use crate::{client, launch};

use super::{
    cells::{Engine, Target},
    network::Network,
    opener::{self, Opener},
    spawn::{self, Host},
};

/// Descriptors that HAProxy wants besides those of its connections and pipes.
const HAPROXY_OTHERS: u64 = 64;
/// Pipes of HAProxy. It reserves descriptors for all: a quarter of the connections unless
/// told, of which there are never so many in bulk here.
const HAPROXY_PIPES: u64 = 100;
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
    /// Where the proxy tells what it has moved, if it was asked to.
    admin: Option<(Host, SocketAddr)>,
}

/// Bytes of all tunnels so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved {
    all: f64,
    /// Those that never reached userspace of the proxy, nor a socket of its own.
    bypassed: f64,
}

impl Way {
    /// Finds out by trying.
    pub(crate) fn of(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["reverse", "--listen", "127.0.0.1:0", "--to", "tcp://127.0.0.1:1"]);
        command.args(["--admin", "off", "--splice", "copy", "--workers", "1"]).stdin(Stdio::null());
        match launch::announced(command, "underpass", &None) {
            Ok((mut child, _)) => {
                launch::terminate(&mut child);
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
                let admin = match bypass {
                    true => {
                        Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), network.listen()?.port()))
                    }
                    false => None,
                };
                let host = &network.proxy;
                Self::underpass((underpass, way), engine, admin, host, listen, server)?
            }
            Target::HaProxy => Self::haproxy(&["splice-auto"], host, listen, server)?,
            Target::HaProxySplice => {
                Self::haproxy(&["splice-request", "splice-response"], host, listen, server)?
            }
            Target::Nginx => Self::nginx(host, listen, server)?,
        }))
    }

    /// With an `admin` address it bypasses, and tells how much.
    fn underpass(
        (program, way): (&Path, Way),
        engine: Engine,
        admin: Option<SocketAddr>,
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
        command.args(["--splice", engine.name(), "--workers", "1"]);
        command.args(["--access-log", "off", "--drain-timeout", "1s"]).stdin(Stdio::null());
        match admin {
            Some(admin) => command.args(["--local-bypass", "--admin", &admin.to_string()]),
            None => command.args(["--admin", "off"]),
        };
        let listeners = 1 + usize::from(admin.is_some());
        let (child, addresses) = launch::announced_all(command, "underpass", host, listeners)?;
        let mut addresses = addresses.into_iter().map(|(_, address)| address);
        let address = addresses.find(|&address| Some(address) != admin).context("no listener")?;
        let opener = match way {
            Way::Listener => Opener::Raw { to: address },
            Way::Connect => Opener::Connect { proxy: address, to: server },
        };
        let admin = admin.map(|admin| (host.clone(), admin));
        Ok(Self { pid: child.id(), child, opener, admin })
    }

    /// What it has moved by now; `None` where it was not asked to tell.
    ///
    /// # Errors
    /// If it does not answer, or not so.
    pub(crate) fn moved(&self) -> anyhow::Result<Option<Moved>> {
        let Some((host, admin)) = &self.admin else { return Ok(None) };
        let ask = || client::text(*admin, "/metrics");
        let metrics = host.as_ref().map_or_else(ask, |host| host.within(ask))?;
        Moved::read(&metrics).map(Some)
    }

    fn haproxy(
        options: &[&str],
        host: &Host,
        listen: SocketAddr,
        server: SocketAddr,
    ) -> anyhow::Result<Self> {
        let child = launch::haproxy(&haproxy_conf(options, listen, server), host, listen)?;
        Ok(Self { pid: child.id(), child, opener: Opener::Raw { to: listen }, admin: None })
    }

    fn nginx(host: &Host, listen: SocketAddr, server: SocketAddr) -> anyhow::Result<Self> {
        // Where it is compiled in there is no module, and none is needed.
        let module = Path::new(NGINX_STREAM).exists().then_some(NGINX_STREAM);
        let text = |folder: &Path| nginx_conf(module, &folder.join("pid"), listen, server);
        // Its folder is gone after the start: it has read its file then.
        let started = launch::nginx(text, host, listen, 1);
        let (child, _, pids) = match module {
            Some(_) => started?,
            None => started
                .context("nginx's stream module is not installed (Debian: libnginx-mod-stream)")?,
        };
        Ok(Self { pid: pids[0], child, opener: Opener::Raw { to: listen }, admin: None })
    }
}

impl Moved {
    fn read(metrics: &str) -> anyhow::Result<Self> {
        const SERIES: &str = "underpass_tunnel_bytes_total{";
        let mut moved = Self { all: 0.0, bypassed: 0.0 };
        for series in metrics.lines().filter_map(|line| line.strip_prefix(SERIES)) {
            let (labels, bytes) = series.rsplit_once(' ').context("a series without a value")?;
            let bytes: f64 = bytes.parse().context("bytes of tunnels")?;
            moved.all += bytes;
            if labels.contains("bypass\"") {
                moved.bypassed += bytes;
            }
        }
        Ok(moved)
    }

    /// Of what has been moved since `before`, how much bypassed, in percent.
    pub(crate) fn bypassed_percent(self, before: Self) -> Option<f64> {
        let all = self.all - before.all;
        (all > 0.0).then(|| (self.bypassed - before.bypassed) / all * 100.0)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        launch::terminate(&mut self.child);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bypassed_is_told_from_the_rest() {
        let metrics = |pipe: u32, both: u32, half: u32| {
            let series = |engine: &str, bytes| {
                format!(
                    "underpass_tunnel_bytes_total{{engine=\"{engine}\",direction=\"d\"}} {bytes}\n"
                )
            };
            let bypass = series("bypass", both) + &series("half_bypass", half);
            Moved::read(&format!("# TYPE\n{}{bypass}other 9\n", series("pipe", pipe))).unwrap()
        };
        let before = metrics(100, 100, 0);
        assert_eq!(before.bypassed_percent(before), None);
        assert_eq!(metrics(125, 150, 25).bypassed_percent(before), Some(75.0));
    }
}
