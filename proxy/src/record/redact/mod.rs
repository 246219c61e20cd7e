//! What is blanked, and where: fields and queries of heads by the worker, before anything of
//! them reaches the queue; bodies by the writer, before anything of them reaches the disk.
//!
//! Implements: REQ-REC-006

use http::{HeaderMap, HeaderName};

use super::note::put_fields;
use crate::config::record::Redact;

mod body;
mod framing;
mod json;
mod shown;
mod url;

pub(super) use body::{Body, Piece, blanked};
pub(super) use framing::Framing;
pub use shown::redact as redact_shown;

/// What stands in the place of a value.
pub(super) const BLANK: &[u8] = b"***";

/// What is blanked in heads.
#[derive(Debug)]
pub(super) struct Heads {
    names: Vec<HeaderName>,
    /// Most fields are let through by it alone.
    sieve: Sieve,
    parameters: url::Parameters,
}

impl Heads {
    pub(super) fn new(redact: &Redact) -> Self {
        let names = redact.headers.clone();
        let mut sieve = Sieve::default();
        names.iter().chain(url::fields()).for_each(|name| sieve.add(name));
        Self { names, sieve, parameters: url::Parameters(redact.query.clone()) }
    }

    /// Appends fields, with what stands for those that are blanked.
    pub(super) fn fields(&self, out: &mut Vec<u8>, fields: &HeaderMap) {
        let value =
            |out: &mut Vec<u8>, name: &HeaderName, value: &[u8]| self.value(out, name, value);
        put_fields(out, fields, |name| self.sieve.holds(name), value);
    }

    /// Appends the value of a field that the sieve has held, or what stands for it.
    fn value(&self, out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
        if self.names.contains(name) {
            out.extend_from_slice(BLANK);
        } else if let Some(form) = url::form(name) {
            self.parameters.value(out, form, value);
        } else {
            out.extend_from_slice(value);
        }
    }

    /// Appends the target of a request, with the values of parameters blanked, and its user if
    /// it names one.
    pub(super) fn target(&self, out: &mut Vec<u8>, target: &[u8]) {
        self.parameters.target(out, target);
    }
}

/// What is surely none of some names falls through: by length, first byte and last byte.
#[derive(Debug)]
struct Sieve([u64; 64]);

impl Default for Sieve {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Sieve {
    fn add(&mut self, name: &HeaderName) {
        let (word, bit) = Self::place(name);
        self.0[word] |= bit;
    }

    fn holds(&self, name: &HeaderName) -> bool {
        let (word, bit) = Self::place(name);
        self.0[word] & bit != 0
    }

    fn place(name: &HeaderName) -> (usize, u64) {
        let name = name.as_str().as_bytes();
        let first = name.first().copied().unwrap_or(0);
        let last = name.last().copied().unwrap_or(0);
        let mixed = usize::from(first) ^ usize::from(last) << 4 ^ (name.len() * 0x9d);
        (mixed >> 6 & 63, 1 << (mixed & 63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::note::Reader;

    #[test]
    fn fields_are_blanked_by_their_name_and_urls_by_their_query() {
        let heads = Heads::new(&Redact::default());
        for (name, value, wanted) in [
            ("authorization", "Bearer s3cret", "***"),
            ("x-api-key", "s3cret", "***"),
            ("x-auth-key", "s3cret", "***"),
            ("cf-access-client-secret", "s3cret", "***"),
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.s3cret", "***"),
            ("accept", "text/html", "text/html"),
            ("x-api-kez", "kept", "kept"),
            ("referer", "http://h/?token=s3cret", "http://h/?token=***"),
        ] {
            let (mut fields, mut out) = (HeaderMap::new(), Vec::new());
            fields.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            heads.fields(&mut out, &fields);
            let mut found = Vec::new();
            Reader(&out).fields(|_, value| found.push(value));
            assert_eq!(found, [wanted.as_bytes()], "{name}");
        }
    }
}
