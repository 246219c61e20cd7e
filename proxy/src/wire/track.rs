//! Follows the sequence of messages on one HTTP/1 connection: head, body, head, body.
//!
//! A tracker is shown the bytes in order and says how many of them may go on. It keeps
//! no bytes: those it does not let pass are shown to it again, with more behind them.
//! Pure; the I/O around it is in [`super::downstream`].

use std::collections::VecDeque;

use super::{
    Framing,
    chunked::Chunked,
    head::{self, Bounds},
    spelling::Spelling,
};
use crate::error::Kind;

/// Where in a message the next byte belongs.
#[derive(Debug)]
enum Phase {
    /// A head; how far its end has been searched for.
    Head {
        searched: usize,
    },
    Length(u64),
    Chunked(Box<Chunked>),
    /// Nothing passes until somebody decides ([`Requests::resume`]).
    Held,
    Broken {
        within_body: bool,
    },
}

impl Phase {
    const HEAD: Self = Self::Head { searched: 0 };

    fn of_body(framing: Framing, after: Phase, bounds: &Bounds) -> Self {
        match framing {
            // No request's body goes on to the end of its connection.
            Framing::Empty | Framing::UntilClose => after,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::new(Chunked::new(bounds.max_bytes))),
        }
    }
}

/// What a tracker says of the bytes it was shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict<T> {
    /// So many may go on.
    pub pass: usize,
    /// What is the matter with the first byte behind them, if they are not all.
    pub then: Option<T>,
}

/// Why a request stream stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestStop {
    /// Behind the last passed byte there is the beginning of a head, not its end.
    PartialHead,
    /// Wait for the answer to the request just passed: what follows may not be HTTP.
    Hold,
    /// Instead of a head: something else.
    BadHead(Kind),
    /// Broken framing within a body.
    BadBody(Kind),
}

/// The requests of one downstream connection.
#[derive(Debug)]
pub struct Requests {
    bounds: Bounds,
    phase: Phase,
    hold_after: bool,
    heads: u64,
    for_server: u64,
    keeps_case: bool,
    /// How the names in the heads that have passed were written, by the number of the head.
    pub(super) spelled: VecDeque<(u64, Spelling)>,
}

impl Requests {
    /// At the start of a connection.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            phase: Phase::HEAD,
            hold_after: false,
            heads: 0,
            for_server: 0,
            keeps_case: false,
            spelled: VecDeque::new(),
        }
    }

    /// From now on it is kept how names are written.
    pub(super) fn keep_case(&mut self) {
        self.keeps_case = true;
    }

    /// Whether it is.
    pub(super) fn keeps_case(&self) -> bool {
        self.keeps_case
    }

    /// Heads that have passed.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Number of the last head whose target is the server itself, 0 if none was.
    pub fn for_server(&self) -> u64 {
        self.for_server
    }

    /// Whether the next byte begins or continues a head.
    pub fn in_head(&self) -> bool {
        matches!(self.phase, Phase::Head { .. })
    }

    /// Whether the next byte belongs to a body.
    pub fn in_body(&self) -> bool {
        matches!(self.phase, Phase::Length(_) | Phase::Chunked(_))
    }

    /// After [`RequestStop::Hold`]: the answer was an ordinary one, HTTP goes on.
    pub fn resume(&mut self) {
        if matches!(self.phase, Phase::Held) {
            self.phase = Phase::HEAD;
        }
    }

    /// Judges the next bytes. They must begin with those that did not pass last time.
    pub fn advance(&mut self, bytes: &[u8]) -> Verdict<RequestStop> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let stop = match &mut self.phase {
                Phase::Held => Some(RequestStop::Hold),
                Phase::Broken { within_body: false } => {
                    Some(RequestStop::BadHead(Kind::BadRequest("bytes behind a bad head")))
                }
                Phase::Broken { .. } => {
                    Some(RequestStop::BadBody(Kind::BadRequest("bytes behind a bad body")))
                }
                _ if rest.is_empty() => return Verdict { pass: at, then: None },
                Phase::Head { searched } => match self.bounds.find(rest, searched) {
                    Ok(None) => Some(RequestStop::PartialHead),
                    Ok(Some(end)) => {
                        match head::request(skip_empty_lines(&rest[..end]), &self.bounds) {
                            Ok(facts) => {
                                at += end;
                                self.heads += 1;
                                if self.keeps_case
                                    && let Some(spelling) = Spelling::of(&rest[..end])
                                {
                                    self.spelled.push_back((self.heads, spelling));
                                }
                                self.hold_after = facts.may_tunnel;
                                if facts.for_server {
                                    self.for_server = self.heads;
                                }
                                let after = self.after();
                                self.phase = Phase::of_body(facts.framing, after, &self.bounds);
                                None
                            }
                            Err(kind) => Some(RequestStop::BadHead(kind)),
                        }
                    }
                    Err(kind) => Some(RequestStop::BadHead(kind)),
                },
                Phase::Length(left) => {
                    at += take(left, rest);
                    if *left == 0 {
                        self.phase = self.after();
                    }
                    None
                }
                Phase::Chunked(chunked) => match chunked.advance(rest) {
                    Ok(consumed) => {
                        at += consumed;
                        if chunked.is_done() {
                            self.phase = self.after();
                        }
                        None
                    }
                    Err((good, rule)) => {
                        at += good;
                        Some(RequestStop::BadBody(Kind::BadRequest(rule)))
                    }
                },
            };
            if let Some(stop) = stop {
                match stop {
                    RequestStop::BadHead(_) => self.phase = Phase::Broken { within_body: false },
                    RequestStop::BadBody(_) => self.phase = Phase::Broken { within_body: true },
                    RequestStop::PartialHead | RequestStop::Hold => {}
                }
                return Verdict { pass: at, then: Some(stop) };
            }
        }
    }

    fn after(&self) -> Phase {
        if self.hold_after { Phase::Held } else { Phase::HEAD }
    }
}

impl Bounds {
    pub(super) fn find(&self, bytes: &[u8], searched: &mut usize) -> Result<Option<usize>, Kind> {
        let lead = leading_empty_lines(bytes);
        *searched = (*searched).max(lead);
        let end = head::find_end(bytes, searched);
        let length = end.unwrap_or(bytes.len()) - lead;
        if length <= self.max_bytes {
            return Ok(end);
        }
        // Whose fault is it: a request line that never ends, or the fields?
        let line = memchr::memchr(b'\n', &bytes[lead..]).unwrap_or(length);
        Err(if line > self.max_uri_bytes { Kind::UriTooLong } else { Kind::HeadTooLarge })
    }
}

/// RFC 9112 section 2.2: a server should ignore an empty line before the request line.
/// Two are; more are not HTTP.
fn leading_empty_lines(bytes: &[u8]) -> usize {
    let mut lead = 0;
    while lead < 4 && bytes[lead..].starts_with(b"\r\n") {
        lead += 2;
    }
    lead
}

fn skip_empty_lines(head: &[u8]) -> &[u8] {
    &head[leading_empty_lines(head)..]
}

fn take(left: &mut u64, rest: &[u8]) -> usize {
    let taken = (*left).min(rest.len() as u64);
    *left -= taken;
    taken as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { max_bytes: 256, max_headers: 8, max_uri_bytes: 64 };

    fn pass<T>(pass: usize, then: impl Into<Option<T>>) -> Verdict<T> {
        Verdict { pass, then: then.into() }
    }

    #[test]
    fn pipelined_requests_pass_up_to_the_incomplete_one() {
        let mut requests = Requests::new(BOUNDS);
        let two = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut all = two.to_vec();
        all.extend_from_slice(b"GET / HT");
        assert_eq!(requests.advance(&all), pass(two.len(), RequestStop::PartialHead));
        assert_eq!(requests.heads(), 2);
        let rest = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(requests.advance(rest), pass(rest.len(), None));
    }

    #[test]
    fn what_follows_a_possible_tunnel_is_held_until_decided() {
        let mut requests = Requests::new(BOUNDS);
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
        let mut all = head.to_vec();
        all.extend_from_slice(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(requests.advance(&all), pass(head.len(), RequestStop::Hold));
        requests.resume();
        assert_eq!(requests.advance(&all[head.len()..]), pass(all.len() - head.len(), None));
    }

    #[test]
    fn nothing_passes_behind_a_fault() {
        let mut requests = Requests::new(BOUNDS);
        let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut all = good.to_vec();
        all.extend_from_slice(b"GET / HTTP/1.1\n\n");
        let rule = Kind::BadRequest("line ends in a bare LF");
        assert_eq!(requests.advance(&all), pass(good.len(), RequestStop::BadHead(rule)));
        assert_eq!(requests.advance(good).pass, 0);
    }

    #[test]
    fn heads_over_the_limit_are_told_apart_from_long_targets() {
        let target = format!("GET /{}", "x".repeat(300));
        let verdict = Requests::new(BOUNDS).advance(target.as_bytes());
        assert_eq!(verdict.then, Some(RequestStop::BadHead(Kind::UriTooLong)));
        let fields = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(300));
        let verdict = Requests::new(BOUNDS).advance(fields.as_bytes());
        assert_eq!(verdict.then, Some(RequestStop::BadHead(Kind::HeadTooLarge)));
    }
}
