//! From an exchange to a line, as text or as JSON. Pure: appends to a buffer.
//!
//! Invariant: a line is printable ASCII and ends with its only line feed. What peers sent
//! is quoted wherever it could be taken for something else, and everything beyond ASCII
//! is escaped, so that neither a control sequence nor a Unicode line separator or
//! direction mark reaches a terminal or another reader of the log.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{End, Exchange, Request, timestamp::Rfc3339};
use crate::config::LogFormat;

/// Appends the line of `exchange`, which ended at `now`.
pub(super) fn line(out: &mut Vec<u8>, format: LogFormat, now: SystemTime, exchange: &Exchange<'_>) {
    match format {
        LogFormat::Text => text(out, now, exchange),
        LogFormat::Json => json(out, now, exchange),
    }
    .expect("a Vec takes everything");
    out.push(b'\n');
}

fn text(out: &mut Vec<u8>, now: SystemTime, exchange: &Exchange<'_>) -> io::Result<()> {
    let Exchange { client, request_bytes, response_bytes, .. } = exchange;
    let request = exchange.request.as_ref();
    write!(out, "{}", Rfc3339(now))?;
    field(out, "listener", exchange.listener);
    write!(out, " client={client}")?;
    optional(out, "method", request.map(|request| request.method));
    optional(out, "target", request.map(|request| request.target));
    optional(out, "host", exchange.host);
    optional(out, "version", request.map(|request| version(request.version)));
    match request {
        Some(Request { status, .. }) => write!(out, " status={status}")?,
        None => out.extend_from_slice(b" status=-"),
    }
    optional(out, "route", exchange.route);
    optional(out, "upstream", exchange.upstream);
    match exchange.server {
        Some(server) => write!(out, " server={server}")?,
        None => out.extend_from_slice(b" server=-"),
    }
    write!(out, " request_bytes={request_bytes} response_bytes={response_bytes}")?;
    match exchange.ttfb {
        Some(ttfb) => seconds(out, "ttfb_seconds", ttfb)?,
        None => out.extend_from_slice(b" ttfb_seconds=-"),
    }
    seconds(out, "duration_seconds", exchange.duration)?;
    let end = Ending::of(exchange.end);
    field(out, "end", end.end);
    for (name, value) in [
        ("request_id", exchange.request_id),
        ("trace_id", exchange.trace_id),
        ("error", end.error),
        ("error_detail", end.error_detail),
        ("tunnel", end.tunnel),
        ("engine_up", end.engine_up),
        ("engine_down", end.engine_down),
        ("tunnel_end", end.tunnel_end),
    ] {
        if let Some(value) = value {
            field(out, name, value);
        }
    }
    Ok(())
}

fn json(out: &mut Vec<u8>, now: SystemTime, exchange: &Exchange<'_>) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(serialize_with = "display")]
        time: Rfc3339,
        listener: &'a str,
        client: SocketAddr,
        #[serde(skip_serializing_if = "Option::is_none")]
        method: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        target: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        route: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        upstream: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        server: Option<SocketAddr>,
        request_bytes: u64,
        response_bytes: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        ttfb_seconds: Option<f64>,
        duration_seconds: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        trace_id: Option<&'a str>,
        #[serde(flatten)]
        end: Ending<'a>,
    }
    let request = exchange.request.as_ref();
    let line = Line {
        time: Rfc3339(now),
        listener: exchange.listener,
        client: exchange.client,
        method: request.map(|request| request.method),
        target: request.map(|request| request.target),
        host: exchange.host,
        version: request.map(|request| version(request.version)),
        status: request.map(|request| request.status),
        route: exchange.route,
        upstream: exchange.upstream,
        server: exchange.server,
        request_bytes: exchange.request_bytes,
        response_bytes: exchange.response_bytes,
        ttfb_seconds: exchange.ttfb.map(to_the_microsecond),
        duration_seconds: to_the_microsecond(exchange.duration),
        request_id: exchange.request_id,
        trace_id: exchange.trace_id,
        end: Ending::of(exchange.end),
    };
    line.serialize(&mut serde_json::Serializer::with_formatter(out, Ascii))?;
    Ok(())
}

/// The fields that say how it ended; both forms have them last.
#[derive(Default, Serialize)]
struct Ending<'a> {
    end: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_detail: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_up: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_down: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel_end: Option<&'a str>,
}

impl<'a> Ending<'a> {
    fn of(end: End<'a>) -> Self {
        match end {
            End::Complete => Self { end: "complete", ..Self::default() },
            End::ClientGone => Self { end: "client_gone", ..Self::default() },
            End::Error(kind) => Self {
                end: "error",
                error: Some(kind.name()),
                error_detail: kind.detail(),
                ..Self::default()
            },
            End::Tunnel { kind, engine_up, engine_down, end } => Self {
                end: "tunnel",
                tunnel: Some(kind),
                engine_up: Some(engine_up),
                engine_down: Some(engine_down),
                tunnel_end: Some(end),
                ..Self::default()
            },
        }
    }
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "HTTP/0.9",
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        http::Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn seconds(out: &mut Vec<u8>, name: &str, duration: Duration) -> io::Result<()> {
    write!(out, " {name}={}.{:06}", duration.as_secs(), duration.subsec_micros())
}

fn to_the_microsecond(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}

fn optional(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    match value {
        Some(value) => field(out, name, value),
        None => {
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"=-");
        }
    }
}

/// ` name=value`, quoted if the value has anything but plain graphic characters. A value
/// of just `-` is quoted too: bare it means that there is none.
fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if !value.is_empty() && value != "-" && value.bytes().all(plain) {
        return out.extend_from_slice(value.as_bytes());
    }
    out.push(b'"');
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            ' ' => out.push(b' '),
            c if c.is_ascii_graphic() => out.push(c as u8),
            // \n, \t, \r, \u{1b}, …
            c => write!(out, "{}", c.escape_default()).expect("a Vec takes everything"),
        }
    }
    out.push(b'"');
}

/// JSON in ASCII: serde_json leaves alone what is legal in JSON, and that includes C1
/// control characters, U+2028 and the marks that turn the direction of a line.
struct Ascii;

impl serde_json::ser::Formatter for Ascii {
    fn write_string_fragment<W>(&mut self, out: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        let unsafe_byte = |byte: u8| byte >= 0x7f;
        if !fragment.bytes().any(unsafe_byte) {
            return out.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            if character < '\u{7f}' {
                out.write_all(&[character as u8])?;
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

fn display<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
