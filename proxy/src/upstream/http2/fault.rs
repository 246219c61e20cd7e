//! What the end of a stream without an answer means. Pure.

use std::error::Error as _;

use h2::Reason;

use crate::error::Kind;

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// Whether the server says that it has not begun with the request, so that it may be sent again
/// whatever it asks for: REFUSED_STREAM (RFC 9113 section 8.7), or a GOAWAY whose last stream is
/// an earlier one (section 6.8; h2 tells only streams behind that of it).
pub fn is_unprocessed(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away())
    })
}

/// Whether it ended with its connection, and not for itself.
pub fn is_of_connection(error: &hyper::Error) -> bool {
    cause(error).is_none_or(|error| !error.is_reset())
}

/// What has ended a request before the head of its answer.
pub fn why(error: &hyper::Error) -> Kind {
    match cause(error) {
        // Found by h2 itself: what came breaks the protocol.
        Some(error) if error.is_library() => Kind::BadResponse("not valid HTTP/2"),
        _ => Kind::UpstreamClosed,
    }
}
