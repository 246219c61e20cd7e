//! What is stored of an answer's fields, and what a later 304 changes in them (RFC 9111 sections
//! 3.1 and 3.2).

use http::{HeaderMap, HeaderName, header};

use super::SetCookie;

/// Fields that are for one connection or one exchange, whatever `Connection` names.
const NEVER: [HeaderName; 8] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::AGE,
];

/// More of them that have no constant.
const NEVER_BY_NAME: [&str; 6] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authentication-info",
    "x-cache",
    "cache-status",
    "http2-settings",
];

/// Fields that describe the stored bytes, which a 304 does not have.
const OF_CONTENT: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE, header::CONTENT_TYPE];

/// Takes out what is not stored. What `Connection` names has gone before.
pub fn storable(headers: &mut HeaderMap, cookies: SetCookie) {
    take_out(headers, |name| {
        NEVER.contains(name)
            || NEVER_BY_NAME.contains(&name.as_str())
            || (cookies != SetCookie::Store && *name == header::SET_COOKIE)
    });
}

/// Takes out the fields of these names. One look at each that is there: to look for each name takes a
/// hash of it, and most answers have none of them.
pub(super) fn take_out(headers: &mut HeaderMap, is_meant: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_meant(name)).cloned() {
        headers.remove(name);
    }
}

/// Writes the fields of a 304 over those that are stored.
pub fn freshen(stored: &mut HeaderMap, mut not_modified: HeaderMap, cookies: SetCookie) {
    storable(&mut not_modified, cookies);
    for name in OF_CONTENT {
        not_modified.remove(name);
    }
    // The same version may be named weakly by one and strongly by the other. What the stored
    // bytes came with is what they are known by: a weak tag has not become a strong one.
    if stored.contains_key(header::ETAG) {
        not_modified.remove(header::ETAG);
    }
    let names: Vec<HeaderName> = not_modified.keys().cloned().collect();
    for name in &names {
        stored.remove(name);
    }
    for name in names {
        for value in not_modified.get_all(&name) {
            stored.append(name.clone(), value.clone());
        }
    }
}

/// Fields that a 304 to a client has of what is stored (RFC 9110 section 15.4.5).
pub fn of_not_modified(stored: &HeaderMap) -> HeaderMap {
    let mut fields = stored.clone();
    for name in OF_CONTENT {
        fields.remove(name);
    }
    fields
}
