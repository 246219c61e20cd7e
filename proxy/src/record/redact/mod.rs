//! What is blanked, and where: fields and queries of heads by the worker, before anything of
//! them reaches the queue; bodies by the writer, before anything of them reaches the disk.
//!
//! Implements: REQ-REC-006

use http::{HeaderName, header};

use crate::config::record::Redact;

mod body;
mod json;

pub(super) use body::{Body, Piece};

/// What stands in the place of a value.
pub(super) const BLANK: &[u8] = b"***";

/// Fields whose value is a URL, and may have a query.
const URLS: [HeaderName; 3] = [header::REFERER, header::LOCATION, header::CONTENT_LOCATION];

/// What is blanked in heads.
#[derive(Debug)]
pub(super) struct Heads {
    names: Vec<HeaderName>,
    /// Bit `n`: one of the names has `n` bytes. Most fields are let through by it alone.
    lengths: u64,
    query: Vec<String>,
}

impl Heads {
    pub(super) fn new(redact: &Redact) -> Self {
        let names = redact.headers.clone();
        let bit = |name: &HeaderName| 1 << name.as_str().len().min(63);
        let lengths = names.iter().map(bit).fold(0, |all, bit| all | bit);
        Self { names, lengths, query: redact.query.clone() }
    }

    /// Appends the value of a field, or what stands for it.
    pub(super) fn value(&self, out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
        let may = self.lengths & (1 << name.as_str().len().min(63)) != 0;
        if may && self.names.contains(name) {
            out.extend_from_slice(BLANK);
        } else if URLS.contains(name) {
            self.target(out, value);
        } else {
            out.extend_from_slice(value);
        }
    }

    /// Appends a target or a URL, with the values of parameters blanked, and its user if it
    /// names one.
    pub(super) fn target(&self, out: &mut Vec<u8>, target: &[u8]) {
        let path = memchr::memchr(b'?', target).unwrap_or(target.len());
        let (before, query) = target.split_at(path);
        without_user(out, before);
        let Some(mut rest) = query.strip_prefix(b"?") else { return };
        out.push(b'?');
        loop {
            let end = memchr::memchr3(b'&', b';', b'#', rest).unwrap_or(rest.len());
            let (part, behind) = rest.split_at(end);
            let name = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
            if name < part.len() && self.is_blanked(&part[..name]) {
                out.extend_from_slice(&part[..=name]);
                out.extend_from_slice(BLANK);
            } else {
                out.extend_from_slice(part);
            }
            let Some((separator, next)) = behind.split_first() else { return };
            out.push(*separator);
            rest = next;
        }
    }

    fn is_blanked(&self, name: &[u8]) -> bool {
        if name.contains(&b'%') {
            let decoded = decoded(name);
            return self.query.iter().any(|known| decoded.eq_ignore_ascii_case(known.as_bytes()));
        }
        self.query.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
    }
}

/// `http://user:password@host/` without what is before the `@`.
fn without_user(out: &mut Vec<u8>, url: &[u8]) {
    let Some(scheme) = memchr::memmem::find(url, b"://").map(|at| at + 3) else {
        return out.extend_from_slice(url);
    };
    let authority = &url[scheme..];
    let end = memchr::memchr(b'/', authority).unwrap_or(authority.len());
    out.extend_from_slice(&url[..scheme]);
    match memchr::memrchr(b'@', &authority[..end]) {
        Some(at) => {
            out.extend_from_slice(BLANK);
            out.extend_from_slice(&authority[at..]);
        }
        None => out.extend_from_slice(authority),
    }
}

/// A name without its percent-encoding (RFC 3986 section 2.1).
fn decoded(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let digit = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
    let mut at = 0;
    while let Some(&byte) = name.get(at) {
        match (byte, digit(name.get(at + 1)), digit(name.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> String {
        let mut out = Vec::new();
        Heads::new(&Redact::default()).target(&mut out, text.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn parameters_of_the_query_are_blanked_by_their_name() {
        for (given, wanted) in [
            ("/a", "/a"),
            ("/a?", "/a?"),
            ("/a?b=c&key=s3cret&d", "/a?b=c&key=***&d"),
            ("/a?KEY=s3cret", "/a?KEY=***"),
            ("/a?api%5Fkey=s3cret;token=s3cret#x", "/a?api%5Fkey=***;token=***#x"),
            ("/a?monkey=1&key", "/a?monkey=1&key"),
            ("/a?key=s3cret=s3cret&&=x", "/a?key=***&&=x"),
            ("/a?%=1&key%2=2", "/a?%=1&key%2=2"),
            ("http://u:s3cret@h/x?token=s3cret", "http://***@h/x?token=***"),
            ("http://h/x@y", "http://h/x@y"),
        ] {
            assert_eq!(target(given), wanted, "{given}");
        }
    }

    #[test]
    fn fields_are_blanked_by_their_name_and_urls_by_their_query() {
        let heads = Heads::new(&Redact::default());
        for (name, value, wanted) in [
            ("authorization", "Bearer s3cret", "***"),
            ("x-api-key", "s3cret", "***"),
            ("accept", "text/html", "text/html"),
            ("x-api-kez", "kept", "kept"),
            ("referer", "http://h/?token=s3cret", "http://h/?token=***"),
        ] {
            let mut out = Vec::new();
            heads.value(&mut out, &name.parse().unwrap(), value.as_bytes());
            assert_eq!(out, wanted.as_bytes(), "{name}");
        }
    }
}
