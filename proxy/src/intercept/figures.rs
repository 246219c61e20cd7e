//! What is counted of intercepted connections, over all workers, and what is told of a host once
//! only.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

/// What became of a CONNECT to a host that is intercepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// TLS was taken apart.
    Intercepted,
    /// The client does not take our certificate.
    Refused,
    /// The client asked for another name than it connected to.
    OtherName,
    /// The handshake failed otherwise, or the client left.
    Failed,
    /// The client does not speak TLS.
    NotTls,
}

impl Came {
    /// All of them, as counted.
    pub const ALL: [Self; 5] =
        [Self::Intercepted, Self::Refused, Self::OtherName, Self::Failed, Self::NotTls];

    /// Stable name for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intercepted => "intercepted",
            Self::Refused => "certificate_refused",
            Self::OtherName => "other_name",
            Self::Failed => "failed",
            Self::NotTls => "not_tls",
        }
    }
}

static CAME: [AtomicU64; Came::ALL.len()] = [const { AtomicU64::new(0) }; Came::ALL.len()];
static MADE: AtomicU64 = AtomicU64::new(0);
static KEPT: AtomicI64 = AtomicI64::new(0);

/// Counts one.
pub fn count(came: Came) {
    CAME[came as usize].fetch_add(1, Relaxed);
}

/// How many so far.
pub fn counted(came: Came) -> u64 {
    CAME[came as usize].load(Relaxed)
}

/// A certificate has been made.
pub(super) fn made() {
    MADE.fetch_add(1, Relaxed);
}

/// So many more are kept, or fewer.
pub(super) fn keep(more: i64) {
    KEPT.fetch_add(more, Relaxed);
}

/// Certificates that are kept.
pub fn kept() -> i64 {
    KEPT.load(Relaxed)
}

/// Certificates that have been made.
pub fn certificates() -> u64 {
    MADE.load(Relaxed)
}

/// Hosts that something has been told of, so that it is told once: a client that tries again and
/// again would fill the log.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashSet<String>>);

/// Names that are remembered. Of more than these nothing is told: clients choose them.
const MOST_TOLD: usize = 1024;

impl Told {
    /// Whether it is to be told now, of this host.
    pub fn first(&self, host: &str) -> bool {
        // Whole after every step.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < MOST_TOLD && !told.contains(host) && told.insert(host.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_of_once_and_not_every_name_that_clients_think_of() {
        let told = Told::default();
        assert!(told.first("a.test") && !told.first("a.test"));
        let more = (0..5000).filter(|number| told.first(&format!("{number}.test"))).count();
        assert_eq!(more, MOST_TOLD - 1);
    }
}
