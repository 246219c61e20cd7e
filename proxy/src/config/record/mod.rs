//! `[record]`: where exchanges are recorded, which of them, how much memory may be spent on it,
//! and what is blanked.
//!
//! `read.rs` reads the section, `write.rs` writes it back. Listeners and routes say `record =
//! true` or `false` for themselves.

use std::{path::PathBuf, time::Duration};

use http::HeaderName;

use super::errors::Wrong;
use crate::record::Destination;

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(super) use read::read;
pub(super) use write::write;

/// The recorder.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Folder of the segments.
    pub directory: PathBuf,
    /// Whether traffic waits for the disk.
    pub mode: RecordMode,
    /// Bytes that wait to be written, over all workers.
    pub memory_bytes: usize,
    /// In [`RecordMode::Standard`], how long an exchange waits for the disk at a time.
    pub max_wait: Duration,
    /// Which exchanges.
    pub sampling: Sampling,
    /// Bytes of a body in each direction that are recorded; `None`: all.
    pub max_body_bytes: Option<u64>,
    /// Whether frames of WebSockets are recorded: their tunnels stay in userspace.
    pub websocket: bool,
    /// When what has come is written.
    pub batch: Batch,
    /// The files.
    pub segments: Segments,
    /// What is blanked.
    pub redact: Redact,
    /// What is blanked besides when records are shown by this configuration.
    pub redact_shown: Option<Redact>,
    /// Where records go besides, if anywhere.
    pub ship: Option<Destination>,
}

/// Whether traffic waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordMode {
    /// Never: what finds no room is not recorded, and the record says so.
    ZeroLatency,
    /// A body waits for room, and the last bytes of an answer until all of it is written.
    Standard,
}

/// Which exchanges are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Of all, how many: 0 to 1.
    pub ratio: f64,
    /// Of the others, those that fail: a status of 500 or more, or a fault.
    pub errors: bool,
    /// Of the others, those that take longer.
    pub slower_than: Option<Duration>,
    /// What one exchange may hold in memory until it is known whether it is recorded.
    pub max_undecided_bytes: usize,
}

/// When what has come is written: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// So many heads, chunks and ends.
    pub entries: usize,
    /// So many bytes.
    pub bytes: usize,
    /// So long after the first.
    pub delay: Duration,
}

/// The files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// A new one is begun when one is so large.
    pub bytes: u64,
    /// Or so old.
    pub age: Duration,
    /// The oldest are removed when all together are larger.
    pub total_bytes: u64,
    /// How they are stored.
    pub compression: Compression,
    /// When the kernel is asked to put them on the disk.
    pub sync: Sync,
}

/// How segments are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As text.
    None,
    /// Each batch as a frame of Zstandard.
    Zstd,
}

/// When fdatasync(2) is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Never: what is written survives the process, not the machine.
    Never,
    /// When a segment is complete.
    Segment,
    /// After each batch.
    Batch,
}

/// What is blanked before it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Redact {
    /// Fields of heads and trailers.
    pub headers: Vec<HeaderName>,
    /// Parameters of the query, lower case.
    pub query: Vec<String>,
    /// Members of JSON in bodies, lower case.
    pub json_fields: Vec<String>,
    /// Text in bodies.
    pub patterns: Vec<Pattern>,
}

/// Fields that are blanked unless told otherwise.
pub const HEADERS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "apikey",
    "x-goog-api-key",
    "x-auth-token",
    "x-access-token",
    "x-amz-security-token",
    "x-csrf-token",
    "x-xsrf-token",
    "ocp-apim-subscription-key",
    "x-functions-key",
    "x-vault-token",
    "private-token",
    "x-auth-key",
    "x-forwarded-access-token",
    "cf-access-client-secret",
    "cf-access-jwt-assertion",
    "x-goog-iap-jwt-assertion",
    "x-amzn-oidc-accesstoken",
    "x-amzn-oidc-data",
    // Browsers cannot set fields where they open a WebSocket, so keys and tokens are in here.
    "sec-websocket-protocol",
];

/// Parameters of the query that are blanked unless told otherwise.
pub const QUERY: &[&str] = &[
    "key",
    "api_key",
    "api-key",
    "apikey",
    "access_token",
    "token",
    "id_token",
    "refresh_token",
    "auth",
    "password",
    "secret",
    "client_secret",
    "code",
    "sig",
    "signature",
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
    "x-goog-signature",
];

/// A regular expression over the bytes of a body.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    compiled: regex::bytes::Regex,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Result<Self, Wrong> {
        let cure = "write it as for Rust's crate regex: no look-around, no back-references";
        let mut builder = regex::bytes::RegexBuilder::new(text);
        let compiled = builder.unicode(false).size_limit(1 << 20).build().map_err(|error| {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or("").trim().trim_start_matches("error: ");
            Wrong::new(format!("`{text}` is not a regular expression: {why}"), cure)
        })?;
        if compiled.is_match(b"") {
            let what = format!("`{text}` matches where there is nothing");
            return Err(Wrong::new(what, "write one that needs at least one byte"));
        }
        Ok(Self { text: text.to_owned(), compiled })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Compiled.
    pub fn regex(&self) -> &regex::bytes::Regex {
        &self.compiled
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Record {
    /// With the defaults of everything but the folder.
    pub fn with_defaults(directory: PathBuf) -> Self {
        Self {
            directory,
            mode: RecordMode::ZeroLatency,
            memory_bytes: 32 << 20,
            max_wait: Duration::from_secs(10),
            sampling: Sampling {
                ratio: 1.0,
                errors: true,
                slower_than: None,
                max_undecided_bytes: 512 << 10,
            },
            max_body_bytes: None,
            websocket: false,
            batch: Batch { entries: 4096, bytes: 256 << 10, delay: Duration::from_millis(50) },
            segments: Segments {
                bytes: 64 << 20,
                age: Duration::from_secs(3600),
                total_bytes: 1 << 30,
                compression: Compression::None,
                sync: Sync::Segment,
            },
            redact: Redact::default(),
            redact_shown: None,
            ship: None,
        }
    }
}

impl Redact {
    /// Nothing is blanked.
    pub(crate) fn nothing() -> Self {
        Self {
            headers: Vec::new(),
            query: Vec::new(),
            json_fields: Vec::new(),
            patterns: Vec::new(),
        }
    }
}

impl Default for Redact {
    fn default() -> Self {
        Self {
            headers: HEADERS.iter().map(|name| HeaderName::from_static(name)).collect(),
            query: QUERY.iter().map(|&name| name.to_owned()).collect(),
            json_fields: Vec::new(),
            patterns: Vec::new(),
        }
    }
}
