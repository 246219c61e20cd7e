//! Which of the answers to one target belongs to a request (RFC 9111 section 4.1).
//!
//! A variant is known by the names that its `Vary` had and by the values that the request which
//! led to it had of them: the lines of a field joined, without white space around commas.

use http::{HeaderMap, HeaderName, header};

/// The fields that chose a variant, and their values. Names in order, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen(Vec<(HeaderName, Option<Vec<u8>>)>);

/// Names that one answer may vary by; one with more is not stored.
pub const MOST_NAMES: usize = 32;

/// Whether no other request could be answered with it: `*`, a name that is none, or too many.
pub(super) fn is_any(headers: &HeaderMap) -> bool {
    let mut count = 0;
    names(headers).any(|name| {
        count += 1;
        name == b"*" || count > MOST_NAMES || HeaderName::from_bytes(name).is_err()
    })
}

fn names(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::VARY).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
}

impl Chosen {
    /// What chose this answer among others, `ignored` fields left out.
    pub fn of(answer: &HeaderMap, request: &HeaderMap, ignored: &[HeaderName]) -> Self {
        let mut chosen: Vec<(HeaderName, Option<Vec<u8>>)> = Vec::new();
        for name in names(answer).filter_map(|name| HeaderName::from_bytes(name).ok()) {
            if !ignored.contains(&name) {
                let value = value(request, &name);
                chosen.push((name, value));
            }
        }
        chosen.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        chosen.dedup_by(|one, other| one.0 == other.0);
        Self(chosen)
    }

    /// What a request has of these fields, which are in order.
    pub fn by(names: &[HeaderName], request: &HeaderMap) -> Self {
        Self(names.iter().map(|name| (name.clone(), value(request, name))).collect())
    }

    /// The names of its fields, in order.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// Whether there are none: one answer for all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same with what has been stored.
    pub fn from_parts(parts: Vec<(HeaderName, Option<Vec<u8>>)>) -> Self {
        Self(parts)
    }

    /// Its fields, in order, with their values.
    pub fn parts(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name, value.as_deref()))
    }

    /// Whether a request chooses the same.
    pub fn is_for(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, chosen)| value(request, name) == *chosen)
    }
}

fn value(request: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = request.get_all(name).iter().peekable();
    lines.peek()?;
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let mut joined = Vec::new();
    for member in members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()) {
        if !joined.is_empty() {
            joined.push(b',');
        }
        joined.extend_from_slice(member);
    }
    Some(joined)
}
