//! What may be done with a stored answer for a request (RFC 9111 section 4, RFC 5861).

use std::time::Duration;

use http::HeaderMap;

use super::{Moment, Rules, Terms, directives::Request};

/// What may be done with a stored answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// It is used as it is.
    Fresh,
    /// It is stale, and used once more while somebody has it validated.
    WhileRevalidate,
    /// It has to be validated first.
    Validate,
}

/// What a request asks of caches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes(Request);

impl Wishes {
    /// Of the fields of a request; none where the rules do not heed them.
    pub fn of(headers: &HeaderMap, rules: &Rules) -> Self {
        Self(if rules.request_directives { Request::of(headers) } else { Request::default() })
    }

    /// Whether the answer is not to be stored (RFC 9111 section 5.2.1.5).
    pub fn no_store(&self) -> bool {
        self.0.no_store
    }

    /// Whether the server is not to be asked (RFC 9111 section 5.2.1.7).
    pub fn only_if_cached(&self) -> bool {
        self.0.only_if_cached
    }

    /// Whether an answer that another request has asked for just now will do.
    pub fn allows_joining(&self) -> bool {
        !self.0.no_cache && !self.0.no_store && self.0.max_age != Some(0)
    }
}

impl Terms {
    /// What may be done with it.
    pub fn reuse(&self, now: Moment, wishes: &Wishes) -> Reuse {
        let Wishes(wishes) = wishes;
        if self.no_cache || wishes.no_cache {
            return Reuse::Validate;
        }
        let age = self.age(now);
        let seconds = Duration::from_secs;
        // RFC 9111 sections 5.2.1.1 and 5.2.1.3.
        if wishes.max_age.is_some_and(|most| age > seconds(most))
            || wishes.min_fresh.is_some_and(|least| self.left(now) < seconds(least))
        {
            return Reuse::Validate;
        }
        if age < self.lifetime() {
            return Reuse::Fresh;
        }
        let late = age - self.lifetime();
        if late < Duration::from_millis(self.while_revalidate_ms) {
            return Reuse::WhileRevalidate;
        }
        // RFC 9111 section 5.2.1.2.
        match wishes.max_stale {
            Some(most) if !self.must_revalidate => match most {
                Some(most) if late > seconds(most) => Reuse::Validate,
                _ => Reuse::Fresh,
            },
            _ => Reuse::Validate,
        }
    }

    /// Whether it may be used where no server answers, or one says that it cannot.
    pub fn serves_errors(&self, now: Moment) -> bool {
        let age = self.age(now);
        let most = self.lifetime().saturating_add(Duration::from_millis(self.if_error_ms));
        !self.no_cache && (age < self.lifetime() || (!self.must_revalidate && age < most))
    }
}
