//! What answers, started for a row and ended when dropped, its files included.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use super::{
    cells::Engine,
    conf::{self, Needs},
};
use crate::{
    client,
    launch::{self, Scratch},
    process,
    run::Settings,
    server::{self, Kind, Server},
    tunnel::netns::is_root,
};

const VARNISH: &str = "/usr/sbin/varnishd";
/// It compiles its rules first.
const VARNISH_START: Duration = Duration::from_secs(15);

/// A cache, or a proxy without one.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) server: Server,
    /// Ours tells by that what came from which tier.
    admin: Option<SocketAddr>,
    /// What it keeps in files. Behind the process, so that it is ended first.
    _files: Option<Scratch>,
}

impl Proxy {
    /// Starts it before `origin`; `None` where nothing stands between.
    ///
    /// # Errors
    /// With one line that says why it is not to be had, and what would have to be installed.
    pub(crate) fn start(
        engine: Engine,
        settings: &Settings,
        origin: SocketAddr,
        workers: usize,
        needs: Needs,
    ) -> anyhow::Result<Option<Self>> {
        let plain = |kind| {
            let server = Server::start(kind, settings, origin, workers)?;
            Ok(Self { server, admin: None, _files: None })
        };
        let proxy = match engine {
            Engine::Direct => return Ok(None),
            Engine::Plain => plain(Kind::Underpass { bypass: false }),
            Engine::NginxPlain => plain(Kind::Nginx),
            Engine::Memory | Engine::Bypass | Engine::Disk => {
                Self::underpass(engine, settings, origin, workers, needs)
            }
            Engine::Nginx => {
                let files = Scratch::new(free()?, "")?;
                let folder = files.folder().join("files");
                let change = |text: String| conf::nginx(&text, needs, &folder);
                let server = Server::start_with(Kind::Nginx, settings, origin, workers, &change)?;
                Ok(Self { server, admin: None, _files: Some(files) })
            }
            Engine::Varnish => Self::varnish(origin, needs),
        };
        proxy.map(Some)
    }

    fn underpass(
        engine: Engine,
        settings: &Settings,
        origin: SocketAddr,
        workers: usize,
        needs: Needs,
    ) -> anyhow::Result<Self> {
        // Without the right to it, it would run as if it had not been asked for that.
        ensure!(engine != Engine::Bypass || is_root(), "needs root, for BPF");
        let listen = free()?;
        let files = Scratch::new(listen, "")?;
        let folder = (engine == Engine::Disk).then(|| files.folder().join("files"));
        let plain = server::conf::underpass(listen, origin, workers);
        fs::write(&files.file, conf::underpass(&plain, needs, folder.as_deref()))?;
        let mut command = Command::new(server::underpass(settings)?);
        command.args(["run", "--config"]).arg(&files.file).stdin(Stdio::null());
        if engine == Engine::Bypass {
            command.arg("--local-bypass");
        }
        let name = engine.name();
        let (child, listeners) = launch::announced_all(command, name, &None, 2)?;
        let of = |name: &str| listeners.iter().find(|(one, _)| one == name).map(|one| one.1);
        let server = Server::of_child(name, of("web").context("no listener")?, child);
        Ok(Self { server, admin: of("admin"), _files: Some(files) })
    }

    /// One pool of threads, as many as it takes by default: it has no notion of a worker.
    fn varnish(origin: SocketAddr, needs: Needs) -> anyhow::Result<Self> {
        let listen = free()?;
        let files = Scratch::new(listen, &conf::varnish(origin))?;
        let mut command = Command::new(VARNISH);
        command.arg("-F").arg("-f").arg(&files.file).args(["-a", &listen.to_string()]);
        command.arg("-n").arg(files.folder().join("varnish"));
        command.arg("-s").arg(format!("malloc,{}", needs.memory));
        command.args(["-p", "thread_pools=1", "-p", "timeout_idle=600"]);
        // Its child ends with it only if it may end that.
        let child = launch::listening(command, VARNISH, "varnish", &None, listen, Signal::TERM)?;
        let mut server = Server::of_child(Engine::Varnish.name(), listen, child);
        let deadline = Instant::now() + VARNISH_START;
        while client::text(listen, "/counts").is_err() {
            ensure!(Instant::now() < deadline, "varnish does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        server.pids.extend(process::children_of(server.pid));
        ensure!(server.pids.len() == 2, "varnish has not got its child");
        Ok(Self { server, admin: None, _files: Some(files) })
    }

    /// Answers that ours has read from its files so far; `None` where nobody tells.
    ///
    /// # Errors
    /// If it does not say.
    pub(crate) fn disk_hits(&self) -> anyhow::Result<Option<f64>> {
        let Some(admin) = self.admin else { return Ok(None) };
        counter(&client::text(admin, "/metrics")?, "cache_disk_hits_total").map(Some)
    }

    /// Resident memory of all its processes, and its highest, in bytes.
    ///
    /// # Errors
    /// If one is gone.
    pub(crate) fn memory(&self) -> anyhow::Result<[f64; 2]> {
        let pids = &self.server.pids;
        let now = pids.iter().map(|&pid| process::rss(pid)).sum::<anyhow::Result<i64>>()?;
        let peak = pids.iter().map(|&pid| process::peak_rss(pid)).sum::<anyhow::Result<i64>>()?;
        Ok([now as f64, peak as f64])
    }
}

fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Bytes that are free where files of caches are put.
///
/// # Errors
/// If the kernel does not say.
pub(crate) fn free_disk(folder: &Path) -> anyhow::Result<u64> {
    let stat = rustix::fs::statvfs(folder).context("statvfs")?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// A counter of the exposition format, whatever its prefix.
fn counter(text: &str, name: &str) -> anyhow::Result<f64> {
    let of = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        if key.ends_with(name) { value.trim().parse().ok() } else { None }
    };
    text.lines().find_map(of).with_context(|| format!("no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_name() {
        let text = "# HELP p_cache_disk_hits x\np_cache_disk_hits_total 12\n";
        assert_eq!(counter(text, "cache_disk_hits_total").unwrap(), 12.0);
        assert!(counter(text, "cache_other_total").is_err());
    }

    #[test]
    fn there_is_a_disk() {
        assert!(free_disk(&std::env::temp_dir()).unwrap() > 0);
    }
}
