//! Whether a request meets what a route asks beside host and path: method, fields, query.
//! Pure; allocates nothing.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, Method};

use super::{Head, reading};
use crate::config::{Condition, Route, Test};

/// The part of a route that is looked at when host and path fit.
#[derive(Debug)]
pub(super) struct Conditions {
    methods: Box<[Method]>,
    headers: Box<[Condition<HeaderName>]>,
    query: Box<[Condition<Box<str>>]>,
}

impl Conditions {
    pub(super) fn of(route: &Route) -> Self {
        Self {
            methods: route.methods.as_slice().into(),
            headers: route.headers.as_slice().into(),
            query: route.query.as_slice().into(),
        }
    }

    pub(super) fn hold(&self, head: &Head<'_>) -> bool {
        (self.methods.is_empty() || self.methods.contains(head.method))
            && self.headers.iter().all(|condition| header_holds(condition, head.headers))
            && self.query.iter().all(|condition| query_holds(condition, head.uri.query()))
    }
}

fn header_holds(condition: &Condition<HeaderName>, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(&condition.name).iter().map(|value| value.as_bytes());
    match &condition.test {
        Test::Present => values.next().is_some(),
        Test::Absent => values.next().is_none(),
        Test::Exact(text) => values.any(|value| value == text.as_bytes()),
        Test::Prefix(text) => values.any(|value| value.starts_with(text.as_bytes())),
        Test::Regex(regex) => values.any(|value| regex.matches(value)),
    }
}

fn query_holds(condition: &Condition<Box<str>>, query: Option<&str>) -> bool {
    let pairs = query.into_iter().flat_map(|query| query.as_bytes().split(|&byte| byte == b'&'));
    let mut values = pairs.filter_map(|pair| {
        let at = memchr::memchr(b'=', pair);
        let (name, value) = (at.map_or(pair, |at| &pair[..at]), at.map(|at| &pair[at + 1..]));
        decoded(name).eq(condition.name.bytes()).then_some(value.unwrap_or_default())
    });
    match &condition.test {
        Test::Present => values.next().is_some(),
        Test::Absent => values.next().is_none(),
        Test::Exact(text) => values.any(|value| decoded(value).eq(text.bytes())),
        Test::Prefix(text) => values.any(|value| {
            let mut value = decoded(value);
            text.bytes().all(|byte| value.next() == Some(byte))
        }),
        Test::Regex(regex) => values.any(|value| {
            thread_local!(static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.clear();
                scratch.extend(decoded(value));
                regex.matches(scratch)
            })
        }),
    }
}

/// A name or a value of a query as forms write them (WHATWG URL, application/x-www-form-urlencoded):
/// `+` is a space.
fn decoded(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        let escape = (byte == b'%').then(|| reading::escape(text.get(at + 1..at + 3)?)).flatten();
        at += if escape.is_some() { 3 } else { 1 };
        Some(match escape {
            Some(byte) => byte,
            None if byte == b'+' => b' ',
            None => byte,
        })
    })
}
