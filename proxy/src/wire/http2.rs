//! Heads of HTTP/2 requests, judged before they become HTTP/1 (RFC 9113 sections 8.2 and
//! 8.3), and what makes one of HTTP/1 one of HTTP/2 again. Pure.
//!
//! The h2 crate refuses what breaks HTTP/2. What is left is what only turns ambiguous as
//! HTTP/1: a length or a host that stands there twice or not at all, a host that no URI
//! can have. And the limits on heads, which it does not know.

use std::net::SocketAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header,
    uri::{Authority, Scheme},
};

use hyper::ext::Protocol;

use super::{
    fields,
    head::{Bounds, TargetScheme, is_authority, same_authority},
    websocket,
};
use crate::error::Kind;

/// Judges one request.
///
/// # Errors
/// The status and rule that the same head would get over HTTP/1.
pub fn request<B>(request: &Request<B>, bounds: &Bounds) -> Result<(), Kind> {
    let (uri, headers) = (request.uri(), request.headers());
    let scheme = match uri.scheme_str() {
        _ if request.method() == Method::CONNECT => TargetScheme::Connect,
        Some(scheme) => TargetScheme::of(scheme.as_bytes()),
        None => TargetScheme::Other,
    };
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
        (Some(authority), Some(host)) if !same_authority(authority, host.as_bytes(), scheme) => {
            Err(Kind::BadRequest("Host differs from :authority"))
        }
        _ => Ok(()),
    }
}

/// Fields that are about an HTTP/1 connection (RFC 9113 section 8.2.2).
const OF_HTTP1: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Takes out what is about a connection of HTTP/1: h2 sends no such fields.
pub fn without_connection(headers: &mut HeaderMap) {
    for name in OF_HTTP1 {
        headers.remove(name);
    }
}

/// Takes out of a trailer section what h2 does not send, and what may not stand in one.
pub fn trailers(section: &mut HeaderMap) {
    without_connection(section);
    fields::without_forbidden_trailers(section);
}

/// Whether a request's `Host` can be an `:authority`; an empty one stands for the server.
pub fn has_authority<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(header::HOST);
    host.is_none_or(|host| host.is_empty() || Authority::try_from(host.as_bytes()).is_ok())
}

/// Makes a request of HTTP/1.1 one of HTTP/2: its `Host` becomes `:authority` (RFC 9113 section
/// 8.3.1), `otherwise` where that is empty, and what is about the connection goes. One for a
/// WebSocket, which has a [`Protocol`] with it, becomes a CONNECT (RFC 8441 section 4).
pub fn to_http2<B>(request: &mut Request<B>, otherwise: SocketAddr, secure: bool) {
    without_connection(request.headers_mut());
    if request.extensions().get::<Protocol>().is_some() {
        websocket::into_connect(request);
    }
    let host = request.headers_mut().remove(header::HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    let host = host.as_ref().and_then(|host| Authority::try_from(host.as_bytes()).ok());
    parts.authority = host.or_else(|| otherwise.to_string().parse().ok());
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    // Path and authority, both of which were valid before.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
}

/// The way back, for one that was not sent.
pub fn to_http1<B>(request: &mut Request<B>) {
    if request.version() != Version::HTTP_2 {
        return;
    }
    let authority = request.uri().authority().map(|authority| authority.as_str());
    if let Some(host) = authority.and_then(|authority| HeaderValue::from_str(authority).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = match request.uri().path_and_query() {
        Some(path) => Uri::from(path.clone()),
        None => Uri::from_static("/"),
    };
    *request.version_mut() = Version::HTTP_11;
}

/// Judges the head of an answer: what h2 lets through and HTTP/1 could read in two ways.
///
/// # Errors
/// The rule that it breaks.
pub fn answer<B>(answer: &Response<B>, bounds: &Bounds) -> Result<(), &'static str> {
    let headers = answer.headers();
    if headers.len() > bounds.max_headers {
        return Err("too many header fields");
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (length, another) = (lengths.next(), lengths.next());
    if another.is_some() {
        return Err("more than one Content-Length");
    }
    let is_number = |length: &HeaderValue| {
        !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit)
    };
    if !length.is_none_or(is_number) {
        return Err("bad Content-Length");
    }
    Ok(())
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
            ("GET", "https://a.test/", &[("host", "a.test:443")]),
            ("GET", "https://a.test:443/", &[("host", "a.test")]),
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
            ("http://a/", &[("host", "a:443")], bad("Host differs from :authority")),
            ("https://a/", &[("host", "a:80")], bad("Host differs from :authority")),
            ("https://a:80/", &[("host", "a")], bad("Host differs from :authority")),
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

    #[test]
    fn a_request_becomes_one_of_http2_and_comes_back() {
        let other = SocketAddr::from(([127, 0, 0, 1], 80));
        let mut request = Request::builder()
            .method("POST")
            .uri("/x?y")
            .header("host", "a.test:8080")
            .header("connection", "te, upgrade")
            .header("upgrade", "x")
            .header("transfer-encoding", "chunked")
            .header("te", "trailers")
            .body(())
            .unwrap();
        to_http2(&mut request, other, false);
        assert_eq!(request.uri(), "http://a.test:8080/x?y");
        assert_eq!(request.version(), Version::HTTP_2);
        let names: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["te"]);
        to_http1(&mut request);
        assert_eq!(
            (request.uri().to_string().as_str(), request.version()),
            ("/x?y", Version::HTTP_11)
        );
        assert_eq!(request.headers()["host"], "a.test:8080");

        let mut request = Request::builder().method("OPTIONS").uri("*").header("host", "");
        let mut request = std::mem::take(&mut request).body(()).unwrap();
        to_http2(&mut request, other, false);
        assert_eq!(request.uri().authority().unwrap(), "127.0.0.1:80");
        assert_eq!(request.uri().path(), "*");
    }

    #[test]
    fn answers_have_one_length() {
        let bounds = Bounds { max_bytes: 1024, max_headers: 3, max_uri_bytes: 16 };
        for (fields, good) in [
            (&[][..], true),
            (&[("content-length", "12")], true),
            (&[("content-length", "1"), ("content-length", "1")], false),
            (&[("content-length", "1, 1")], false),
            (&[("content-length", "")], false),
            (&[("a", ""), ("b", ""), ("c", ""), ("d", "")], false),
        ] {
            let head = fields.iter().fold(Response::builder(), |head, (n, v)| head.header(*n, *v));
            assert_eq!(answer(&head.body(()).unwrap(), &bounds).is_ok(), good, "{fields:?}");
        }
    }
}
