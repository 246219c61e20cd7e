//! What is sent again, `[upstream.retry]`, and from when on nothing more is sent,
//! `[upstream.breaker]`.

use std::time::Duration;

use super::super::{
    effective::{header, key, text},
    errors::Wrong,
    section::Section,
    value,
};

/// Which requests are sent again, beyond those of which not a byte was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often one request is, at most.
    pub max_retries: u32,
    /// Where a connection ends before the answer, or the answer is no HTTP.
    pub on_failure: bool,
    /// Where these statuses are answered.
    pub on_status: Vec<u16>,
    /// Where no answer has come after this time.
    pub per_try_timeout: Option<Duration>,
    /// Where no answer has come after this time, a second server is asked beside the first.
    pub hedge_after: Option<Duration>,
    /// At most so many of all requests, in percent.
    pub budget_percent: u32,
    /// And so many more each second.
    pub budget_min_per_second: u32,
}

/// From when on requests are refused, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Requests under way.
    pub max_requests: Option<usize>,
    /// Requests that wait for a connection.
    pub max_pending: Option<usize>,
    /// Open connections to all servers.
    pub max_connections: Option<usize>,
}

const RETRY_KEYS: &[&str] = &[
    "max_retries",
    "on_failure",
    "on_status",
    "per_try_timeout",
    "hedge_after",
    "budget_percent",
    "budget_min_per_second",
];

const BREAKER_KEYS: &[&str] = &["max_requests", "max_pending", "max_connections"];

/// More than a process has memory for.
const MOST: usize = 10_000_000;

impl Retry {
    /// Reads `[upstream.retry]` of this upstream.
    pub(super) fn read(upstream: &Section<'_>) -> Option<Self> {
        let section = &upstream.table("retry", "[upstream.retry]", RETRY_KEYS)?;
        let number = |key, least, most, default| {
            section.number(key, least, most).map_or(default, |number| number.value as u32)
        };
        let statuses = section.list("on_status", "502, 503, 504", status).unwrap_or_default();
        let per_try_timeout = section.parsed("per_try_timeout", "\"2s\"", value::duration);
        let hedge_after = section.parsed("hedge_after", "\"50ms\"", value::duration);
        let most = per_try_timeout.as_ref().map(|time| time.value);
        if let Some(after) =
            hedge_after.as_ref().filter(|after| most.is_some_and(|most| after.value >= most))
        {
            let wrong = Wrong::new(
                "`hedge_after` is not less than `per_try_timeout`",
                "write a shorter time",
            );
            section.source.add(&after.place, wrong);
        }
        if let Some(after) =
            hedge_after.as_ref().filter(|_| !upstream.is_missing_or_empty("sticky"))
        {
            let what = "`hedge_after` with `[upstream.sticky]`: a client that has a server of its own is not to be answered by another";
            section.source.add(&after.place, Wrong::new(what, "remove one of them"));
        }
        Some(Self {
            max_retries: number("max_retries", 1, 10, 1),
            on_failure: section.switch("on_failure").unwrap_or(true),
            on_status: statuses.into_iter().map(|status| status.value).collect(),
            per_try_timeout: per_try_timeout.map(|time| time.value),
            hedge_after: hedge_after.map(|time| time.value),
            budget_percent: number("budget_percent", 0, 100, 20),
            budget_min_per_second: number("budget_min_per_second", 0, 1_000_000, 10),
        })
    }

    /// Writes `[upstream.retry]`.
    pub(super) fn write(&self, out: &mut String) {
        header(out, "[upstream.retry]");
        key(out, "max_retries", self.max_retries);
        key(out, "on_failure", self.on_failure);
        key(out, "on_status", format!("{:?}", self.on_status));
        if let Some(time) = self.per_try_timeout {
            text(out, "per_try_timeout", value::show_duration(time));
        }
        if let Some(time) = self.hedge_after {
            text(out, "hedge_after", value::show_duration(time));
        }
        key(out, "budget_percent", self.budget_percent);
        key(out, "budget_min_per_second", self.budget_min_per_second);
    }
}

impl Breaker {
    /// Reads `[upstream.breaker]` of this upstream.
    pub(super) fn read(upstream: &Section<'_>) -> Self {
        let Some(section) = upstream.table("breaker", "[upstream.breaker]", BREAKER_KEYS) else {
            return Self::default();
        };
        let number = |key| section.number(key, 1, MOST).map(|number| number.value);
        Self {
            max_requests: number("max_requests"),
            max_pending: number("max_pending"),
            max_connections: number("max_connections"),
        }
    }

    /// Writes `[upstream.breaker]`, if there is any.
    pub(super) fn write(&self, out: &mut String) {
        if *self == Self::default() {
            return;
        }
        header(out, "[upstream.breaker]");
        let limits = [self.max_requests, self.max_pending, self.max_connections];
        for (name, limit) in BREAKER_KEYS.iter().zip(limits) {
            if let Some(limit) = limit {
                key(out, name, limit);
            }
        }
    }
}

/// A status that says that the server could not answer, not that the request was wrong.
fn status(text: &str) -> Result<u16, Wrong> {
    match text.parse() {
        Ok(status @ (429 | 500 | 502..=504)) => Ok(status),
        _ => Err(Wrong::new(
            format!("`{text}` is no status to send a request again for"),
            "write 502, 503, 504, 500 or 429",
        )),
    }
}
