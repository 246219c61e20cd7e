//! What is seen of orders from outside: `/certificates` and metrics.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{Answers, Names};

/// One certificate, as the keeper sees it.
#[derive(Debug, Clone)]
pub struct State {
    /// What it is for.
    pub names: Names,
    /// Its last second, in Unix time; `None`: there is none yet.
    pub not_after: Option<i64>,
    /// When it is ordered next, unless a failure is waited for; in Unix time.
    pub renew_at: Option<i64>,
    /// No earlier than this, after a failure; in Unix time.
    pub retry_at: Option<i64>,
    /// In a row.
    pub failures: u32,
    /// Why the last one was.
    pub error: Option<String>,
    /// An order is under way.
    pub ordering: bool,
}

/// All of them. Written by the keeper, read by the admin endpoint.
#[derive(Debug, Default)]
pub struct Status {
    states: Mutex<Vec<State>>,
    stored: AtomicU64,
    failed: AtomicU64,
    /// For how many challenges were answered.
    pub answers: Arc<Answers>,
}

impl Status {
    /// Each certificate.
    pub fn states(&self) -> Vec<State> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Orders that came to a certificate, and those that did not.
    pub fn orders(&self) -> [u64; 2] {
        [self.stored.load(Relaxed), self.failed.load(Relaxed)]
    }

    pub(super) fn show(&self, states: Vec<State>) {
        *self.states.lock().unwrap_or_else(PoisonError::into_inner) = states;
    }

    pub(super) fn ended(&self, well: bool) {
        if well { &self.stored } else { &self.failed }.fetch_add(1, Relaxed);
    }
}
