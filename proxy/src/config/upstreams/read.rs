//! `[[upstream]]` and its servers, read from TOML.
//!
//! A server is an address in the list `servers`, an inline table there, or a section
//! `[[upstream.server]]`: all three mean the same.

use std::cell::Cell;

use toml::de::DeValue;

use crate::proxy_protocol::write::Version;

use super::{
    super::{
        draft::DraftUpstream,
        errors::{Placed, Wrong},
        section::Section,
        value::{self, Words},
    },
    Breaker, Choice, Dns, Ejection, Health, HostPolicy, Http2, IDLE_CONNECTIONS, MOST_WEIGHT,
    Retry, Server, ServerTls, Speaks, Upstream, UpstreamServer,
};

/// More than a worker has ports for towards one server.
const MOST_CONNECTIONS: usize = 1_000_000;
/// Each of them is made by every worker at every server.
const MOST_MIN_IDLE: usize = 1000;

pub(crate) const HOST: Words<HostPolicy> =
    &[("preserve", HostPolicy::Preserve), ("server", HostPolicy::Server)];

pub(crate) const PROXY_PROTOCOL: Words<Version> = &[("v1", Version::V1), ("v2", Version::V2)];

/// Keys of `[[upstream]]`.
pub(crate) const KEYS: &[&str] = &[
    "name",
    "servers",
    "server",
    "protocol",
    "http2",
    "tls",
    "balance",
    "hash_by",
    "max_load_percent",
    "slow_start",
    "sticky",
    "resolve",
    "dns",
    "health",
    "ejection",
    "panic_percent",
    "retry",
    "breaker",
    "host",
    "max_idle_connections",
    "idle_timeout",
    "max_connections",
    "min_idle_connections",
    "max_connection_age",
    "max_requests_per_connection",
    "tcp_fast_open",
    "proxy_protocol",
    "local_bypass",
];

/// Keys of one server.
const SERVER_KEYS: &[&str] = &["address", "weight", "backup", "drain", "max_connections"];

const SERVER_TITLE: &str = "[[upstream.server]]";
const EXAMPLE: &str = "\"127.0.0.1:3000\"";

/// Reads one upstream.
pub(crate) fn upstream(section: &Section<'_>) -> DraftUpstream {
    let name = section
        .required("name", "\"api\"", value::name)
        .unwrap_or_else(|| Placed::new(String::new(), section.place.clone()));
    let max_connections = section.number("max_connections", 1, MOST_CONNECTIONS);
    let max_idle = section.number("max_idle_connections", 0, MOST_CONNECTIONS);
    let most = max_connections.as_ref().map_or(usize::MAX, |n| n.value);
    if let Some(idle) = max_idle.as_ref().filter(|idle| idle.value > most) {
        let what = "`max_idle_connections` is more than `max_connections`";
        section.source.add(&idle.place, Wrong::new(what, format!("write at most {most}")));
    }
    let min_idle = section.number("min_idle_connections", 0, MOST_MIN_IDLE);
    let kept = max_idle.as_ref().map_or(IDLE_CONNECTIONS, |n| n.value).min(most);
    if let Some(idle) = min_idle.as_ref().filter(|idle| idle.value > kept) {
        let what = "`min_idle_connections` is more than `max_idle_connections`";
        section.source.add(&idle.place, Wrong::new(what, format!("write at most {kept}")));
    }
    let (servers, https) = servers(section);
    let tls = ServerTls::read(section, https);
    let speaks = Speaks::read(section, tls.is_some());
    if let Some(idle) = min_idle.as_ref().filter(|idle| speaks == Speaks::Http2 && idle.value > 0) {
        let what = "`min_idle_connections` with `protocol = \"http2\"`";
        let cure = "remove it: one connection carries many requests";
        section.source.add(&idle.place, Wrong::new(what, cure));
    }
    let announcing =
        section.parsed("proxy_protocol", "\"v2\"", |text| value::choice(text, PROXY_PROTOCOL));
    if let Some(version) = announcing.as_ref().filter(|_| speaks != Speaks::Http1) {
        let what = "`proxy_protocol` where HTTP/2 is spoken: one connection is for many clients";
        section.source.add(&version.place, Wrong::new(what, "remove one of them"));
    }
    let proxy_protocol = announcing.map(|version| version.value);
    if let Some(idle) = min_idle.as_ref().filter(|idle| idle.value > 0 && proxy_protocol.is_some())
    {
        let what = "`min_idle_connections` with `proxy_protocol`: who is announced is not known \
                    before the request";
        section.source.add(&idle.place, Wrong::new(what, "remove one of them"));
    }
    if let Some(idle) = min_idle.as_ref().filter(|idle| idle.value > 0 && tls.is_some()) {
        let what = "`min_idle_connections` with TLS: what is made ahead is a socket";
        section.source.add(&idle.place, Wrong::new(what, "remove one of them"));
    }
    let mut health = Health::read(section, speaks);
    if let Some(health) = &mut health {
        health.proxy_protocol = proxy_protocol;
        health.tls.clone_from(&tls);
    }
    let defaults = Upstream::with_defaults("", Vec::new());
    DraftUpstream {
        upstream: Upstream {
            speaks,
            tls,
            http2: Http2::read(section, speaks),
            choice: Choice::read(section, &name.value),
            dns: Dns::read(section),
            health,
            ejection: Ejection::read(section),
            retry: Retry::read(section),
            breaker: Breaker::read(section),
            panic_percent: section.number("panic_percent", 0, 100).map_or(0, |n| n.value as u32),
            name: name.value,
            servers,
            host: section
                .parsed("host", "\"preserve\" or \"server\"", |text| value::choice(text, HOST))
                .map_or(defaults.host, |host| host.value),
            max_idle_connections: max_idle
                .map_or(defaults.max_idle_connections, |n| n.value)
                .min(most),
            idle_timeout: section
                .parsed("idle_timeout", "\"60s\"", value::duration)
                .map_or(defaults.idle_timeout, |time| time.value),
            max_connections: max_connections.map(|n| n.value),
            min_idle_connections: min_idle.map_or(0, |n| n.value),
            max_connection_age: section
                .parsed("max_connection_age", "\"10m\"", value::duration)
                .map(|time| time.value),
            max_requests_per_connection: section
                .number("max_requests_per_connection", 1, u32::MAX as usize)
                .map(|n| n.value as u32),
            tcp_fast_open: section.switch("tcp_fast_open").unwrap_or(false),
            proxy_protocol,
            local_bypass: section.switch("local_bypass").unwrap_or(false),
        },
        place: name.place,
    }
}

/// All servers, in the order of the file. Those that cannot be read are left out.
/// True: they are to be spoken to over TLS.
fn servers(section: &Section<'_>) -> (Vec<UpstreamServer>, bool) {
    let mut servers = Vec::new();
    let https = Cell::new(0);
    let address = |text: &str| {
        https.set(https.get() + usize::from(value::is_https(text)));
        value::server(text)
    };
    match section.get("servers") {
        Some((DeValue::Array(items), _)) => {
            for item in items.iter() {
                let place = section.source.place(item.span().start);
                let read = match item.get_ref() {
                    DeValue::String(text) => address(text).map(UpstreamServer::new),
                    DeValue::Integer(number) => {
                        value::server(number.as_str()).map(UpstreamServer::new)
                    }
                    DeValue::Table(table) => {
                        let source = section.source;
                        let table = Section::open(source, SERVER_TITLE, place, table, SERVER_KEYS);
                        servers.extend(server(&table, address));
                        continue;
                    }
                    _ => Err(Wrong::new(
                        "a server is neither an address nor a table",
                        format!("write {EXAMPLE} or {{ address = {EXAMPLE}, weight = 2 }}"),
                    )),
                };
                match read {
                    Ok(server) => servers.push(server),
                    Err(wrong) => section.source.add(&place, wrong),
                }
            }
        }
        Some((_, place)) => {
            let wrong = Wrong::new("`servers` is no list", format!("write servers = [{EXAMPLE}]"));
            section.source.add(&place, wrong);
        }
        None => {}
    }
    let long = section.tables("server", SERVER_TITLE, SERVER_KEYS);
    servers.extend(long.iter().filter_map(|table| server(table, address)));
    let none = |key| section.is_missing_or_empty(key);
    if none("servers") && none("server") && !section.is_misspelt("servers") {
        // An empty list is wrong where it stands, a missing one where it should.
        let place = section.get("servers").map_or_else(|| section.place.clone(), |(_, at)| at);
        let cure = format!("add `servers = [{EXAMPLE}]`");
        section.source.add(&place, Wrong::new("[[upstream]] has no `servers`", cure));
    }
    if !servers.is_empty() && servers.iter().all(|server| server.backup) {
        let cure = "remove `backup = true` from those that are to be asked first";
        section.source.add(&section.place, Wrong::new("every server is a backup", cure));
    }
    if https.get() > 0 && https.get() != servers.len() {
        let place = section.get("servers").map_or_else(|| section.place.clone(), |(_, at)| at);
        let what = "some servers are `https://` and some are not";
        let cure = "write `https://` before each of them, or give the others an upstream of theirs";
        section.source.add(&place, Wrong::new(what, cure));
    }
    (servers, https.get() > 0)
}

fn server(
    section: &Section<'_>,
    address: impl Fn(&str) -> Result<Server, Wrong>,
) -> Option<UpstreamServer> {
    let address = section.required("address", EXAMPLE, address);
    let weight = section.number("weight", 1, MOST_WEIGHT as usize);
    let backup = section.switch("backup").unwrap_or(false);
    let drain = section.switch("drain").unwrap_or(false);
    let max_connections = section.number("max_connections", 1, MOST_CONNECTIONS);
    Some(UpstreamServer {
        address: address?.value,
        weight: weight.map_or(1, |weight| weight.value as u32),
        backup,
        drain,
        max_connections: max_connections.map(|n| n.value),
    })
}
