//! Follows the sequence of messages on one HTTP/1 connection: head, body, head, body.
//!
//! A tracker is shown the bytes in order and says how many of them may go on. It keeps
//! no bytes: those it does not let pass are shown to it again, with more behind them.
//! Pure; the I/O around it is in [`super::downstream`] and [`super::upstream`].

use super::{
    Framing,
    chunked::Chunked,
    head::{self, Bounds},
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
    /// Everything passes: body up to the end of the connection, or a tunnel.
    Raw,
    /// Nothing passes until somebody decides ([`Requests::resume`]) or asks ([`Responses::expect`]).
    Held,
    Broken {
        within_body: bool,
    },
}

impl Phase {
    const HEAD: Self = Self::Head { searched: 0 };

    fn of_body(framing: Framing, after: Phase, bounds: &Bounds) -> Self {
        match framing {
            Framing::Empty => after,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::new(Chunked::new(bounds.max_bytes))),
            Framing::UntilClose => Self::Raw,
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
}

impl Requests {
    /// At the start of a connection.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, phase: Phase::HEAD, hold_after: false, heads: 0, for_server: 0 }
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
                Phase::Raw => return Verdict { pass: bytes.len(), then: None },
                Phase::Head { searched } => match self.bounds.find(rest, searched) {
                    Ok(None) => Some(RequestStop::PartialHead),
                    Ok(Some(end)) => {
                        match head::request(skip_empty_lines(&rest[..end]), &self.bounds) {
                            Ok(facts) => {
                                at += end;
                                self.heads += 1;
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

/// Why a response stream stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseStop {
    /// Behind the last passed byte there is the beginning of a head, not its end.
    PartialHead,
    /// Behind the last passed byte stands a whole interim head (1xx) of this status and length.
    Interim(u16, usize),
    /// Broken framing.
    Bad(&'static str),
}

/// The responses of one upstream connection.
#[derive(Debug)]
pub struct Responses {
    bounds: Bounds,
    phase: Phase,
    to_head: bool,
}

impl Responses {
    /// At the start of a connection; nothing may come before [`Self::expect`].
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, phase: Phase::Held, to_head: false }
    }

    /// A request goes out. `to_head`: it is HEAD, so its answer has no body.
    pub fn expect(&mut self, to_head: bool) {
        if matches!(self.phase, Phase::Held) {
            self.phase = Phase::HEAD;
            self.to_head = to_head;
        }
    }

    /// Whether an interim head that was announced has been taken off: search starts anew.
    pub fn interim_taken(&mut self) {
        self.phase = Phase::HEAD;
    }

    /// Judges the next bytes. They must begin with those that did not pass last time.
    pub fn advance(&mut self, bytes: &[u8]) -> Verdict<ResponseStop> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            if rest.is_empty() {
                return Verdict { pass: at, then: None };
            }
            let stop = match &mut self.phase {
                Phase::Raw => return Verdict { pass: bytes.len(), then: None },
                Phase::Held => ResponseStop::Bad("bytes that no request asked for"),
                Phase::Broken { .. } => ResponseStop::Bad("bytes behind a bad answer"),
                Phase::Head { searched } => match self.bounds.find(rest, searched) {
                    Ok(None) => ResponseStop::PartialHead,
                    Err(_) => ResponseStop::Bad("head too large"),
                    Ok(Some(end)) => {
                        match head::response(&rest[..end], self.to_head, &self.bounds) {
                            Ok(facts) if facts.status == 101 => {
                                at += end;
                                self.phase = Phase::Raw;
                                continue;
                            }
                            Ok(facts) if facts.status < 200 => {
                                ResponseStop::Interim(facts.status, end)
                            }
                            Ok(facts) => {
                                at += end;
                                self.phase =
                                    Phase::of_body(facts.framing, Phase::Held, &self.bounds);
                                continue;
                            }
                            Err(rule) => ResponseStop::Bad(rule),
                        }
                    }
                },
                Phase::Length(left) => {
                    at += take(left, rest);
                    if *left == 0 {
                        self.phase = Phase::Held;
                    }
                    continue;
                }
                Phase::Chunked(chunked) => match chunked.advance(rest) {
                    Ok(consumed) => {
                        at += consumed;
                        if chunked.is_done() {
                            self.phase = Phase::Held;
                        }
                        continue;
                    }
                    Err((good, rule)) => {
                        at += good;
                        ResponseStop::Bad(rule)
                    }
                },
            };
            if let ResponseStop::Bad(_) = stop {
                self.phase = Phase::Broken { within_body: true };
            }
            return Verdict { pass: at, then: Some(stop) };
        }
    }
}

impl Bounds {
    fn find(&self, bytes: &[u8], searched: &mut usize) -> Result<Option<usize>, Kind> {
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

    #[test]
    fn responses_come_only_when_asked_for() {
        let mut responses = Responses::new(BOUNDS);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        responses.expect(false);
        assert_eq!(responses.advance(answer), pass(answer.len(), None));
        assert!(matches!(responses.advance(b"x").then, Some(ResponseStop::Bad(_))));
    }

    #[test]
    fn interim_heads_are_announced_and_taken_off() {
        let mut responses = Responses::new(BOUNDS);
        responses.expect(false);
        let interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let mut all = interim.to_vec();
        all.extend_from_slice(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(responses.advance(&all), pass(0, ResponseStop::Interim(103, interim.len())));
        responses.interim_taken();
        assert_eq!(responses.advance(&all[interim.len()..]), pass(27, None));
    }
}
