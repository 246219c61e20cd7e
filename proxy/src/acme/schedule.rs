//! When to renew, and how long to wait after a failure. Pure.
//!
//! Times of certificates are those of the wall clock, which may jump; pauses are counted by
//! whoever waits, on a clock that does not. Nothing here asks what time it is.

use std::time::Duration;

/// From when to when a certificate is good, in Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

/// A time in the window that the CA would like (RFC 9773 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suggested {
    pub(super) start: i64,
    pub(super) end: i64,
}

/// The longest pause that a CA may ask for. Those of Let's Encrypt's limits are shorter; beyond it
/// somebody has made a mistake, and the certificate runs out meanwhile.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Of its life, what is left at the latest when it is renewed whatever a window says.
const LAST_PART: i64 = 8;

impl Validity {
    fn life(self) -> i64 {
        self.not_after.saturating_sub(self.not_before).max(1)
    }

    /// When it is to be renewed. `share` (0 to 1) is this process's part of the jitter: machines
    /// that began together are not to ask together.
    ///
    /// The CA's window decides where there is one; `before` (seconds) where that is earlier, or
    /// alone. Without either it is two thirds of the life, up to a twenty-fourth earlier.
    pub(super) fn renew_at(
        self,
        before: Option<i64>,
        window: Option<Suggested>,
        share: f64,
    ) -> i64 {
        // More than the whole life is no time at all: it would be renewed for ever.
        let before = before.filter(|before| *before < self.life());
        let said = before.map(|before| self.not_after.saturating_sub(before));
        let part = |seconds: i64| (seconds as f64 * share.clamp(0.0, 1.0)) as i64;
        if let Some(Suggested { start, end }) = window.filter(|window| window.start < window.end) {
            let chosen = start.saturating_add(part(end.saturating_sub(start)));
            let latest = self.not_after.saturating_sub(self.life() / LAST_PART);
            return chosen.min(latest).min(said.unwrap_or(i64::MAX));
        }
        let left = self.life() / 3 + part(self.life() / 24);
        said.unwrap_or(self.not_after.saturating_sub(left))
    }
}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Nobody was reached, or what came was no answer: nothing is lost by asking soon.
    Unreachable,
    /// The CA said no. It counts failures: Let's Encrypt takes five an hour for a name.
    Refused,
    /// The CA is not to be asked so often.
    Limited,
}

impl Class {
    /// First and longest pause.
    fn bounds(self) -> (Duration, Duration) {
        match self {
            Self::Unreachable => (Duration::from_secs(10), Duration::from_secs(1800)),
            Self::Refused => (Duration::from_secs(300), Duration::from_secs(12 * 3600)),
            Self::Limited => (Duration::from_secs(3600), Duration::from_secs(24 * 3600)),
        }
    }
}

/// The longest pause that a limit is worth of which the CA itself says that it is shorter.
const LONGEST_AGAINST_WORD: Duration = Duration::from_secs(60);

/// The pause after so many failures in a row (1 and more): twice as long each time, a quarter
/// more or less by `share`. Never less than the CA has `asked`
/// for; of its limits it knows better than we do when they end, as long as that proves true.
pub(super) fn pause(class: Class, times: u32, asked: Option<Duration>, share: f64) -> Duration {
    let (first, longest) = class.bounds();
    let doubled = |first: Duration| first.saturating_mul(1 << times.saturating_sub(1).min(16));
    let own = doubled(first).min(longest).mul_f64(0.75 + share.clamp(0.0, 1.0) / 2.0);
    let Some(asked) = asked else { return own };
    let least = match class {
        Class::Limited => doubled(Duration::from_secs(1)).min(LONGEST_AGAINST_WORD),
        Class::Unreachable | Class::Refused => own,
    };
    asked.min(LONGEST_PAUSE).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn renewal_is_when_it_was_said_then_when_the_ca_says_then_at_two_thirds() {
        let ninety = Validity { not_before: 0, not_after: 90 * DAY };
        let window = Some(Suggested { start: 50 * DAY, end: 52 * DAY });
        for (before, window, share, expected) in [
            (None, None, 0.0, 60 * DAY),
            (None, None, 1.0, 60 * DAY - 90 * DAY / 24),
            (Some(10 * DAY), None, 0.5, 80 * DAY),
            (None, window, 0.0, 50 * DAY),
            (None, window, 0.5, 51 * DAY),
            (Some(10 * DAY), window, 0.5, 51 * DAY),
            (Some(60 * DAY), window, 0.5, 30 * DAY),
            // One before its beginning, as when a CA has to revoke.
            (None, Some(Suggested { start: -9, end: -3 }), 0.5, -6),
            // One that is too late, or none at all.
            (
                None,
                Some(Suggested { start: 95 * DAY, end: 99 * DAY }),
                0.5,
                90 * DAY - 90 * DAY / 8,
            ),
            (
                None,
                Some(Suggested { start: i64::MAX - 1, end: i64::MAX }),
                1.0,
                90 * DAY - 90 * DAY / 8,
            ),
            (None, Some(Suggested { start: 9, end: 9 }), 0.0, 60 * DAY),
            // More than the whole life would never end.
            (Some(90 * DAY), None, 0.0, 60 * DAY),
            (Some(900 * DAY), None, 0.0, 60 * DAY),
        ] {
            let at = ninety.renew_at(before, window, share);
            assert_eq!(at, expected, "{before:?} {window:?} {share}");
        }
        // Nonsense is no reason to stop.
        let odd = Validity { not_before: i64::MAX, not_after: i64::MIN };
        odd.renew_at(Some(1), None, 0.5);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_what_the_ca_asks_for_prolongs_them() {
        for (class, first, longest) in [
            (Class::Unreachable, 10, 1800),
            (Class::Refused, 300, 43_200),
            (Class::Limited, 3600, 86_400),
        ] {
            let seconds = |times, share| pause(class, times, None, share).as_secs();
            assert_eq!(seconds(1, 0.5), first);
            assert_eq!(seconds(2, 0.5), first * 2);
            assert_eq!((seconds(1, 0.0), seconds(1, 1.0)), (first * 3 / 4, first * 5 / 4));
            assert_eq!(seconds(40, 0.5), longest);
            assert_eq!(seconds(u32::MAX, 0.5), longest);
        }
        let longest = LONGEST_PAUSE.as_secs();
        for (class, times, asked, expected) in [
            (Class::Limited, 1, 7, 7),
            (Class::Limited, 1, 0, 1),
            (Class::Limited, 3, 0, 4),
            (Class::Limited, 9, 7, 60),
            (Class::Limited, 9, 3600, 3600),
            (Class::Limited, 9, u64::MAX, longest),
            (Class::Unreachable, 1, 0, 10),
            (Class::Unreachable, 3, 1, 40),
            (Class::Unreachable, 3, 41, 41),
            (Class::Refused, 1, 1, 300),
            (Class::Refused, u32::MAX, 1, 43_200),
            (Class::Refused, 1, u64::MAX, longest),
        ] {
            let pause = pause(class, times, Some(Duration::from_secs(asked)), 0.5);
            assert_eq!(pause.as_secs(), expected, "{class:?} {times} {asked}");
        }
    }
}
