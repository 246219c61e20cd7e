//! Which of two routes that match goes first.
//!
//! 1. the higher `priority`,
//! 2. exact host or server name before wildcard (the longer suffix first) before any,
//! 3. the more specific path: segment by segment from the left a literal goes before a
//!    parameter, that before the rest of a pattern, that before the end of a prefix; an exact
//!    path is literal to its end,
//! 4. with methods before without, fewer before more,
//! 5. more conditions on fields before fewer,
//! 6. more conditions on the query before fewer,
//! 7. of a named listener before of all listeners,
//! 8. earlier in the file before later.
//!
//! From 3 to 6 this is the order of HTTPRoute in Kubernetes' Gateway API, which knows no
//! parameters and leaves patterns open. An order of all routes, not of those that match
//! something: so it is known once and for all, and a match is the search for a lowest number.

use std::cmp::Reverse;

use crate::config::{HostPattern, Part, Route};

/// What to sort routes by, stably: less goes first.
pub(super) fn key(route: &Route) -> impl Ord + use<> {
    let (kind, length) = match route.host.as_ref().or(route.sni.as_ref()) {
        Some(HostPattern::Exact(_)) => (2, 0),
        Some(HostPattern::Wildcard(suffix)) => (1, suffix.len()),
        None => (0, 0),
    };
    let path = route.path.as_ref().map_or(vec![Part::Open], |path| path.parts().collect());
    let methods = match route.methods.len() {
        0 => usize::MAX,
        some => some,
    };
    (
        Reverse((route.priority, kind, length, path)),
        methods,
        Reverse((route.headers.len(), route.query.len(), route.listener.is_some())),
    )
}
