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
    /// As bytes.
    pub fn bytes(&self) -> std::borrow::Cow<'_, [u8]> {
        match self {
            Self::Text(text) => text.as_bytes().into(),
            Self::Bytes { base64 } => STANDARD.decode(base64).unwrap_or_default().into(),
        }
    }

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
        if self.method == "CONNECT" || self.behind_scheme().is_some() {
            return self.target.clone();
        }
        format!("{}://{}{}", self.scheme, self.host, self.target)
    }

    /// Its time in seconds since 1970; 0 where it cannot be read.
    pub fn seconds(&self) -> f64 {
        // Always in one form: 2026-01-02T03:04:05.678901Z.
        let number = |from: usize, to: usize| self.time.get(from..to)?.parse::<i64>().ok();
        let date = || Some((number(0, 4)?, number(5, 7)?, number(8, 10)?));
        let clock = || Some(number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?);
        let Some(((year, month, day), clock)) = date().zip(clock()) else { return 0.0 };
        // Days since 1970 of a date: years begin in March, so that the leap day is their last.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let days = days + (153 * month + 2) / 5 + day - 1 - 719_468;
        let micros = number(20, 26).unwrap_or(0);
        (days * 86_400 + clock) as f64 + micros as f64 / 1e6
    }

    /// The target's path.
    pub fn path(&self) -> &str {
        let rest = self.behind_scheme().unwrap_or(&self.target);
        let rest = rest.split('?').next().unwrap_or_default();
        match self.behind_scheme() {
            Some(_) => rest.find('/').map_or("/", |slash| &rest[slash..]),
            None => rest,
        }
    }

    /// Authority, path and query of a target in absolute form (RFC 9112 section 3.2.2). A path may
    /// have a URL in it, or in its query.
    fn behind_scheme(&self) -> Option<&str> {
        if self.target.starts_with(['/', '*', '?']) {
            return None;
        }
        self.target.split_once("://").map(|(_, rest)| rest)
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
    pub frame: Option<FrameHead>,
    #[serde(default)]
    pub missed_frames: u64,
}

/// The head of a frame of a WebSocket.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the format's page says what each is")]
pub struct FrameHead {
    pub fin: bool,
    pub rsv: u8,
    pub opcode: u8,
    pub masked: bool,
    pub len: u64,
    pub offset: u64,
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::access_log::timestamp::Rfc3339Micros;

    fn begin(method: &str, target: &str) -> Begin {
        let text = |text: &str| text.to_owned();
        Begin {
            time: text("2026-01-02T03:04:05.678901Z"),
            listener: text("web"),
            client: text("127.0.0.1:1"),
            route: None,
            version: text("HTTP/1.1"),
            scheme: text("http"),
            method: text(method),
            host: text("h"),
            target: text(target),
            headers: Vec::new(),
        }
    }

    #[test]
    fn the_form_of_the_target_is_told_by_its_beginning() {
        for (method, target, url, path) in [
            ("GET", "/a?b=c", "http://h/a?b=c", "/a"),
            ("GET", "/login?next=https://x/y", "http://h/login?next=https://x/y", "/login"),
            ("GET", "/go/https://x/y?z", "http://h/go/https://x/y?z", "/go/https://x/y"),
            ("GET", "http://o:1/a?b=http://x/y", "http://o:1/a?b=http://x/y", "/a"),
            ("GET", "http://o", "http://o", "/"),
            ("GET", "http://o?a=/b", "http://o?a=/b", "/"),
            ("CONNECT", "o:443", "o:443", "o:443"),
        ] {
            let begin = begin(method, target);
            assert_eq!((begin.url().as_str(), begin.path()), (url, path), "{method} {target}");
        }
    }

    #[test]
    fn times_are_read_as_they_were_written() {
        for seconds in [0, 951_782_399, 951_868_800, 1_709_251_199, 1_772_323_200, 4_107_542_400] {
            let micros = seconds * 1_000_000 + 123_456;
            let time = Rfc3339Micros(UNIX_EPOCH + Duration::from_micros(micros)).to_string();
            let begin = format!(
                "{{\"time\":\"{time}\",\"listener\":\"\",\"client\":\"\",\"version\":\"\",\
                 \"scheme\":\"\",\"method\":\"\",\"host\":\"\",\"target\":\"\",\"headers\":[]}}"
            );
            let begin: Begin = serde_json::from_str(&begin).unwrap();
            assert!((begin.seconds() - micros as f64 / 1e6).abs() < 1e-5, "{time}");
        }
    }
}
