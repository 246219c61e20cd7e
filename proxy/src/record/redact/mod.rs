//! What is blanked, and where: fields and queries of heads by the worker, before anything of
//! them reaches the queue; bodies by the writer, before anything of them reaches the disk.
//!
//! Implements: REQ-REC-006

use http::HeaderName;

use crate::config::record::Redact;

mod body;
mod framing;
mod json;
mod url;

pub(super) use body::{Body, Piece, blanked};
pub(super) use framing::Framing;

/// What stands in the place of a value.
pub(super) const BLANK: &[u8] = b"***";

/// What is blanked in heads.
#[derive(Debug)]
pub(super) struct Heads {
    names: Vec<HeaderName>,
    /// Bit `n`: one of the names has `n` bytes. Most fields are let through by it alone.
    lengths: u64,
    parameters: url::Parameters,
}

impl Heads {
    pub(super) fn new(redact: &Redact) -> Self {
        let names = redact.headers.clone();
        let bit = |name: &HeaderName| 1 << name.as_str().len().min(63);
        let lengths = names.iter().map(bit).fold(0, |all, bit| all | bit);
        Self { names, lengths, parameters: url::Parameters(redact.query.clone()) }
    }

    /// Appends the value of a field, or what stands for it.
    pub(super) fn value(&self, out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
        let may = self.lengths & (1 << name.as_str().len().min(63)) != 0;
        if may && self.names.contains(name) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
            let mut out = Vec::new();
            heads.value(&mut out, &name.parse().unwrap(), value.as_bytes());
            assert_eq!(out, wanted.as_bytes(), "{name}");
        }
    }
}
