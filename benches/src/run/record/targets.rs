//! What is compared: the proxy without a recorder, with one in each mode, and mitmproxy where it is
//! installed.

use std::{
    env,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use super::scratch;
use crate::{launch, run::Settings, server::Server};

/// Names mitmproxy's `mitmdump`, where it is not on the path.
const MITMDUMP: &str = "UNDERPASS_BENCH_MITMDUMP";

/// What is measured.
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) server: Server,
    /// Where it records.
    pub(super) folder: Option<PathBuf>,
    /// Whether that is in our format.
    pub(super) is_ours: bool,
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// All that there are, `off` first. Why one is not to be had is printed.
///
/// # Errors
/// If ours does not start.
pub(super) fn all(settings: &Settings, origin: SocketAddr) -> anyhow::Result<Vec<Target>> {
    let mut targets = vec![
        ours(settings, origin, "off", None)?,
        ours(settings, origin, "zero_latency", Some("zero_latency"))?,
        ours(settings, origin, "standard", Some("standard"))?,
    ];
    match mitmproxy(origin) {
        Ok(target) => targets.push(target),
        Err(reason) => println!("mitmproxy: not available: {reason:#}\n"),
    }
    Ok(targets)
}

fn ours(
    settings: &Settings,
    origin: SocketAddr,
    name: &'static str,
    mode: Option<&str>,
) -> anyhow::Result<Target> {
    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = mode.map(|_| scratch(name));
    let section = match (&folder, mode) {
        (Some(folder), Some(mode)) => format!(
            "[record]\ndirectory = \"{}\"\nmode = \"{mode}\"\nmax_total_bytes = \"8GiB\"\n",
            folder.display()
        ),
        _ => String::new(),
    };
    let config = format!(
        "workers = 1\ndrain_timeout = \"1s\"\n[log]\naccess = \"off\"\n{section}\
         [[listener]]\nname = \"web\"\naddress = \"{listen}\"\n\
         [[route]]\nupstream = \"origin\"\n\
         [[upstream]]\nname = \"origin\"\nservers = [\"{origin}\"]\nmax_idle_connections = 1024\n"
    );
    let server = Server::underpass_with(settings, listen, &config)?;
    Ok(Target { name, server, folder, is_ours: true })
}

/// mitmproxy's `mitmdump`, which records to a file what it streams.
fn mitmproxy(origin: SocketAddr) -> anyhow::Result<Target> {
    let program = mitmdump()?;
    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = scratch("mitmproxy");
    std::fs::create_dir_all(&folder)?;
    let mut command = Command::new(&program);
    command
        .args(["--quiet", "--mode"])
        .arg(format!("reverse:http://{origin}"))
        .args(["--listen-host", "127.0.0.1", "--listen-port"])
        .arg(listen.port().to_string())
        .args(["--set", "connection_strategy=lazy"])
        // Bodies go on as they come, and are kept for the file all the same.
        .args(["--set", "stream_large_bodies=1", "--set", "store_streamed_bodies=true", "-w"])
        .arg(folder.join("flows"))
        .arg("--set")
        .arg(format!("confdir={}", folder.display()))
        .stdin(Stdio::null());
    let name = program.display().to_string();
    let child = launch::listening(command, &name, "none", &None, listen, Signal::KILL)?;
    let server = Server::of_child("mitmproxy", listen, child);
    Ok(Target { name: "mitmproxy", server, folder: Some(folder), is_ours: false })
}

fn mitmdump() -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os(MITMDUMP) {
        let named = PathBuf::from(named);
        ensure!(named.exists(), "{MITMDUMP}: {} is not there", named.display());
        return Ok(named);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder: PathBuf| Path::new(&folder).join("mitmdump"));
    found
        .into_iter()
        .find(|program| program.exists())
        .with_context(|| format!("no mitmdump on the path (PyPI: mitmproxy); {MITMDUMP} names one"))
}
