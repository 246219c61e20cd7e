//! How names of servers become addresses: `resolve` and `[upstream.dns]`.

use std::{net::SocketAddr, time::Duration};

use super::super::{
    effective::{header, list, text},
    errors::Wrong,
    section::Section,
    value::{self, Words},
};

/// Asked by DNS, again whenever an answer has run out, and each address is a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Name servers; none: those of the system.
    pub servers: Vec<SocketAddr>,
    /// An answer is kept at least so long.
    pub min_ttl: Duration,
    /// And at most so long.
    pub max_ttl: Duration,
    /// For one query.
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resolve {
    Dns,
    System,
}

const RESOLVE: Words<Resolve> = &[("dns", Resolve::Dns), ("system", Resolve::System)];

const KEYS: &[&str] = &["servers", "min_ttl", "max_ttl", "timeout"];

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(300),
            timeout: Duration::from_secs(2),
        }
    }
}

impl Dns {
    /// Reads what `[[upstream]]` says of it. `None`: the system is asked for each connection.
    pub(super) fn read(upstream: &Section<'_>) -> Option<Self> {
        let resolve = upstream
            .parsed("resolve", "\"dns\" or \"system\"", |text| value::choice(text, RESOLVE))
            .map_or(Resolve::Dns, |resolve| resolve.value);
        let section = upstream.table("dns", "[upstream.dns]", KEYS);
        if resolve == Resolve::System {
            if let Some(section) = &section {
                let what = "[upstream.dns] with `resolve = \"system\"`";
                let wrong = Wrong::new(what, "remove one of them");
                section.source.add(&section.place, wrong);
            }
            return None;
        }
        let Some(section) = &section else { return Some(Self::default()) };
        let time = |key, default: Duration| {
            let example = format!("\"{}\"", value::show_duration(default));
            section.parsed(key, &example, value::duration).map_or(default, |time| time.value)
        };
        let servers = section.list("servers", "\"127.0.0.1:53\"", name_server);
        let min_ttl = time("min_ttl", Self::default().min_ttl);
        let max_ttl = time("max_ttl", Self::default().max_ttl.max(min_ttl));
        if max_ttl < min_ttl
            && let Some(place) = section.place_of("max_ttl")
        {
            let cure = format!("write at least \"{}\"", value::show_duration(min_ttl));
            section.source.add(&place, Wrong::new("`max_ttl` is shorter than `min_ttl`", cure));
        }
        Some(Self {
            servers: servers.unwrap_or_default().into_iter().map(|s| s.value).collect(),
            min_ttl,
            max_ttl,
            timeout: time("timeout", Self::default().timeout),
        })
    }

    /// Writes `[upstream.dns]`.
    pub(super) fn write(&self, out: &mut String) {
        header(out, "[upstream.dns]");
        list(out, "servers", &self.servers);
        text(out, "min_ttl", value::show_duration(self.min_ttl));
        text(out, "max_ttl", value::show_duration(self.max_ttl));
        text(out, "timeout", value::show_duration(self.timeout));
    }
}

fn name_server(text: &str) -> Result<SocketAddr, Wrong> {
    let wrong = || Wrong::new(format!("`{text}` is no name server"), "write \"127.0.0.1:53\"");
    text.parse().ok().filter(|address: &SocketAddr| address.port() > 0).ok_or_else(wrong)
}
