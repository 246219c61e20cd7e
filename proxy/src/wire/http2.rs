//! Heads of HTTP/2 requests, judged before they become HTTP/1 (RFC 9113 sections 8.2 and
//! 8.3). Pure.
//!
//! The h2 crate refuses what breaks HTTP/2. What is left is what only turns ambiguous as
//! HTTP/1: a length or a host that stands there twice or not at all, a host that no URI
//! can have. And the limits on heads, which it does not know.

use http::{Method, Request, header};

use super::head::{Bounds, is_authority, same_authority};
use crate::error::Kind;

/// Judges one request.
///
/// # Errors
/// The status and rule that the same head would get over HTTP/1.
pub fn request<B>(request: &Request<B>, bounds: &Bounds) -> Result<(), Kind> {
    let (uri, headers) = (request.uri(), request.headers());
    let is_connect = request.method() == Method::CONNECT;
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > bounds.max_uri_bytes {
        return Err(Kind::UriTooLong);
    }
    if headers.len() > bounds.max_headers {
        return Err(Kind::HeadTooLarge);
    }
    if !target.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        return Err(Kind::BadRequest("bad request target"));
    }
    if target == "*" && request.method() != Method::OPTIONS {
        return Err(Kind::BadRequest("bad request target"));
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Kind::BadRequest("more than one Content-Length"));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Err(Kind::BadRequest("more than one Host"));
    }
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = authority
        && !is_authority(authority)
    {
        return Err(Kind::BadRequest("bad :authority"));
    }
    match (authority, host) {
        (None, None) => Err(Kind::BadRequest("Host is missing")),
        (_, Some(host)) if !is_authority(host.as_bytes()) => Err(Kind::BadRequest("bad Host")),
        (Some(authority), Some(host))
            if !same_authority(authority, host.as_bytes(), is_connect) =>
        {
            Err(Kind::BadRequest("Host differs from :authority"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<(), Kind> {
        let bounds = Bounds { max_bytes: 1024, max_headers: 3, max_uri_bytes: 16 };
        let mut head = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            head = head.header(*name, *value);
        }
        request(&head.body(()).unwrap(), &bounds)
    }

    #[test]
    fn heads_with_one_reading_pass() {
        for (method, uri, fields) in [
            ("GET", "http://a.test/x?y", &[][..]),
            ("GET", "http://a.test/", &[("host", "a.test:80")]),
            ("GET", "/", &[("host", "a.test"), ("content-length", "3")]),
            ("CONNECT", "a.test:443", &[]),
            ("CONNECT", "a.test:443", &[("host", "a.test")]),
        ] {
            assert_eq!(judge(method, uri, fields), Ok(()), "{method} {uri} {fields:?}");
        }
    }

    #[test]
    fn what_http1_could_read_in_two_ways_is_refused() {
        let bad = Kind::BadRequest;
        for (uri, fields, kind) in [
            ("/", &[][..], bad("Host is missing")),
            ("/", &[("host", "a"), ("host", "a")], bad("more than one Host")),
            ("/", &[("host", "a/b?c d")], bad("bad Host")),
            ("/", &[("host", "")], bad("bad Host")),
            ("http://u@a/", &[], bad("bad :authority")),
            ("http://a/", &[("host", "b")], bad("Host differs from :authority")),
            (
                "http://a/",
                &[("content-length", "3"), ("content-length", "3")],
                bad("more than one Content-Length"),
            ),
            ("*", &[("host", "a")], bad("bad request target")),
            ("/0123456789abcdef", &[("host", "a")], Kind::UriTooLong),
            ("/", &[("host", "a"), ("b", ""), ("c", ""), ("d", "")], Kind::HeadTooLarge),
        ] {
            assert_eq!(judge("GET", uri, fields), Err(kind), "{uri} {fields:?}");
        }
    }
}
