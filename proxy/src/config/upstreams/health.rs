//! How it is known whether a server is well: `[upstream.health]`, checks that the proxy makes,
//! and `[upstream.ejection]`, what requests show.

use std::{ops::RangeInclusive, time::Duration};

use http::HeaderValue;
use toml::de::DeValue;

use crate::proxy_protocol::write::Version;

use super::super::{
    effective::{header, key, text},
    errors::Wrong,
    section::Section,
    value::{self, Words},
};
use super::{ServerTls, Speaks};

/// Checks that the proxy makes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// In what, where that is HTTP.
    pub speaks: Speaks,
    /// Over TLS, where the upstream is.
    pub tls: Option<ServerTls>,
    /// From one check to the next, a tenth more or less.
    pub interval: Duration,
    /// For the whole of one check.
    pub timeout: Duration,
    /// Good checks in a row that make a server well.
    pub rise: u32,
    /// Bad ones that make it ill.
    pub fall: u32,
    /// Where, if not at the server's own port.
    pub port: Option<u16>,
    /// With which PROXY header a check begins; the upstream's.
    pub proxy_protocol: Option<Version>,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Whether it takes a connection.
    Tcp,
    /// GET.
    Http {
        /// Path and query.
        path: String,
        /// `Host`; `None`: the server's own.
        host: Option<HeaderValue>,
        /// Which statuses are good.
        expect: Vec<RangeInclusive<u16>>,
        /// What has to be in the body.
        contains: Option<String>,
    },
    /// The health service of gRPC, over HTTP/2.
    Grpc {
        /// Of which service; empty: of the server as a whole.
        service: String,
    },
}

/// Servers that fail requests are left alone for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// After so many failures in a row.
    pub consecutive_errors: u32,
    /// Whether an answer of 500 and more is one.
    pub on_5xx: bool,
    /// Whether an answer that does not come in time is one.
    pub on_timeout: bool,
    /// How long, the first time; twice as long each further time.
    pub time: Duration,
    /// How long at most.
    pub max_time: Duration,
    /// At most so many of the servers at once, in percent, backups aside.
    pub max_percent: u32,
}

const HEALTH_KEYS: &[&str] = &[
    "type", "path", "host", "expect", "contains", "service", "interval", "timeout", "rise", "fall",
    "port",
];

const EJECTION_KEYS: &[&str] =
    &["consecutive_errors", "on_5xx", "on_timeout", "time", "max_time", "max_percent"];

/// Most good or bad checks in a row that can be asked for, and most failures.
const MOST: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Tcp,
    Http,
    Grpc,
}

const TYPES: Words<Type> = &[("http", Type::Http), ("tcp", Type::Tcp), ("grpc", Type::Grpc)];

/// Of the name of a service: more than any has.
const MOST_SERVICE_BYTES: usize = 120;

impl Health {
    /// Reads `[upstream.health]` of this upstream.
    pub(super) fn read(upstream: &Section<'_>, speaks: Speaks) -> Option<Self> {
        let section = &upstream.table("health", "[upstream.health]", HEALTH_KEYS)?;
        let of_type = section
            .parsed("type", "\"http\", \"tcp\" or \"grpc\"", |text| value::choice(text, TYPES))
            .map_or(Type::Http, |of_type| of_type.value);
        let interval = duration(section, "interval", Duration::from_secs(5));
        let timeout = duration(section, "timeout", interval.min(Duration::from_secs(2)));
        if timeout > interval
            && let Some(place) = section.place_of("timeout")
        {
            let cure = format!("write at most \"{}\"", value::show_duration(interval));
            section.source.add(&place, Wrong::new("`timeout` is longer than `interval`", cure));
        }
        let number = |key, default| {
            section.number(key, 1, MOST).map_or(default, |number| number.value as u32)
        };
        Some(Self {
            speaks,
            tls: None,
            probe: match of_type {
                Type::Tcp => tcp(section),
                Type::Http => http(section),
                Type::Grpc => grpc(section),
            },
            interval,
            timeout,
            rise: number("rise", 2),
            fall: number("fall", 3),
            port: section.number("port", 1, 65_535).map(|port| port.value as u16),
            proxy_protocol: None,
        })
    }

    /// Writes `[upstream.health]`.
    pub(super) fn write(&self, out: &mut String) {
        header(out, "[upstream.health]");
        match &self.probe {
            Probe::Tcp => text(out, "type", "tcp"),
            Probe::Grpc { service } => {
                text(out, "type", "grpc");
                if !service.is_empty() {
                    text(out, "service", service);
                }
            }
            Probe::Http { path, host, expect, contains } => {
                text(out, "type", "http");
                text(out, "path", path);
                if let Some(host) = host.as_ref().and_then(|host| host.to_str().ok()) {
                    text(out, "host", host);
                }
                let ranges = expect.iter().map(|r| format!("\"{}-{}\"", r.start(), r.end()));
                key(out, "expect", format!("[{}]", ranges.collect::<Vec<_>>().join(", ")));
                if let Some(contains) = contains {
                    text(out, "contains", contains);
                }
            }
        }
        text(out, "interval", value::show_duration(self.interval));
        text(out, "timeout", value::show_duration(self.timeout));
        key(out, "rise", self.rise);
        key(out, "fall", self.fall);
        if let Some(port) = self.port {
            key(out, "port", port);
        }
    }
}

fn tcp(section: &Section<'_>) -> Probe {
    of_others(section, &["path", "host", "expect", "contains", "service"], "\"tcp\"");
    Probe::Tcp
}

fn grpc(section: &Section<'_>) -> Probe {
    of_others(section, &["path", "host", "expect", "contains"], "\"grpc\"");
    let service = section.parsed("service", "\"shop.v1.Orders\"", |name| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        match name.len() <= MOST_SERVICE_BYTES && name.bytes().all(plain) {
            true => Ok(name.to_owned()),
            false => Err(Wrong::new(
                format!("`{name}` is no name of a service"),
                "write it with its package, such as \"shop.v1.Orders\"",
            )),
        }
    });
    Probe::Grpc { service: service.map_or_else(String::new, |service| service.value) }
}

/// Keys that say nothing to a check of this type.
fn of_others(section: &Section<'_>, keys: &[&str], of_type: &str) {
    let other = if keys.contains(&"path") { "http" } else { "grpc" };
    for key in keys {
        if let Some(place) = section.place_of(key) {
            let what = format!("`{key}` with `type = {of_type}`, which has no use for it");
            let cure = format!("write `type = \"{other}\"`, or remove the key");
            section.source.add(&place, Wrong::new(what, cure));
        }
    }
}

fn http(section: &Section<'_>) -> Probe {
    of_others(section, &["service"], "\"http\"");
    let expect = section.list("expect", "200, \"200-399\"", statuses);
    if let Some((DeValue::Array(items), place)) = section.get("expect")
        && items.is_empty()
    {
        let wrong = Wrong::new("`expect` is empty", "write [200], or leave it out for 200 to 399");
        section.source.add(&place, wrong);
    }
    let expect: Vec<_> = expect.unwrap_or_default().into_iter().map(|s| s.value).collect();
    Probe::Http {
        path: section.parsed("path", "\"/health\"", path).map_or("/".to_owned(), |p| p.value),
        host: section.parsed("host", "\"api.example.org\"", host).map(|host| host.value),
        expect: if expect.is_empty() { vec![200..=399] } else { expect },
        contains: section
            .parsed("contains", "\"ok\"", |text| match text {
                "" => Err(Wrong::new("nothing to look for", "leave `contains` out")),
                _ => Ok(text.to_owned()),
            })
            .map(|contains| contains.value),
    }
}

impl Ejection {
    /// Reads `[upstream.ejection]` of this upstream.
    pub(super) fn read(upstream: &Section<'_>) -> Option<Self> {
        let section = &upstream.table("ejection", "[upstream.ejection]", EJECTION_KEYS)?;
        let errors = section.number("consecutive_errors", 1, MOST);
        let time = duration(section, "time", Duration::from_secs(10));
        let max_time = duration(section, "max_time", time.max(Duration::from_secs(300)));
        if max_time < time
            && let Some(place) = section.place_of("max_time")
        {
            let cure = format!("write at least \"{}\"", value::show_duration(time));
            section.source.add(&place, Wrong::new("`max_time` is shorter than `time`", cure));
        }
        Some(Self {
            consecutive_errors: errors.map_or(5, |errors| errors.value as u32),
            on_5xx: section.switch("on_5xx").unwrap_or(false),
            on_timeout: section.switch("on_timeout").unwrap_or(true),
            time,
            max_time,
            max_percent: section.number("max_percent", 1, 100).map_or(50, |n| n.value as u32),
        })
    }

    /// Writes `[upstream.ejection]`.
    pub(super) fn write(&self, out: &mut String) {
        header(out, "[upstream.ejection]");
        key(out, "consecutive_errors", self.consecutive_errors);
        key(out, "on_5xx", self.on_5xx);
        key(out, "on_timeout", self.on_timeout);
        text(out, "time", value::show_duration(self.time));
        text(out, "max_time", value::show_duration(self.max_time));
        key(out, "max_percent", self.max_percent);
    }
}

fn duration(section: &Section<'_>, key: &str, default: Duration) -> Duration {
    let example = format!("\"{}\"", value::show_duration(default));
    section.parsed(key, &example, value::duration).map_or(default, |time| time.value)
}

/// A status or a range of statuses: `200`, `200-299`.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, Wrong> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status =
        |part: &str| part.trim().parse::<u16>().ok().filter(|status| (100..600).contains(status));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(Wrong::new(
            format!("`{text}` is not a status"),
            "write one from 100 to 599, or a range such as \"200-399\"",
        )),
    }
}

fn path(text: &str) -> Result<String, Wrong> {
    let valid = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    match valid && !text.contains('#') {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(
            format!("`{text}` is not a path"),
            "begin it with a slash, percent-encoded as it travels: \"/health?full=1\"",
        )),
    }
}

fn host(text: &str) -> Result<HeaderValue, Wrong> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    HeaderValue::from_str(text).ok().filter(|_| !text.is_empty() && text.chars().all(plain)).ok_or(
        Wrong::new(format!("`{text}` is not a host"), "write a name, and a port if it needs one"),
    )
}
