//! Requests that are sent again beyond what is always safe: what their upstream allows, within
//! its budget.
//!
//! Only what is idempotent and has no body comes here, and only before the client has been
//! answered (`relay/send.rs` sees to that, and `cache/origin.rs` for what no client waits for).
//!
//! Implements: REQ-EDGE-003

use std::time::Duration;

use futures_util::FutureExt;
use http::StatusCode;
use http_body_util::BodyExt;

use super::{answer::AnswerBody, balance::Upstream, connection::Connection};
use crate::{config::Retry, metrics::Again};

/// How much of an answer that nobody gets is read, to keep its connection.
const MOST_DISCARDED_BYTES: usize = 64 * 1024;

/// The retries of one request.
#[derive(Debug)]
pub struct Retries<'a> {
    upstream: &'a Upstream,
    /// `None`: there are none.
    rules: Option<&'a Retry>,
    left: u32,
}

impl<'a> Retries<'a> {
    /// What the upstream allows.
    pub fn new(upstream: &'a Upstream) -> Self {
        let rules = upstream.retry();
        Self { upstream, rules, left: rules.map_or(0, |rules| rules.max_retries) }
    }

    /// Whether the request may be sent again, the budget aside.
    pub fn are_left(&self) -> bool {
        self.left > 0
    }

    /// How long an answer is waited for while there are retries.
    pub fn patience(&self) -> Option<Duration> {
        self.rules.filter(|_| self.are_left())?.per_try_timeout
    }

    /// After which time without an answer a second server is asked as well, while there are
    /// retries.
    pub fn hedge_after(&self) -> Option<Duration> {
        self.rules.filter(|_| self.are_left())?.hedge_after
    }

    /// Whether this status is one to ask for another answer for, retries or not.
    pub fn want_another(&self, status: StatusCode) -> bool {
        self.rules.is_some_and(|rules| rules.on_status.contains(&status.as_u16()))
    }

    /// Whether this status is one to send a request again for.
    pub fn are_for(&self, status: StatusCode) -> bool {
        self.are_left() && self.want_another(status)
    }

    /// Takes one, if there is one for this reason and the budget has it.
    pub fn take(&mut self, why: Again) -> bool {
        let wanted = self.rules.is_some_and(|rules| why != Again::Failure || rules.on_failure);
        if !wanted || !self.are_left() || !self.upstream.take_retry() {
            return false;
        }
        self.left -= 1;
        self.upstream.metrics().retried(why);
        true
    }
}

/// Reads what is there already of an answer that nobody gets, and keeps the connection if that
/// was all.
pub fn discard(mut body: AnswerBody, connection: Connection) {
    let mut read = 0;
    while read <= MOST_DISCARDED_BYTES {
        match body.frame().now_or_never() {
            Some(None) => return connection.give_back(),
            Some(Some(Ok(frame))) => read += frame.data_ref().map_or(0, |data| data.len()),
            // Broken, or more is to come: it ends with the connection.
            Some(Some(Err(_))) | None => return,
        }
    }
}
