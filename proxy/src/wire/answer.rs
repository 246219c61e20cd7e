//! Answers of HTTP/1: heads, judged and then read (RFC 9112 sections 4 and 5). Pure.
//!
//! Invariant: nothing is made of a head that has two readings, and nothing is copied out of one:
//! the values of its fields are parts of it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use memchr::memchr;

use super::{
    Framing, fields,
    head::{Bounds, Coding, Facts, Fault, Lines, coding},
};

/// What the framing of a response's body and connection follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseFacts {
    /// Status code, 100 to 999.
    pub status: u16,
    /// End of the body.
    pub framing: Framing,
    /// HTTP/1.1, not 1.0.
    pub http11: bool,
    /// The connection ends behind this message (RFC 9112 section 9.6). Of HTTP/1.0 always: what
    /// some servers say there to keep it open is no part of it.
    pub closes: bool,
    /// Field lines.
    pub fields: usize,
}

/// Room for what is added to an answer on its way: Via, and what a route asks for.
const ADDED_FIELDS: usize = 4;

/// The heads of the answers on one connection, one after the other.
#[derive(Debug)]
pub struct Heads {
    bounds: Bounds,
    to_head: bool,
    /// How far the end of the head has been searched for.
    searched: usize,
}

impl Heads {
    /// None yet.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, to_head: false, searched: 0 }
    }

    /// The bounds of a head.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// A request goes out. `to_head`: it is HEAD, so its answer has no body.
    pub fn expect(&mut self, to_head: bool) {
        self.to_head = to_head;
        self.searched = 0;
    }

    /// Looks for a whole head at the start of what has come: what it says, and where it ends. To
    /// be shown the same bytes again with more behind them where it is not whole.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<(ResponseFacts, usize)>, &'static str> {
        let end = self.bounds.find(bytes, &mut self.searched);
        let Some(end) = end.map_err(|_| "head too large")? else { return Ok(None) };
        self.searched = 0;
        Ok(Some((response(&bytes[..end], self.to_head, &self.bounds)?, end)))
    }
}

/// Judges one whole response head, its empty line included. `to_head`: the request was HEAD.
pub fn response(
    head: &[u8],
    to_head: bool,
    bounds: &Bounds,
) -> Result<ResponseFacts, &'static str> {
    let mut lines = Lines(head);
    let line = lines.next().unwrap_or(Err("empty response"))?;
    let (http11, status) = status_line(line)?;
    let mut facts = Facts::default();
    facts.collect(lines, bounds).map_err(|fault| match fault {
        Fault::Rule(rule) => rule,
        Fault::TooMany => "too many header fields",
    })?;
    if facts.content_lengths > 1 {
        return Err("more than one Content-Length");
    }
    if facts.transfer_encodings > 0 {
        if facts.transfer_encodings > 1 {
            return Err("more than one Transfer-Encoding");
        }
        if facts.content_lengths > 0 {
            return Err("Transfer-Encoding beside Content-Length");
        }
        if !http11 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        match coding(facts.transfer_encoding.unwrap_or_default()) {
            Coding::Chunked => {}
            Coding::Other => return Err("unknown transfer coding"),
            Coding::Bad(rule) => return Err(rule),
        }
    }
    // RFC 9110 sections 8.6 and 6.4.1: neither field frames anything in 1xx and 204.
    if (status < 200 || status == 204) && (facts.transfer_encodings > 0 || facts.content_length > 0)
    {
        return Err("body announced where there can be none");
    }
    let framing = if to_head || status < 200 || status == 204 || status == 304 {
        Framing::Empty
    } else if facts.transfer_encodings > 0 {
        Framing::Chunked
    } else if facts.content_lengths == 0 {
        Framing::UntilClose
    } else if facts.content_length == 0 {
        Framing::Empty
    } else {
        Framing::Length(facts.content_length)
    };
    let closes = facts.connection_close || !http11 || framing == Framing::UntilClose;
    Ok(ResponseFacts { status, framing, http11, closes, fields: facts.lines })
}

/// The head of an answer that has been judged, as values.
///
/// # Errors
/// The rule that is broken. None is, of a head that has passed.
pub fn read(head: &Bytes, facts: &ResponseFacts) -> Result<Response<()>, &'static str> {
    let mut lines = Lines(head);
    let line = lines.next().unwrap_or(Err("empty response"))?;
    let mut response = Response::new(());
    let status = StatusCode::from_u16(facts.status).map_err(|_| "bad status code")?;
    *response.status_mut() = status;
    *response.version_mut() = if facts.http11 { Version::HTTP_11 } else { Version::HTTP_10 };
    let reason = line.get("HTTP/1.1 200 ".len()..).unwrap_or_default();
    if status.canonical_reason().is_none_or(|known| known.as_bytes() != reason)
        && let Ok(reason) = ReasonPhrase::try_from(head.slice_ref(reason))
    {
        // It goes on to the client.
        response.extensions_mut().insert(reason);
    }
    let room = HeaderMap::try_with_capacity(facts.fields + ADDED_FIELDS);
    let mut fields = room.map_err(|_| "too many header fields")?;
    for line in lines {
        let line = line?;
        let colon = memchr(b':', line).ok_or("field line without a colon")?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| "bad field name")?;
        let value = head.slice_ref(fields::trim(&line[colon + 1..]));
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| "bad field value")?;
        fields.try_append(name, value).map_err(|_| "too many header fields")?;
    }
    *response.headers_mut() = fields;
    Ok(response)
}

fn status_line(line: &[u8]) -> Result<(bool, u16), &'static str> {
    let http11 = match line.get(..9) {
        Some(b"HTTP/1.1 ") => true,
        Some(b"HTTP/1.0 ") => false,
        _ => return Err("bad status line"),
    };
    let digits = line.get(9..12).ok_or("bad status line")?;
    if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return Err("bad status code");
    }
    let reason = &line[12..];
    if !(reason.is_empty() || reason[0] == b' ') || !fields::is_text(reason) {
        return Err("bad reason phrase");
    }
    let status = digits.iter().fold(0u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Ok((http11, status))
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
