//! Whether a server is well: what checks say (`check.rs`, made by `supervise.rs` on the control
//! plane, once per process), and what requests show (`eject.rs`, by the workers).
//!
//! Both are kept in the server's [`Condition`]; who may be asked is made of it in `lineup.rs`.
//!
//! Implements: REQ-EDGE-003

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
};

pub mod check;
pub mod eject;
mod grpc;
pub mod supervise;

/// What checks have said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Checked {
    /// Nothing: it is asked as if it were well.
    Unknown = 0,
    /// It is well.
    Up = 1,
    /// It is not to be asked.
    Down = 2,
}

/// Condition of one server.
#[derive(Debug, Default)]
pub struct Condition {
    checked: AtomicU8,
    passed: AtomicU64,
    failed: AtomicU64,
    /// What the last bad check found. For people; no worker reads it.
    finding: Mutex<Option<Box<str>>>,
    /// Failures of requests in a row.
    errors: AtomicU32,
    /// By `state::now`; 0: never.
    ejected_until: AtomicU64,
    /// How long it was ejected for the last time, in milliseconds.
    span: AtomicU64,
    ejections: AtomicU64,
}

impl Condition {
    /// Whether it may be asked at this time.
    pub fn is_well(&self, now: u64) -> bool {
        self.checked() != Checked::Down && self.ejected_for(now).is_none()
    }

    /// What checks have said last.
    pub fn checked(&self) -> Checked {
        match self.checked.load(Relaxed) {
            1 => Checked::Up,
            2 => Checked::Down,
            _ => Checked::Unknown,
        }
    }

    pub(super) fn set_checked(&self, checked: Checked) {
        self.checked.store(checked as u8, Relaxed);
    }

    /// How long it is to be left alone yet, in milliseconds.
    pub fn ejected_for(&self, now: u64) -> Option<u64> {
        self.ejected_until.load(Relaxed).checked_sub(now).filter(|left| *left > 0)
    }

    /// How often it has been ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// Failures of requests in a row, as far as they are counted.
    pub fn errors(&self) -> u32 {
        self.errors.load(Relaxed)
    }

    /// Good and bad checks so far.
    pub fn checks(&self) -> [u64; 2] {
        [self.passed.load(Relaxed), self.failed.load(Relaxed)]
    }

    /// What the last bad check found, if it was the last one.
    pub fn finding(&self) -> Option<String> {
        let finding = self.finding.lock().unwrap_or_else(PoisonError::into_inner);
        finding.as_deref().map(str::to_owned)
    }

    /// One check is over.
    fn note(&self, result: &Result<(), String>) {
        match result {
            Ok(()) => self.passed.fetch_add(1, Relaxed),
            Err(_) => self.failed.fetch_add(1, Relaxed),
        };
        *self.finding.lock().unwrap_or_else(PoisonError::into_inner) =
            result.as_ref().err().map(|finding| finding.as_str().into());
    }
}
