//! Heads of HTTP/1 messages, judged before any other parser sees them (RFC 9112
//! sections 2 to 6, RFC 9110 sections 5, 7 and 8). Pure.
//!
//! Invariant: a head that passes has one reading. Every line ends in CRLF, every field
//! is well-formed, and the framing of the body follows from exactly one field or none.

use memchr::memchr;

use super::{Framing, fields};
use crate::error::Kind;

/// Bounds of a head.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Start line and fields, in bytes.
    pub max_bytes: usize,
    /// Field lines.
    pub max_headers: usize,
    /// Request target, in bytes.
    pub max_uri_bytes: usize,
}

/// What the framing of a request's body and connection follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts {
    /// End of the body.
    pub framing: Framing,
    /// What comes next may not be HTTP: CONNECT, or an Upgrade that is asked for properly.
    pub may_tunnel: bool,
    /// OPTIONS in absolute-form without a path: the server itself is meant, not its root.
    /// Only the bytes tell the two apart.
    pub for_server: bool,
}

/// Finds the end of a head that begins at `buf[0]`: the offset behind its empty line.
/// `searched` remembers between calls how far has been looked, so that a head that comes
/// in many pieces is scanned once. A bare LF ends a line here so that a head with one is
/// seen whole (and then refused) instead of waited for.
pub fn find_end(buf: &[u8], searched: &mut usize) -> Option<usize> {
    while let Some(found) = memchr(b'\n', &buf[*searched..]) {
        let lf = *searched + found;
        match (buf.get(lf + 1), buf.get(lf + 2)) {
            (Some(b'\n'), _) => return Some(lf + 2),
            (Some(b'\r'), Some(b'\n')) => return Some(lf + 3),
            (None, _) | (Some(b'\r'), None) => {
                *searched = lf;
                return None;
            }
            _ => *searched = lf + 1,
        }
    }
    *searched = buf.len();
    None
}

/// Judges one whole request head, its empty line included.
pub fn request(head: &[u8], bounds: &Bounds) -> Result<RequestFacts, Kind> {
    let mut lines = Lines(head);
    let line = lines.next().unwrap_or(Err("empty request")).map_err(Kind::BadRequest)?;
    let request_line = request_line(line, bounds)?;
    let mut facts = Facts::default();
    facts.collect(lines, bounds).map_err(|fault| match fault {
        Fault::Rule(rule) => Kind::BadRequest(rule),
        Fault::TooMany => Kind::HeadTooLarge,
    })?;

    let http11 = request_line.http11;
    match (facts.hosts, http11) {
        (0, true) => return Err(Kind::BadRequest("Host is missing")),
        (0 | 1, _) => {}
        _ => return Err(Kind::BadRequest("more than one Host")),
    }
    let host = facts.host.unwrap_or_default();
    if facts.hosts == 1 && !is_authority(host) {
        return Err(Kind::BadRequest("bad Host"));
    }
    if let Some(authority) = request_line.authority
        && facts.hosts == 1
        && !same_authority(authority, host, request_line.scheme)
    {
        return Err(Kind::BadRequest("Host differs from the request target"));
    }
    let framing = match (facts.transfer_encodings, facts.content_lengths) {
        (0, 0) => Framing::Empty,
        (0, 1) => match facts.content_length {
            0 => Framing::Empty,
            length => Framing::Length(length),
        },
        (0, _) => return Err(Kind::BadRequest("more than one Content-Length")),
        (_, 1..) => return Err(Kind::BadRequest("Transfer-Encoding beside Content-Length")),
        (1, 0) if !http11 => return Err(Kind::BadRequest("Transfer-Encoding in HTTP/1.0")),
        (1, 0) => match coding(facts.transfer_encoding.unwrap_or_default()) {
            Coding::Chunked => Framing::Chunked,
            Coding::Other => return Err(Kind::NotImplemented("transfer coding")),
            Coding::Bad(rule) => return Err(Kind::BadRequest(rule)),
        },
        (_, 0) => return Err(Kind::BadRequest("more than one Transfer-Encoding")),
    };
    if request_line.is_connect && framing != Framing::Empty {
        return Err(Kind::BadRequest("CONNECT with a body"));
    }
    let may_tunnel = request_line.is_connect || http11 && facts.upgrade && facts.connection_upgrade;
    Ok(RequestFacts { framing, may_tunnel, for_server: request_line.for_server })
}

/// Lines that end in CRLF, up to the empty one, which is not yielded.
pub(super) struct Lines<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr(b'\n', self.0)?;
        let Some((b'\r', line)) = self.0[..end].split_last() else {
            self.0 = &[];
            return Some(Err("line ends in a bare LF"));
        };
        self.0 = &self.0[end + 1..];
        if line.is_empty() { None } else { Some(Ok(line)) }
    }
}

struct RequestLine<'a> {
    http11: bool,
    is_connect: bool,
    scheme: TargetScheme,
    /// Authority of an absolute-form or authority-form target.
    authority: Option<&'a [u8]>,
    for_server: bool,
}

fn request_line<'a>(line: &'a [u8], bounds: &Bounds) -> Result<RequestLine<'a>, Kind> {
    let bad = Kind::BadRequest;
    let method_end = memchr(b' ', line).ok_or(bad("bad request line"))?;
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    if !fields::is_token(method) {
        return Err(bad("bad method"));
    }
    let target_end = memchr(b' ', rest).ok_or(bad("bad request line"))?;
    let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
    if target.len() > bounds.max_uri_bytes {
        return Err(Kind::UriTooLong);
    }
    // A fragment never travels; parsers differ on whether they cut it off.
    if target.is_empty() || !target.iter().all(|&b| (0x21..0x7f).contains(&b) && b != b'#') {
        return Err(bad("bad request target"));
    }
    let http11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Kind::VersionNotSupported);
        }
        _ => return Err(bad("bad HTTP version")),
    };
    let is_connect = method == b"CONNECT";
    let (mut for_server, mut scheme) = (false, TargetScheme::Other);
    let authority = if is_connect {
        if !is_authority(target) || !has_port(target) {
            return Err(bad("CONNECT needs host:port"));
        }
        scheme = TargetScheme::Connect;
        Some(target)
    } else if target[0] == b'/' {
        None
    } else if target == b"*" {
        if method != b"OPTIONS" {
            return Err(bad("bad request target"));
        }
        None
    } else {
        let scheme_end =
            target.windows(3).position(|w| w == b"://").ok_or(bad("bad request target"))?;
        let rest = &target[scheme_end + 3..];
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        if !is_authority(&rest[..end]) {
            return Err(bad("bad authority in the request target"));
        }
        scheme = TargetScheme::of(&target[..scheme_end]);
        for_server = method == b"OPTIONS" && end == rest.len();
        Some(&rest[..end])
    };
    Ok(RequestLine { http11, is_connect, scheme, authority, for_server })
}

pub(super) enum Fault {
    Rule(&'static str),
    TooMany,
}

impl From<&'static str> for Fault {
    fn from(rule: &'static str) -> Self {
        Self::Rule(rule)
    }
}

/// What the fields of a head say of its framing and its connection.
#[derive(Default)]
pub(super) struct Facts<'a> {
    pub(super) hosts: usize,
    pub(super) host: Option<&'a [u8]>,
    pub(super) content_lengths: usize,
    pub(super) content_length: u64,
    pub(super) transfer_encodings: usize,
    pub(super) transfer_encoding: Option<&'a [u8]>,
    pub(super) upgrade: bool,
    pub(super) connection_upgrade: bool,
    pub(super) connection_close: bool,
    pub(super) lines: usize,
}

impl<'a> Facts<'a> {
    pub(super) fn collect(&mut self, lines: Lines<'a>, bounds: &Bounds) -> Result<(), Fault> {
        for line in lines {
            self.lines += 1;
            if self.lines > bounds.max_headers {
                return Err(Fault::TooMany);
            }
            let (name, value) = fields::split(line?)?;
            self.field(name, value)?;
        }
        Ok(())
    }

    fn field(&mut self, name: &'a [u8], value: &'a [u8]) -> Result<(), &'static str> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => {
                self.hosts += 1;
                self.host = Some(value);
            }
            7 if is(b"upgrade") => self.upgrade = true,
            10 if is(b"connection") => {
                for option in fields::list(value) {
                    if !fields::is_token(option) {
                        return Err("bad Connection option");
                    }
                    if option.eq_ignore_ascii_case(b"upgrade") {
                        self.connection_upgrade = true;
                    } else if option.eq_ignore_ascii_case(b"close") {
                        self.connection_close = true;
                    } else if fields::is_end_to_end(option) {
                        return Err("Connection names an end-to-end field");
                    }
                }
            }
            14 if is(b"content-length") => {
                self.content_lengths += 1;
                self.content_length = fields::content_length(value)?;
            }
            17 if is(b"transfer-encoding") => {
                self.transfer_encodings += 1;
                self.transfer_encoding = Some(value);
            }
            _ => {}
        }
        Ok(())
    }
}

pub(super) enum Coding {
    Chunked,
    Other,
    Bad(&'static str),
}

/// RFC 9112 section 6.1: chunked must come last and once. Codings before it are known to
/// the RFC but forwarded by nobody.
pub(super) fn coding(value: &[u8]) -> Coding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let (mut chunked, mut last_is_chunked) = (0, false);
    for member in value.split(|&b| b == b',').map(fields::trim) {
        let name = fields::trim(member.split(|&b| b == b';').next().unwrap_or_default());
        if !fields::is_token(name) {
            return Coding::Bad("bad Transfer-Encoding");
        }
        last_is_chunked = member.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(name.eq_ignore_ascii_case(b"chunked"));
    }
    match (chunked, last_is_chunked) {
        (1, true) => Coding::Other,
        (2.., _) => Coding::Bad("chunked more than once"),
        _ => Coding::Bad("Transfer-Encoding does not end in chunked"),
    }
}

/// `uri-host [":" port]`, not empty, without userinfo (RFC 9110 section 4.2.4).
pub(super) fn is_authority(authority: &[u8]) -> bool {
    let (host, port) = split_port(authority);
    let host_ok = match host {
        [b'[', inner @ .., b']'] => {
            !inner.is_empty()
                && inner.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
        }
        _ => {
            !host.is_empty()
                && host.iter().all(|b| {
                    b.is_ascii_alphanumeric()
                        || matches!(b, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&')
                        || matches!(b, b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
                })
        }
    };
    let port_ok = port.is_none_or(|port| {
        port.len() <= 5
            && port.iter().all(u8::is_ascii_digit)
            && port.iter().fold(0u32, |sum, d| sum * 10 + u32::from(d - b'0')) <= 65_535
    });
    host_ok && port_ok
}

fn split_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    let from = authority.iter().rposition(|&b| b == b']').map_or(0, |at| at + 1);
    match authority[from..].iter().position(|&b| b == b':') {
        Some(colon) => (&authority[..from + colon], Some(&authority[from + colon + 1..])),
        None => (authority, None),
    }
}

fn has_port(authority: &[u8]) -> bool {
    split_port(authority).1.is_some_and(|port| !port.is_empty())
}

/// What a target says of the port that is meant where none is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetScheme {
    /// 80 (RFC 9110 section 4.2.1).
    Http,
    /// 443 (RFC 9110 section 4.2.2).
    Https,
    /// There is always one, which clients leave out of `Host`.
    Connect,
    /// Nothing.
    Other,
}

impl TargetScheme {
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            _ if name.eq_ignore_ascii_case(b"http") => Self::Http,
            _ if name.eq_ignore_ascii_case(b"https") => Self::Https,
            _ => Self::Other,
        }
    }
}

/// Target and `Host` name the same place. Clients leave the port out of `Host` beside
/// CONNECT, and the scheme's own port may be written or not.
pub(super) fn same_authority(target: &[u8], host: &[u8], scheme: TargetScheme) -> bool {
    let ((a, a_port), (b, b_port)) = (split_port(target), split_port(host));
    if !a.eq_ignore_ascii_case(b) {
        return false;
    }
    let default = |port: Option<&[u8]>| match (port, scheme) {
        (None | Some(b""), _) => true,
        (Some(port), TargetScheme::Http) => port == b"80",
        (Some(port), TargetScheme::Https) => port == b"443",
        (Some(_), TargetScheme::Connect | TargetScheme::Other) => false,
    };
    let left_out = scheme == TargetScheme::Connect && b_port.is_none();
    a_port == b_port || left_out || (default(a_port) && default(b_port))
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
