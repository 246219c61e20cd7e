//! Requests that a client takes back as fast as it sends them (CVE-2023-44487): each costs it a
//! few bytes, and the proxy and a server the whole of a request. Pure.
//!
//! A client that leaves a page takes back what it had asked for, at once and all of it, so a few
//! hundred are nobody's attack; more than that within seconds, and more than it lets come to an
//! end, are one.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

/// A request that is taken back sooner than this was hardly meant to be answered.
const EARLY: Duration = Duration::from_secs(1);

/// So many early ones are any client's right.
const FREE: u32 = 500;

/// They are counted anew after this time: a page that takes back what it asks for as somebody
/// types comes to as many in an hour.
const WINDOW: Duration = Duration::from_secs(10);

/// What a connection has had of them.
#[derive(Debug, Default)]
pub(super) struct Resets {
    since: Cell<Option<Instant>>,
    ended: Cell<u32>,
    early: Cell<u32>,
}

impl Resets {
    /// A request is over after this time. True: from now on the connection is an attack.
    pub(super) fn ended(&self, taken_back: bool, after: Duration) -> bool {
        self.ended_at(Instant::now(), taken_back, after)
    }

    fn ended_at(&self, now: Instant, taken_back: bool, after: Duration) -> bool {
        if self.since.get().is_none_or(|since| now.duration_since(since) >= WINDOW) {
            if self.is_attack() {
                return true;
            }
            self.since.set(Some(now));
            self.ended.set(0);
            self.early.set(0);
        }
        self.ended.set(self.ended.get().saturating_add(1));
        if taken_back && after < EARLY {
            self.early.set(self.early.get().saturating_add(1));
        }
        self.is_attack()
    }

    /// Whether the connection is one.
    pub(super) fn is_attack(&self) -> bool {
        self.early.get() > FREE && self.early.get() > self.ended.get() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_early_ones_are_an_attack_unless_more_are_answered() {
        let (soon, late) = (Duration::from_millis(1), Duration::from_secs(2));
        let resets = Resets::default();
        assert!((0..FREE).all(|_| !resets.ended(true, soon)));
        assert!(resets.ended(true, soon));

        let busy = Resets::default();
        for _ in 0..1000 {
            assert!(!busy.ended(true, soon) || busy.early.get() > FREE);
            busy.ended(false, soon);
            busy.ended(true, late);
        }
        assert!(!busy.is_attack());
    }

    #[tokio::test]
    async fn as_many_over_a_longer_time_are_none() {
        let (soon, begin) = (Duration::from_millis(1), Instant::now());
        let resets = Resets::default();
        for second in 0..3600 {
            let now = begin + Duration::from_secs(second);
            assert!((0..20).all(|_| !resets.ended_at(now, true, soon)), "{second}");
        }
    }
}
