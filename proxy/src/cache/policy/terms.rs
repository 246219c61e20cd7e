//! Whether an answer may be stored (RFC 9111 section 3), and the terms of its use: how long it is
//! fresh (section 4.2.1), how old it was when it came (section 4.2.3), and what may be done with
//! it when it is stale.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::{
    Moment, Rules, SetCookie,
    directives::{MOST_SECONDS, Response, delta},
    vary,
};

/// The longest that a heuristic gives.
const MOST_HEURISTIC: Duration = Duration::from_secs(24 * 3600);

/// The terms on which an answer is used. Small, and stored with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// When it came.
    pub received: Moment,
    /// How old it was then, in milliseconds (`corrected_initial_age`).
    pub age_ms: u64,
    /// For how long it is fresh, in milliseconds.
    pub lifetime_ms: u64,
    /// For how long after that it may be used while it is validated, in milliseconds.
    pub while_revalidate_ms: u64,
    /// The same where validation fails.
    pub if_error_ms: u64,
    /// Whether each use has to be validated.
    pub no_cache: bool,
    /// Whether it may never be used stale.
    pub must_revalidate: bool,
}

/// Why an answer is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// To a request with `Authorization`, and nothing allows it (RFC 9111 section 3.5).
    Authorization,
    /// It sets cookies.
    SetCookie,
    /// `Vary: *`.
    VaryAny,
    /// Its status is not one to be stored.
    Status,
    /// Nothing says for how long it is fresh, and nothing could validate it.
    NoFreshness,
    /// Neither a length nor chunks: a cut would not be seen.
    NoLength,
    /// It is larger than what may be stored.
    TooLarge,
}

impl Refusal {
    /// For `Cache-Status` and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryAny => "vary-any",
            Self::Status => "status",
            Self::NoFreshness => "no-freshness",
            Self::NoLength => "no-length",
            Self::TooLarge => "too-large",
        }
    }
}

/// An answer, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// When the request was sent.
    pub asked: Moment,
    /// When its head came.
    pub received: Moment,
    /// Whether the request had `Authorization`.
    pub authorized: bool,
}

impl Terms {
    /// The terms of an answer to a GET.
    ///
    /// # Errors
    /// If it may not be stored by a shared cache.
    pub fn of(answer: &Answer<'_>, rules: &Rules) -> Result<Self, Refusal> {
        let Answer { status, headers, .. } = *answer;
        let (said, targeted) = Response::of(headers, rules.cdn_cache_control);
        if !is_final(status) {
            return Err(Refusal::Status);
        }
        if said.must_understand {
            // It counts instead of `no-store` (RFC 9111 section 5.2.2.3).
            if !is_understood(status) {
                return Err(Refusal::Status);
            }
        } else if said.no_store {
            return Err(Refusal::NoStore);
        }
        if said.private {
            return Err(Refusal::Private);
        }
        let may_be_shared = said.must_revalidate || said.public || said.s_maxage.is_some();
        if answer.authorized && !may_be_shared {
            return Err(Refusal::Authorization);
        }
        if headers.contains_key(header::SET_COOKIE) && rules.set_cookie == SetCookie::Refuse {
            return Err(Refusal::SetCookie);
        }
        if vary::is_any(headers) {
            return Err(Refusal::VaryAny);
        }
        let date = date(headers).unwrap_or(answer.received);
        let explicit = explicit(headers, &said, targeted, date);
        let lifetime = lifetime(answer, explicit, &said, rules, date);
        let validates = headers.contains_key(header::ETAG)
            || headers
                .get(header::LAST_MODIFIED)
                .is_some_and(|v| Moment::parse(v.as_bytes()).is_some());
        let known = lifetime.is_some() || (validates && (said.no_cache || is_heuristic(status)));
        if !known || (lifetime.is_none() && !validates) {
            return Err(Refusal::NoFreshness);
        }
        let seconds = Duration::from_secs;
        let delay = answer.received.since(answer.asked);
        let apparent = answer.received.since(date);
        let corrected = seconds(age(headers)).saturating_add(delay);
        let strict = said.must_revalidate || said.proxy_revalidate || said.no_cache;
        let allowed = |said: Option<u64>, usual: Option<Duration>| match said {
            _ if strict => Duration::ZERO,
            Some(own) => seconds(own),
            // What s-maxage says holds for whatever nobody has allowed (RFC 9111 section
            // 5.2.2.10); an answer that allows it itself means it.
            None => usual.unwrap_or_default(),
        };
        let s_maxage = said.s_maxage.is_some() && !targeted;
        let usual = |usual: Option<Duration>| usual.filter(|_| !s_maxage);
        Ok(Self {
            received: answer.received,
            age_ms: ms(apparent.max(corrected)),
            lifetime_ms: ms(lifetime.unwrap_or_default()),
            while_revalidate_ms: ms(allowed(
                said.stale_while_revalidate,
                usual(rules.stale_while_revalidate),
            )),
            if_error_ms: ms(allowed(said.stale_if_error, usual(rules.stale_if_error))),
            no_cache: said.no_cache,
            must_revalidate: strict
                || (s_maxage
                    && said.stale_while_revalidate.is_none()
                    && said.stale_if_error.is_none()),
        })
    }

    /// How old it is (RFC 9111 section 4.2.3). One that has come after `now` is of unknown age,
    /// and so as old as can be.
    pub fn age(&self, now: Moment) -> Duration {
        // Clocks of two runs of the process may differ a little.
        const SLACK_MS: u64 = 1000;
        if self.received.0 > now.0.saturating_add(SLACK_MS) {
            return Duration::from_secs(MOST_SECONDS);
        }
        Duration::from_millis(self.age_ms).saturating_add(now.since(self.received))
    }

    /// For how long it is fresh, all in all.
    pub fn lifetime(&self) -> Duration {
        Duration::from_millis(self.lifetime_ms)
    }

    /// Whether it is fresh, and may be used as it is.
    pub fn is_fresh(&self, now: Moment) -> bool {
        !self.no_cache && self.age(now) < self.lifetime()
    }

    /// For how long it is fresh yet.
    pub fn left(&self, now: Moment) -> Duration {
        self.lifetime().saturating_sub(self.age(now))
    }

    /// When there is no use for it any more but to be validated.
    pub fn useless_after(&self) -> Moment {
        let stale = self.while_revalidate_ms.max(self.if_error_ms);
        let left = self.lifetime_ms.saturating_sub(self.age_ms);
        self.received.plus(Duration::from_millis(left.saturating_add(stale)))
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn date(headers: &HeaderMap) -> Option<Moment> {
    Moment::parse_again(headers.get(header::DATE)?.as_bytes())
}

/// What the answer itself says (RFC 9111 section 4.2.1). `targeted`: by the field for caches of
/// our kind, and then `Expires` does not count.
fn explicit(
    headers: &HeaderMap,
    said: &Response,
    targeted: bool,
    date: Moment,
) -> Option<Duration> {
    if let Some(seconds) = said.s_maxage.or(said.max_age) {
        return Some(Duration::from_secs(seconds));
    }
    if targeted {
        return None;
    }
    // The first, where there are several; what is no date has passed (RFC 9111 section 5.3).
    let expires = headers.get(header::EXPIRES)?;
    let expires = Moment::parse(expires.as_bytes());
    Some(expires.map_or(Duration::ZERO, |expires| expires.since(date)))
}

/// How long it is fresh for; `None`: nobody says so.
fn lifetime(
    answer: &Answer<'_>,
    explicit: Option<Duration>,
    said: &Response,
    rules: &Rules,
    date: Moment,
) -> Option<Duration> {
    let most = rules.max_ttl.unwrap_or(Duration::MAX);
    let by_rule = rules.status_ttl.iter().find(|(status, _)| *status == answer.status);
    let by_rule = by_rule.map(|(_, ttl)| *ttl);
    if let Some(ttl) = rules.override_ttl.filter(|_| is_success(answer.status)) {
        return Some(ttl.min(most));
    }
    if let Some(explicit) = explicit {
        return Some(explicit.min(most));
    }
    if said.no_cache {
        return None;
    }
    if let Some(ttl) = by_rule {
        return Some(ttl.min(most));
    }
    // `public` allows a heuristic for any status (RFC 9111 section 4.2.2).
    if !is_heuristic(answer.status) && !said.public {
        return None;
    }
    if let Some(ttl) = rules.default_ttl.filter(|_| is_success(answer.status)) {
        return Some(ttl.min(most));
    }
    if rules.heuristic > 0.0 {
        let modified = answer.headers.get(header::LAST_MODIFIED)?;
        let since = date.since(Moment::parse(modified.as_bytes())?);
        return Some(since.mul_f64(rules.heuristic).min(MOST_HEURISTIC).min(most));
    }
    None
}

/// The first member of the first line (RFC 9111 section 5.1); what is no number is ignored.
fn age(headers: &HeaderMap) -> u64 {
    let Some(value) = headers.get(header::AGE) else { return 0 };
    let first = value.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
    delta(first.trim_ascii()).unwrap_or(0)
}

/// A status that ends an exchange, and that an answer to a GET may be stored with. A part (206)
/// has a way of its own; a 304 belongs to something stored; 412 and 416 speak of what the one
/// request had beside its target.
fn is_final(status: StatusCode) -> bool {
    status.as_u16() >= 200 && !matches!(status.as_u16(), 206 | 304 | 412 | 416)
}

/// Statuses whose meaning for caches is known here.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 307 | 308 | 400..=417 | 421..=426 | 428 | 429 | 431 | 451 | 500..=505
    )
}

/// RFC 9110 section 15.1: these may be stored without being told for how long.
fn is_heuristic(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

fn is_success(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}
