//! What the proxy holds at a moment, by the kernel's books and its own.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde::Serialize;

/// The admin endpoint answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// One thing that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gauge {
    /// Resident memory, bytes.
    Rss,
    /// The same, with shared pages in shares.
    Pss,
    /// Resident memory that belongs to no file: heap and stacks.
    Anon,
    Threads,
    /// Descriptors by what they are.
    Sockets,
    Pipes,
    OtherFds,
    /// Connections to the origin: in use, of tunnels, and kept in pools.
    ToOrigin,
    /// Entries of `/tunnels`.
    Tunnels,
    /// Memory of BPF maps, which grows with the entries of hashes; where the kernel says it.
    Maps,
}

impl Gauge {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rss => "rss",
            Self::Pss => "pss",
            Self::Anon => "anonymous",
            Self::Threads => "threads",
            Self::Sockets => "sockets",
            Self::Pipes => "pipes",
            Self::OtherFds => "other descriptors",
            Self::ToOrigin => "connections to the origin",
            Self::Tunnels => "tunnels",
            Self::Maps => "kernel maps",
        }
    }

    /// What it is printed in: that many bytes, and the name; counts have none.
    pub(crate) fn unit(self) -> (f64, &'static str) {
        match self {
            Self::Rss | Self::Pss | Self::Anon => (1e6, ", MB"),
            // An entry is some hundred bytes in megabytes of tables.
            Self::Maps => (1024.0, ", KB"),
            _ => (1.0, ""),
        }
    }
}

/// All of them at a moment.
pub(crate) type Sample = BTreeMap<Gauge, f64>;

/// Whom to ask.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pub(crate) pid: u32,
    pub(crate) admin: SocketAddr,
    pub(crate) origin: SocketAddr,
}

impl Watched {
    /// Reads them. The process's books come first: asking it takes a socket.
    ///
    /// # Errors
    /// If it is gone or does not answer.
    pub(crate) fn sample(self) -> anyhow::Result<Sample> {
        let memory = self.read("smaps_rollup")?;
        let status = self.read("status")?;
        let mut sample = Sample::from([
            (Gauge::Rss, 1024.0 * field(&memory, "Rss:")?),
            (Gauge::Pss, 1024.0 * field(&memory, "Pss:")?),
            (Gauge::Anon, 1024.0 * field(&memory, "Anonymous:")?),
            (Gauge::Threads, field(&status, "Threads:")?),
            (Gauge::ToOrigin, connections_to(&self.read("net/tcp")?, self.origin.port()) as f64),
        ]);
        self.descriptors(&mut sample)?;
        let tunnels: serde_json::Value = serde_json::from_str(&self.ask("/tunnels")?)?;
        let tunnels = tunnels.as_array().context("/tunnels is no list")?.len();
        sample.insert(Gauge::Tunnels, tunnels as f64);
        Ok(sample)
    }

    fn descriptors(self, sample: &mut Sample) -> anyhow::Result<()> {
        for gauge in [Gauge::Sockets, Gauge::Pipes, Gauge::OtherFds] {
            sample.insert(gauge, 0.0);
        }
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid))? {
            let entry = entry?;
            // Closed meanwhile.
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy();
            let gauge = match &*target {
                target if target.starts_with("socket:") => Gauge::Sockets,
                target if target.starts_with("pipe:") => Gauge::Pipes,
                _ => Gauge::OtherFds,
            };
            *sample.entry(gauge).or_default() += 1.0;
            if target.ends_with("bpf-map") {
                let info = self.read(&format!("fdinfo/{}", entry.file_name().display()));
                let bytes = info.and_then(|info| field(&info, "memlock:"));
                *sample.entry(Gauge::Maps).or_default() += bytes.unwrap_or(0.0);
            }
        }
        Ok(())
    }

    fn read(self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    }

    fn ask(self, target: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.admin, PATIENCE).context("admin")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let host = self.admin;
        write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer of admin")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "admin {target}: {head}");
        Ok(body.to_owned())
    }
}

/// The number behind `key` at the beginning of a line.
fn field(text: &str, key: &str) -> anyhow::Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no {key} in proc"))?.parse()?)
}

/// Established connections (state 01) to a port of this host, of a table as in
/// proc_pid_net(5). Each has two ends here; this one's remote port is the origin's.
fn connections_to(table: &str, port: u16) -> usize {
    let end = format!(":{port:04X}");
    let to_origin = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, _, remote, "01", ..] if remote.ends_with(&end))
    };
    table.lines().filter(to_origin).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_established_connections_to_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
                     0: 0100007F:1F90 00000000:0000 0A 0:0\n\
                     1: 0100007F:C350 0100007F:1F90 01 0:0\n\
                     2: 0100007F:1F90 0100007F:C350 01 0:0\n\
                     3: 0100007F:C351 0100007F:1F90 06 0:0\n";
        assert_eq!(connections_to(table, 8080), 1);
        assert_eq!(connections_to(table, 50_000), 1);
        assert_eq!(connections_to(table, 80), 0);
    }

    #[test]
    fn numbers_are_found_by_their_key() {
        assert_eq!(field("Rss:      12 kB\nPss: 3 kB\n", "Pss:").unwrap(), 3.0);
        assert!(field("Rss: 12 kB", "Pss:").is_err());
    }
}
