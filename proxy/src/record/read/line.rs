//! A line of a segment, as `docs/recording-format.md` has it, version 1.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// What a batch had of one record. `T` is the content of chunks: `String`, or
/// `serde::de::IgnoredAny` where nobody looks at it.
#[derive(Debug, Deserialize)]
pub struct Line<T> {
    /// Version of the format.
    pub v: u32,
    /// Of the record; none on a line about something else.
    pub id: Option<String>,
    /// How many lines of the record came before.
    #[serde(default)]
    pub part: u64,
    /// Head of the request.
    pub begin: Option<Begin>,
    /// Head of the answer.
    pub answer: Option<Answer>,
    /// What came of bodies, in its order.
    #[serde(default = "Vec::new")]
    pub body: Vec<Entry<T>>,
    /// The end.
    pub end: Option<End>,
    /// Exchanges that could not be recorded.
    pub unrecorded: Option<Unrecorded>,
}

/// Exchanges that could not be recorded at all.
#[derive(Debug, Deserialize)]
pub struct Unrecorded {
    /// When it was noticed.
    pub time: String,
    /// How many.
    pub exchanges: u64,
}

/// Names and values.
pub type Fields = Vec<(Text, Text)>;

/// A text, or bytes that are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Valid UTF-8.
    Text(String),
    /// Anything else.
    Bytes {
        /// To the base of 64 (RFC 4648 section 4).
        base64: String,
    },
}

impl Text {
    /// As text, whatever it takes.
    pub fn lossy(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes { base64 } => {
                let bytes = STANDARD.decode(base64).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned().into()
            }
        }
    }
}

/// Head of the request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the format's page says what each is")]
pub struct Begin {
    pub time: String,
    pub listener: String,
    pub client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    pub version: String,
    pub scheme: String,
    pub method: String,
    pub host: String,
    pub target: String,
    pub headers: Fields,
}

impl Begin {
    /// The URL that was asked for.
    pub fn url(&self) -> String {
        if self.method == "CONNECT" || self.target.contains("://") {
            return self.target.clone();
        }
        format!("{}://{}{}", self.scheme, self.host, self.target)
    }

    /// The target's path.
    pub fn path(&self) -> &str {
        let rest = self.target.split_once("://").map_or(self.target.as_str(), |(_, rest)| {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        });
        rest.split('?').next().unwrap_or_default()
    }
}

/// Head of the answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the format's page says what each is")]
pub struct Answer {
    pub at: u64,
    pub status: u16,
    pub by: String,
    pub headers: Fields,
}

/// Chunks of one direction, its trailers, or what is missing.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the format's page says what each is")]
pub struct Entry<T> {
    pub side: String,
    #[serde(default)]
    pub at: Vec<u64>,
    #[serde(default)]
    pub len: Vec<u64>,
    #[serde(default)]
    pub goes_on: bool,
    pub text: Option<T>,
    pub base64: Option<T>,
    pub trailers: Option<Fields>,
    pub missing: Option<Missing>,
}

/// Bytes that are not in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the format's page says what each is")]
pub struct Missing {
    pub bytes: u64,
    pub chunks: u64,
    pub why: String,
}

/// The end of the exchange.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the format's page says what each is")]
pub struct End {
    pub at: u64,
    pub how: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    pub request_bytes: u64,
    pub response_bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}
