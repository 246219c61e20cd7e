//! Text to value, for everything a file or a flag can say.
//!
//! Pure; the only place where a duration, size, address, network, server, host, path or
//! method of the configuration is parsed. Each function gives the value or a [`Wrong`]
//! with the cure. Used by `read.rs` (TOML) and as value parsers of the flags in `cli/`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::access_log::Field;

use super::{
    AccessLog, AmbiguousPaths, ForwardedPolicy, HostPattern, LogFormat, Server, SpliceMode,
    Steering, errors::Wrong, forward::canonical, suggest,
};

/// The words of an enumeration and what they stand for.
pub(crate) type Words<T> = &'static [(&'static str, T)];

pub(crate) const SPLICE: Words<SpliceMode> = &[
    ("auto", SpliceMode::Auto),
    ("kernel", SpliceMode::Kernel),
    ("pipe", SpliceMode::Pipe),
    ("copy", SpliceMode::Copy),
];
pub(crate) const LOG_FORMAT: Words<LogFormat> =
    &[("text", LogFormat::Text), ("json", LogFormat::Json)];
pub(crate) const FORWARDED: Words<ForwardedPolicy> = &[
    ("replace", ForwardedPolicy::Replace),
    ("append", ForwardedPolicy::Append),
    ("off", ForwardedPolicy::Off),
];

pub(crate) const PATHS: Words<AmbiguousPaths> = &[
    ("refuse", AmbiguousPaths::Refuse),
    ("normalise", AmbiguousPaths::Normalise),
    ("pass", AmbiguousPaths::Pass),
];

pub(crate) const STEERING: Words<Steering> =
    &[("load", Steering::Load), ("cpu", Steering::Cpu), ("hash", Steering::Hash)];

/// A year; anything longer is a slip, and timers overflow far beyond it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// One word of an enumeration.
pub(crate) fn choice<T: Copy>(text: &str, words: Words<T>) -> Result<T, Wrong> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let valid = words.iter().map(|(word, _)| *word);
        Wrong::new(format!("unknown value `{text}`"), suggest::cure(text, valid))
    })
}

/// The word that stands for a value: the inverse of [`choice`].
pub(crate) fn word<T: PartialEq>(value: &T, words: Words<T>) -> &'static str {
    words.iter().find(|(_, v)| v == value).map_or("", |(word, _)| word)
}

pub(crate) fn splice(text: &str) -> Result<SpliceMode, Wrong> {
    choice(text, SPLICE)
}

pub(crate) fn log_format(text: &str) -> Result<LogFormat, Wrong> {
    choice(text, LOG_FORMAT)
}

/// `250ms`, `5s`, `2m`, `1h`; more than zero, at most a year.
pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    let (digits, unit) = split_number(text);
    let bad = |cure: String| Wrong::new(format!("`{text}` is not a duration"), cure);
    let forms =
        || "write a whole number and a unit: \"250ms\", \"5s\", \"2m\" or \"1h\"".to_owned();
    if !digits.is_empty() && unit.is_empty() {
        return Err(bad(format!("add the unit, for example \"{digits}s\" or \"{digits}ms\"")));
    }
    let number: u64 = digits.parse().map_err(|_| bad(forms()))?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(bad(forms())),
    };
    let value = Duration::from_millis(milliseconds.unwrap_or(u64::MAX));
    if value.is_zero() {
        return Err(Wrong::new("a duration of zero", "write at least \"1ms\""));
    }
    if value > LONGEST {
        return Err(Wrong::new(
            format!("`{text}` is too long"),
            "write at most \"8760h\" (a year)",
        ));
    }
    Ok(value)
}

/// The inverse of [`duration`], in the largest unit that is exact.
pub(crate) fn show_duration(value: Duration) -> String {
    let ms = value.as_millis();
    match ms {
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// Bytes: `65536`, `64KiB`, `1MiB`, `10MB`. Not zero.
pub(crate) fn size(text: &str) -> Result<u64, Wrong> {
    let (digits, unit) = split_number(text);
    let bad = || {
        Wrong::new(
            format!("`{text}` is not a size"),
            "write bytes as a whole number (65536) or with a unit: \"64KiB\", \"1MiB\", \"10MB\"",
        )
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(bad()),
    };
    match number.checked_mul(factor) {
        // TOML's integers end there, and no body or head comes near it.
        Some(bytes) if bytes <= i64::MAX as u64 => Ok(bytes),
        _ => Err(Wrong::new(format!("`{text}` is too large"), "write at most \"8589934591GiB\"")),
    }
}

/// The inverse of [`size`], in the largest binary unit that is exact.
pub(crate) fn show_size(bytes: u64) -> String {
    match bytes {
        _ if bytes > 0 && bytes.is_multiple_of(1 << 30) => format!("{}GiB", bytes >> 30),
        _ if bytes > 0 && bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes > 0 && bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => bytes.to_string(),
    }
}

/// An address to bind: `127.0.0.1:8080`, `[::1]:8080`; port 0 picks one.
pub(crate) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let cure = if bare != text && bare.parse::<SocketAddr>().is_ok() {
        format!("write it without a scheme: \"{bare}\"")
    } else if let Some(port) = bare.strip_prefix(':').filter(|p| p.parse::<u16>().is_ok()) {
        format!("name the interface: \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for all")
    } else if bare.parse::<u16>().is_ok() {
        format!("name the interface: \"127.0.0.1:{bare}\", or \"0.0.0.0:{bare}\" for all")
    } else if let Some(port) = bare.strip_prefix("localhost:") {
        format!("names are not looked up here, write \"127.0.0.1:{port}\" or \"[::1]:{port}\"")
    } else if let Some(port) = bare.strip_prefix("*:") {
        format!("write \"0.0.0.0:{port}\" or \"[::]:{port}\" for all interfaces")
    } else if bare.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("add a port, for example \"[{bare}]:8080\"")
    } else if bare.parse::<std::net::Ipv4Addr>().is_ok() {
        format!("add a port, for example \"{bare}:8080\"")
    } else {
        "write an IP address and a port: \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned()
    };
    Err(Wrong::new(format!("`{text}` is not an address to listen on"), cure))
}

/// An address, or `off`.
pub(crate) fn address_or_off(text: &str) -> Result<Option<SocketAddr>, Wrong> {
    if text == "off" { Ok(None) } else { address(text).map(Some) }
}

/// `off`, `stderr` or the path of a file.
pub(crate) fn access_log(text: &str) -> Result<AccessLog, Wrong> {
    match text {
        "off" => Ok(AccessLog::Off),
        "stderr" => Ok(AccessLog::Stderr),
        // A bare word is more often a slip than a file in the working directory.
        _ if !text.contains(['/', '.']) => Err(Wrong::new(
            format!("unknown access log `{text}`"),
            format!("write \"off\", \"stderr\" or a path such as \"./{text}\""),
        )),
        _ => Ok(AccessLog::File(PathBuf::from(text))),
    }
}

/// A field of the access log.
pub(crate) fn access_field(text: &str) -> Result<Field, Wrong> {
    Field::named(text).ok_or_else(|| {
        let cure = suggest::cure(text, Field::names());
        Wrong::new(format!("unknown field `{text}` of the access log"), cure)
    })
}

/// A network: `10.0.0.0/8`, `2001:db8::/32`, or one address.
pub(crate) fn network(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Ok(canonical(IpNet::from(ip)));
    }
    let net: IpNet = text.parse().map_err(|_| {
        Wrong::new(
            format!("`{text}` is not a network"),
            "write addresses, not names: \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\"",
        )
    })?;
    if net.trunc() != net {
        return Err(Wrong::new(
            format!("`{text}` has address bits beyond its prefix"),
            format!(
                "write \"{}\" for the network or \"{}\" for the address",
                net.trunc(),
                net.addr()
            ),
        ));
    }
    Ok(canonical(net))
}

/// A port or an inclusive range of ports: `443`, `8000-8999`.
pub(crate) fn ports(text: &str) -> Result<(u16, u16), Wrong> {
    let bad = || {
        Wrong::new(
            format!("`{text}` is not a port or a range of ports"),
            "write a port from 1 to 65535, or a range such as \"8000-8999\"",
        )
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |part: &str| part.trim().parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad);
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(Wrong::new(
            format!("the range `{text}` is empty"),
            format!("write the lower port first: \"{last}-{first}\""),
        ));
    }
    Ok((first, last))
}

/// `name:password`. The problem never repeats what was given.
pub(crate) fn user(text: &str) -> Result<String, Wrong> {
    let cure = "write \"name:password\"";
    match text.split_once(':') {
        None => Err(Wrong::new("a user without a colon", cure)),
        Some(("", _)) => Err(Wrong::new("a user without a name", cure)),
        Some((_, "")) => Err(Wrong::new("a user without a password", cure)),
        // RFC 7617, section 2: no control characters in either part.
        Some(_) if text.chars().any(char::is_control) => {
            Err(Wrong::new("a user with a control character", cure))
        }
        Some(_) => Ok(text.to_owned()),
    }
}

/// Whether a server is to be spoken to over TLS.
pub(crate) fn is_https(text: &str) -> bool {
    text.starts_with("https://")
}

/// A server of an upstream: `host:port`, `http://host:port`, `http://host`; with `https` over
/// TLS ([`is_https`]).
pub(crate) fn server(text: &str) -> Result<Server, Wrong> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        // Said without the text: it may be a password.
        return Err(Wrong::new("a server with a user name", "write \"host:port\" only"));
    }
    match scheme {
        None | Some("http" | "https") => {}
        Some(other) => {
            return Err(Wrong::new(
                format!("`{text}` has the scheme `{other}`"),
                format!("write \"http://{authority}\" or \"{authority}\""),
            ));
        }
    }
    if !matches!(path, "" | "/") {
        return Err(Wrong::new(
            format!("`{text}` has a path, and paths are passed on as they come"),
            format!("write \"{}{authority}\"", text.split_at(text.len() - rest.len()).0),
        ));
    }
    let bad = |cure: String| Err(Wrong::new(format!("`{text}` is not a server"), cure));
    if authority.parse::<std::net::Ipv6Addr>().is_ok() {
        return bad(format!("put the address in brackets: \"[{authority}]:80\""));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port.map(str::parse::<u16>) {
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return bad(format!("write a port from 1 to 65535: \"{host}:80\"")),
        None if scheme == Some("https") => 443,
        None if scheme.is_some() => 80,
        None => return bad(format!("add a port: \"{authority}:80\"")),
    };
    let name = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
        None if is_host_name(host) => host,
        _ => {
            return bad(format!(
                "write a name or an address before the port: \"127.0.0.1:{port}\""
            ));
        }
    };
    Ok(Server { host: name.to_ascii_lowercase(), port })
}

/// What `--to` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The server.
    pub(crate) server: Server,
    /// What it is to get.
    pub(crate) gets: Gets,
}

/// What a server named by `--to` is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gets {
    /// Requests, over HTTP/1.1.
    Http1,
    /// Requests, over HTTP/1.1 and TLS: `https://`.
    Https,
    /// Requests, over HTTP/2: `h2c://`.
    Http2,
    /// Connections as they are: `tcp://`.
    Tcp,
}

/// A server as [`server`] reads it, `tcp://host:port` or `h2c://host:port`.
pub(crate) fn target(text: &str) -> Result<Target, Wrong> {
    let schemes = [("tcp://", Gets::Tcp), ("h2c://", Gets::Http2)];
    let known = schemes
        .iter()
        .find_map(|(scheme, gets)| Some((*scheme, text.strip_prefix(scheme)?, *gets)));
    let Some((scheme, bare, gets)) = known else {
        let gets = if is_https(text) { Gets::Https } else { Gets::Http1 };
        return Ok(Target { server: server(text)?, gets });
    };
    if let Some(at) = bare.find(['/', '?', '#']) {
        let authority = bare.get(..at).unwrap_or_default();
        let what = format!("`{text}` has a path");
        return Err(Wrong::new(what, format!("write \"{scheme}{authority}\"")));
    }
    Ok(Target { server: server(bare)?, gets })
}

/// The host of a route: `api.example.org`, `*.example.org`, `[::1]`. Lower case, no port.
pub(crate) fn host_pattern(text: &str) -> Result<HostPattern, Wrong> {
    name_pattern("host", text)
}

fn name_pattern(key: &str, text: &str) -> Result<HostPattern, Wrong> {
    let host = text.to_ascii_lowercase();
    let bad = |cure: String| Err(Wrong::new(format!("`{text}` is not a host"), cure));
    if host == "*" {
        return bad(format!("leave `{key}` out to match every host"));
    }
    if let Some((_, rest)) = host.split_once("://") {
        let name = rest.split(['/', ':']).next().unwrap_or(rest);
        return bad(format!("write the name only: \"{name}\""));
    }
    let literal = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    if literal.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()) {
        return Ok(HostPattern::Exact(host));
    }
    if let Some((name, port)) = host.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return bad(format!("write it without the port: \"{name}\""));
    }
    if let Some(name) = host.strip_suffix('.') {
        return bad(format!("write it without the final dot: \"{name}\""));
    }
    if !host.is_ascii() {
        return bad("write the name as it travels in requests, in punycode: \"xn--…\"".to_owned());
    }
    match host.strip_prefix("*.") {
        Some(rest) if is_host_name(rest) => Ok(HostPattern::Wildcard(format!(".{rest}"))),
        None if is_host_name(&host) => Ok(HostPattern::Exact(host)),
        _ => bad("write a name such as \"api.example.org\" or \"*.example.org\"".to_owned()),
    }
}

/// The server name of a route: `api.example.org`, `*.example.org`. Lower case.
pub(crate) fn sni_pattern(text: &str) -> Result<HostPattern, Wrong> {
    let address = text.trim_start_matches('[').trim_end_matches(']');
    if address.parse::<std::net::IpAddr>().is_ok() {
        // RFC 6066, section 3: "Literal IPv4 and IPv6 addresses are not permitted".
        return Err(Wrong::new(
            format!("`{text}` is an address, and TLS clients send names only"),
            "write a name, or leave `sni` out: such clients take the default route",
        ));
    }
    name_pattern("sni", text)
}

/// The method of a route. Methods are case-sensitive (RFC 9110, section 9.1).
pub(crate) fn method(text: &str) -> Result<http::Method, Wrong> {
    const KNOWN: &[&str] =
        &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
    let upper = text.to_ascii_uppercase();
    if upper != text && KNOWN.contains(&upper.as_str()) {
        return Err(Wrong::new(
            format!("`{text}`: methods are case-sensitive"),
            format!("did you mean \"{upper}\"?"),
        ));
    }
    http::Method::from_bytes(text.as_bytes()).map_err(|_| {
        Wrong::new(format!("`{text}` is not a method"), suggest::cure(text, KNOWN.iter().copied()))
    })
}

/// The name of a listener or an upstream: a label in metrics and a word in output lines.
pub(crate) fn name(text: &str) -> Result<String, Wrong> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
        return Err(Wrong::new(
            format!("`{text}` is not a name"),
            "write 1 to 64 letters, digits, `-`, `_` or `.`",
        ));
    }
    Ok(text.to_owned())
}

fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim())
}

fn is_host_name(host: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}
