//! Which version of HTTP servers are spoken to in: `protocol` and `[upstream.http2]`.

use std::time::Duration;

use super::super::{
    effective::{header, key, text},
    errors::Wrong,
    section::Section,
    value::{self, Words},
};

/// The version of HTTP towards servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1 (the default).
    Http1,
    /// HTTP/2, without asking first (RFC 9113 section 3.3).
    Http2,
    /// Which of the two the server chooses when a session of TLS begins (RFC 7301).
    Either,
}

/// Connections that many requests share (RFC 9113).
///
/// What one of them holds at most of answers that clients do not take is
/// `max_streams` times `stream_window_bytes`; the window of the whole connection is larger by
/// one stream, so that those cannot keep the others from going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2 {
    /// Requests at once on one connection; fewer where the server says so.
    pub max_streams: u32,
    /// How much of one answer may be on its way without a client that takes it, in bytes.
    pub stream_window_bytes: u32,
    /// After so long without a frame on a connection with requests under way it is asked
    /// whether it is there (PING). `None`, the default: never, for servers of gRPC end a
    /// connection on which they are asked more often than every five minutes.
    pub keepalive_interval: Option<Duration>,
    /// How long the answer to that may take.
    pub keepalive_timeout: Duration,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            max_streams: 100,
            stream_window_bytes: 128 * 1024,
            keepalive_interval: None,
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

pub(super) const PROTOCOLS: Words<Speaks> =
    &[("http1", Speaks::Http1), ("http2", Speaks::Http2), ("auto", Speaks::Either)];

const KEYS: &[&str] =
    &["max_streams", "stream_window_bytes", "keepalive_interval", "keepalive_timeout"];

/// More than servers allow, and as many as a window has room for.
const MOST_STREAMS: usize = 10_000;
/// What RFC 9113 section 6.9.2 begins with.
const LEAST_WINDOW: u64 = 65_535;
const MOST_WINDOW: u64 = 16 << 20;
/// RFC 9113 section 6.9.1: no window is larger.
const MOST_TOGETHER: u64 = (1 << 31) - 1;

impl Speaks {
    /// Reads `protocol` of this upstream.
    pub(super) fn read(upstream: &Section<'_>, tls: bool) -> Self {
        let example = "\"http1\", \"http2\" or \"auto\"";
        let read = upstream.parsed("protocol", example, |text| value::choice(text, PROTOCOLS));
        let Some(protocol) = read else { return Self::Http1 };
        if protocol.value == Self::Either && !tls {
            let what =
                "`protocol = \"auto\"` without TLS: nobody says there what the server speaks";
            let cure = "write \"http1\" or \"http2\", or [upstream.tls] below";
            upstream.source.add(&protocol.place, Wrong::new(what, cure));
        }
        protocol.value
    }
}

impl Http2 {
    /// The window of a connection, in bytes.
    pub fn connection_window_bytes(&self) -> u32 {
        let together = (u64::from(self.max_streams) + 1) * u64::from(self.stream_window_bytes);
        together.min(MOST_TOGETHER) as u32
    }

    /// Reads `[upstream.http2]` of this upstream.
    pub(super) fn read(upstream: &Section<'_>, speaks: Speaks) -> Self {
        let defaults = Self::default();
        let Some(section) = &upstream.table("http2", "[upstream.http2]", KEYS) else {
            return defaults;
        };
        if speaks == Speaks::Http1 {
            let what = "[upstream.http2] without `protocol = \"http2\"`";
            let cure = "write `protocol = \"http2\"` above it, or remove it";
            section.source.add(&section.place, Wrong::new(what, cure));
        }
        let time =
            |key, example| section.parsed(key, example, value::duration).map(|time| time.value);
        let max_streams = section
            .number("max_streams", 1, MOST_STREAMS)
            .map_or(defaults.max_streams, |streams| streams.value as u32);
        let window = section.size("stream_window_bytes");
        if let Some(window) = &window {
            let most = MOST_WINDOW.min(MOST_TOGETHER / (u64::from(max_streams) + 1));
            if !(LEAST_WINDOW..=most).contains(&window.value) {
                let what = format!("`stream_window_bytes = {}` is out of range", window.value);
                let cure = format!("write {LEAST_WINDOW} to {most} for {max_streams} streams");
                section.source.add(&window.place, Wrong::new(what, cure));
            }
        }
        Self {
            max_streams,
            stream_window_bytes: window.map_or(defaults.stream_window_bytes, |w| w.value as u32),
            keepalive_interval: time("keepalive_interval", "\"5m\""),
            keepalive_timeout: time("keepalive_timeout", "\"20s\"")
                .unwrap_or(defaults.keepalive_timeout),
        }
    }

    /// Writes `[upstream.http2]`.
    pub(super) fn write(&self, out: &mut String) {
        header(out, "[upstream.http2]");
        key(out, "max_streams", self.max_streams);
        key(out, "stream_window_bytes", self.stream_window_bytes);
        if let Some(interval) = self.keepalive_interval {
            text(out, "keepalive_interval", value::show_duration(interval));
        }
        text(out, "keepalive_timeout", value::show_duration(self.keepalive_timeout));
    }
}
