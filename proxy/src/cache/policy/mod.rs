//! What a shared cache may store, and what it may do with it: RFC 9111, RFC 5861, and the parts
//! of RFC 9110 that belong to it. Pure: heads and times come in, decisions go out.
//!
//! * `directives.rs`, `date.rs`: what fields say
//! * `terms.rs`: whether an answer may be stored, and for how long it is fresh
//! * `reuse.rs`: what may be done with one that is stored
//! * `vary.rs`: which of several it is (RFC 9111 section 4.1)
//! * `conditional.rs`: conditions of clients, and ours to servers (RFC 9110 section 13)
//! * `freshen.rs`: what a 304 changes in what is stored (RFC 9111 section 3.2)
//! * `invalidate.rs`: what an unsafe request makes worthless (RFC 9111 section 4.4)
//!
//! Implements: REQ-CACHE-004

use std::time::Duration;

use http::{HeaderName, StatusCode};

pub mod conditional;
mod date;
mod directives;
pub mod freshen;
pub mod invalidate;
pub mod reuse;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod vary;

pub use conditional::Validators;
pub use date::Moment;
pub use terms::{Refusal, Terms};

/// What a route says about what is stored for it. The defaults do what RFC 9111 asks for and no
/// more.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Freshness of answers that say nothing of theirs and may be stored; `None`: they have to
    /// be validated each time.
    pub default_ttl: Option<Duration>,
    /// Freshness in place of what servers say, for answers that may be stored.
    pub override_ttl: Option<Duration>,
    /// No answer is fresh for longer.
    pub max_ttl: Option<Duration>,
    /// Freshness by status where the answer says nothing of it: negative caching.
    pub status_ttl: Vec<(StatusCode, Duration)>,
    /// Share of the time since `Last-Modified` that an answer is fresh for which says nothing
    /// else (RFC 9111 section 4.2.2), at most a day. 0: none.
    pub heuristic: f64,
    /// For answers that say nothing of it (RFC 5861 section 3).
    pub stale_while_revalidate: Option<Duration>,
    /// For answers that say nothing of it (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
    /// Whether `Cache-Control` of requests counts.
    pub request_directives: bool,
    /// Whether `CDN-Cache-Control` counts (RFC 9213).
    pub cdn_cache_control: bool,
    /// What is done with answers that set cookies.
    pub set_cookie: SetCookie,
    /// Fields of requests that never choose an answer, whatever `Vary` says.
    pub ignored_vary: Vec<HeaderName>,
}

/// What is done with answers that set cookies, which are mostly for one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCookie {
    /// They are not stored (the default).
    Refuse,
    /// They are stored without `Set-Cookie`; who asked first gets it.
    Strip,
    /// They are stored as they are, and everybody gets the cookie.
    Store,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            default_ttl: None,
            override_ttl: None,
            max_ttl: None,
            status_ttl: Vec::new(),
            heuristic: 0.0,
            stale_while_revalidate: None,
            stale_if_error: None,
            request_directives: false,
            cdn_cache_control: false,
            set_cookie: SetCookie::Refuse,
            ignored_vary: Vec::new(),
        }
    }
}
