//! What came of a request at the cache, and how clients are told: `X-Cache`, and `Cache-Status` by
//! RFC 9211.

use http::{HeaderMap, HeaderName, HeaderValue};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with what is stored, which is fresh.
    Hit,
    /// Answered with what is stored although it is stale.
    Stale,
    /// Answered with what is stored, after a server has said that it still holds.
    Revalidated,
    /// A part was stored, the rest is fetched.
    Partial,
    /// Shares the fetch of another request.
    Joined,
    /// Asked for, and stored.
    Miss,
    /// Asked for, and may not be stored.
    Uncacheable,
    /// Passed by, for how it is asked.
    Bypass,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Hit,
        Self::Stale,
        Self::Revalidated,
        Self::Partial,
        Self::Joined,
        Self::Miss,
        Self::Uncacheable,
        Self::Bypass,
    ];

    /// For logs and labels. Stable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Partial => "partial",
            Self::Joined => "joined",
            Self::Miss => "miss",
            Self::Uncacheable => "uncacheable",
            Self::Bypass => "bypass",
        }
    }

    fn word(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Hit => "HIT",
            Self::Stale => "STALE",
            Self::Revalidated => "REVALIDATED",
            Self::Partial => "PARTIAL",
            Self::Joined => "JOINED",
            Self::Miss => "MISS",
            Self::Uncacheable => "UNCACHEABLE",
            Self::Bypass => "BYPASS",
        })
    }
}

/// `fwd` of `Cache-Status`: why a server was asked (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Nothing was stored for the target.
    UriMiss,
    /// Something was, for other requests.
    VaryMiss,
    /// What is stored is stale.
    Stale,
    /// A part of it was not stored.
    Partial,
    /// The method is not one that is cached.
    Method,
    /// How it was asked.
    Bypass,
}

impl Forwarded {
    fn name(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Partial => "partial",
            Self::Method => "method",
            Self::Bypass => "bypass",
        }
    }
}

/// All that is told of a request.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// What came of it.
    pub outcome: Outcome,
    /// Why a server was asked, if one was.
    pub forwarded: Option<Forwarded>,
    /// What that answered.
    pub status: Option<u16>,
    /// Seconds for which it is fresh yet; below 0 since it was.
    pub ttl: Option<i64>,
    /// Whether the answer is kept.
    pub stored: bool,
    /// More for people.
    pub detail: Option<&'static str>,
}

impl Told {
    /// Nothing but this.
    pub fn of(outcome: Outcome) -> Self {
        Self { outcome, forwarded: None, status: None, ttl: None, stored: false, detail: None }
    }

    /// Writes it into a head, behind what other caches on the way have said.
    pub fn write(&self, headers: &mut HeaderMap) {
        use std::fmt::Write as _;
        let mut text = Text { bytes: [0; MOST], len: 0 };
        // It has room for all of it.
        let _ = match self.forwarded {
            None => text.write_str("underpass; hit"),
            Some(forwarded) => write!(text, "underpass; fwd={}", forwarded.name()),
        };
        if let Some(status) = self.status {
            let _ = write!(text, "; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(text, "; ttl={ttl}");
        }
        if self.stored {
            let _ = text.write_str("; stored");
        }
        if self.outcome == Outcome::Joined {
            let _ = text.write_str("; collapsed");
        }
        if let Some(detail) = self.detail {
            let _ = write!(text, "; detail={detail}");
        }
        headers.insert(X_CACHE, self.outcome.word());
        if let Ok(value) = HeaderValue::from_bytes(&text.bytes[..text.len]) {
            headers.append(CACHE_STATUS, value);
        }
    }
}

/// What there can be to say.
const MOST: usize = 256;

/// It is written where it takes no memory of its own, and copied once.
struct Text {
    bytes: [u8; MOST],
    len: usize,
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_a_list_of_rfc_9211() {
        let told = |told: Told| {
            let mut headers = HeaderMap::new();
            headers.append(CACHE_STATUS, HeaderValue::from_static("origin; hit"));
            told.write(&mut headers);
            let all: Vec<_> = headers.get_all(CACHE_STATUS).iter().cloned().collect();
            assert_eq!(all[0], "origin; hit");
            (headers[X_CACHE].clone(), all[1].clone())
        };
        let (word, status) = told(Told {
            ttl: Some(-5),
            detail: Some("stale-if-error"),
            ..Told::of(Outcome::Stale)
        });
        assert_eq!(word, "STALE");
        assert_eq!(status, "underpass; hit; ttl=-5; detail=stale-if-error");
        let miss = Told {
            forwarded: Some(Forwarded::UriMiss),
            status: Some(200),
            stored: true,
            ..Told::of(Outcome::Miss)
        };
        assert_eq!(told(miss).1, "underpass; fwd=uri-miss; fwd-status=200; stored");
        let longest = Told {
            outcome: Outcome::Joined,
            forwarded: Some(Forwarded::VaryMiss),
            status: Some(65_535),
            ttl: Some(i64::MIN),
            stored: true,
            detail: Some("stale-while-revalidate"),
        };
        let text = told(longest).1;
        assert!(text.as_bytes().ends_with(b"; collapsed; detail=stale-while-revalidate"));
        let names: std::collections::BTreeSet<_> = Outcome::ALL.map(Outcome::name).into();
        assert_eq!(names.len(), Outcome::ALL.len());
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
    }
}
