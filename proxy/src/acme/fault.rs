//! What went wrong with an order, in one line for people, and how soon to try again.
//!
//! Invariant: what a CA wrote is shown short and without control characters, because it may
//! repeat what a stranger's server said; and no key, token or nonce is in it, because
//! instant-acme's errors hold none and nothing of a request is repeated here.

use std::{
    fmt, io,
    time::{Duration, Instant},
};

use instant_acme::{Error, Problem};

use super::schedule::Class;

/// Longest text of a CA that is shown, in characters.
const LONGEST: usize = 300;

/// A type of a problem (RFC 8555 section 6.7), without what all begin with.
const PREFIX: &str = "urn:ietf:params:acme:error:";

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) class: Class,
    /// For people.
    pub(super) what: String,
    /// What the CA asked for (Retry-After).
    pub(super) asked: Option<Duration>,
    /// The CA does not know the account.
    pub(super) no_account: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Fault {
    /// The CA said no, or what it gave is of no use.
    pub(super) fn refused(what: impl Into<String>) -> Self {
        Self { class: Class::Refused, what: what.into(), asked: None, no_account: false }
    }

    /// There is nobody, or nothing that could be understood.
    pub(super) fn unreachable(what: impl Into<String>) -> Self {
        Self { class: Class::Unreachable, ..Self::refused(what) }
    }

    /// The storage folder is the trouble.
    pub(super) fn storage(error: &io::Error) -> Self {
        Self::unreachable(format!("storage: {error}"))
    }

    /// What a step of the protocol failed of; `asked`: Retry-After of the CA's last answer that
    /// was no success.
    pub(super) fn of(step: &str, error: Error, asked: Option<Duration>) -> Self {
        match error {
            Error::Api(problem) => Self::of_problem(step, &problem, asked),
            Error::Timeout(next) => {
                let next = next.map(|at| at.saturating_duration_since(Instant::now()));
                let what = format!("{step}: the CA was not done in time");
                Self { asked: next.or(asked), ..Self::unreachable(what) }
            }
            Error::Json(_) => {
                let what = format!("{step}: what the CA answered is not what RFC 8555 says");
                Self { asked, ..Self::unreachable(what) }
            }
            Error::Other(error) => {
                let mut what = tame(&error.to_string());
                let mut source = error.source();
                while let Some(error) = source {
                    what += &format!(": {}", tame(&error.to_string()));
                    source = error.source();
                }
                Self { asked, ..Self::unreachable(format!("{step}: {what}")) }
            }
            error => {
                Self { asked, ..Self::unreachable(format!("{step}: {}", tame(&error.to_string()))) }
            }
        }
    }

    fn of_problem(step: &str, problem: &Problem, asked: Option<Duration>) -> Self {
        let kind = problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(PREFIX));
        let kind = kind.unwrap_or("no type");
        let class = match kind {
            "rateLimited" => Class::Limited,
            "serverInternal" | "badNonce" => Class::Unreachable,
            _ if problem.status.is_some_and(|status| status >= 500) => Class::Unreachable,
            _ => Class::Refused,
        };
        let what = format!("{step}: {}", of(problem));
        Self { class, what, asked, no_account: kind == "accountDoesNotExist" }
    }
}

/// A problem of the CA in one line.
pub(super) fn of(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("no type");
    let kind = tame(kind.strip_prefix(PREFIX).unwrap_or(kind));
    let mut what = match &problem.detail {
        Some(detail) => format!("the CA says {kind}: {}", tame(detail)),
        None => format!("the CA says {kind}"),
    };
    for part in problem.subproblems.iter().take(4) {
        what += &format!("; {}", tame(&part.to_string()));
    }
    what
}

/// A stranger's text, short and in one line.
pub(super) fn tame(text: &str) -> String {
    let mut out: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, status: u16, detail: &str) -> Problem {
        let (r#type, detail) = (Some(format!("{PREFIX}{kind}")), Some(detail.to_owned()));
        Problem { r#type, detail, status: Some(status), subproblems: Vec::new() }
    }

    #[test]
    fn what_is_lost_by_asking_again_decides_how_soon() {
        for (kind, status, class) in [
            ("rateLimited", 429, Class::Limited),
            ("serverInternal", 500, Class::Unreachable),
            ("badNonce", 400, Class::Unreachable),
            ("unauthorized", 403, Class::Refused),
            ("caa", 503, Class::Unreachable),
        ] {
            let asked = Some(Duration::from_secs(3));
            let fault = Fault::of("a new order", problem(kind, status, "x").into(), asked);
            assert_eq!((fault.class, fault.asked), (class, asked), "{kind}");
            assert!(fault.what.starts_with(&format!("a new order: the CA says {kind}: x")));
        }
        assert!(Fault::of("x", problem("accountDoesNotExist", 400, "").into(), None).no_account);
    }

    #[test]
    fn a_strangers_text_is_one_short_line() {
        let long = format!("a\r\nb\u{1b}[2J{}", "x".repeat(10_000));
        let shown = Fault::of("x", problem("connection", 400, &long).into(), None).what;
        assert!(!shown.contains(char::is_control) && shown.len() < 500, "{}", shown.len());
        assert!(shown.contains("a  b [2J"), "{shown}");
    }
}
