//! What a request head asks for: to be forwarded and looked at, or to become a tunnel.
//! Pure: decides from the head alone.

use http::{Method, Request, Uri, header};

use crate::{config::Server, error::Kind};

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Forward to the upstream that the routes name.
    Inspect,
    /// Forward to the server that the target names (forward proxy, absolute-form).
    InspectAt(Server),
    /// Connect to the server that the target names and move bytes (RFC 9110 section 9.3.6).
    Connect(Server),
}

/// For a reverse listener.
pub fn classify_reverse<B>(request: &Request<B>) -> Result<Class, Kind> {
    match *request.method() {
        // CONNECT is for proxies that clients choose; TRACE shows fields that only the
        // proxy should see (RFC 9110 section 9.3.8).
        Method::CONNECT | Method::TRACE => Err(Kind::MethodNotAllowed),
        _ => expectation(request).map(|()| Class::Inspect),
    }
}

/// For a forward listener.
pub fn classify_forward<B>(request: &Request<B>) -> Result<Class, Kind> {
    let uri = request.uri();
    match *request.method() {
        Method::CONNECT => {
            let port = uri.port_u16();
            let server = authority(uri, port).ok_or(Kind::BadRequest("CONNECT needs host:port"))?;
            Ok(Class::Connect(server))
        }
        Method::TRACE => Err(Kind::MethodNotAllowed),
        _ => {
            expectation(request)?;
            match uri.scheme_str() {
                Some("http") => {
                    let port = uri.port_u16().unwrap_or(80);
                    let bad = Kind::BadRequest("bad authority in the request target");
                    authority(uri, Some(port)).map(Class::InspectAt).ok_or(bad)
                }
                Some("https") => Err(Kind::NotImplemented("https is proxied by CONNECT")),
                Some(_) => Err(Kind::BadRequest("only http:// is proxied")),
                None => Err(Kind::BadRequest("a proxy request needs an absolute target")),
            }
        }
    }
}

/// Refuses expectations that are not ours to meet (RFC 9110 section 10.1.1).
pub(crate) fn expectation<B>(request: &Request<B>) -> Result<(), Kind> {
    match request.headers().get(header::EXPECT) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Err(Kind::ExpectationFailed)
        }
        _ => Ok(()),
    }
}

fn authority(uri: &Uri, port: Option<u16>) -> Option<Server> {
    let host = uri.host()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match port {
        Some(port) if !host.is_empty() && port != 0 => Some(Server { host: host.into(), port }),
        _ => None,
    }
}

/// Whether a request may be sent a second time if the first got no answer: its method is
/// idempotent (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// The host that a request is for, without its port.
pub fn host<'a>(uri: &'a Uri, headers: &'a http::HeaderMap) -> &'a str {
    if let Some(host) = uri.host() {
        return host;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    // The port is behind the last colon, unless that stands within brackets.
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str) -> Request<()> {
        Request::builder().method(method).uri(target).header("host", "h").body(()).unwrap()
    }

    fn server(host: &str, port: u16) -> Server {
        Server { host: host.into(), port }
    }

    #[test]
    fn forward_requests_name_their_server() {
        for (method, target, class) in [
            ("CONNECT", "a.test:443", Ok(Class::Connect(server("a.test", 443)))),
            ("CONNECT", "[::1]:443", Ok(Class::Connect(server("::1", 443)))),
            ("CONNECT", "a.test:0", Err(Kind::BadRequest("CONNECT needs host:port"))),
            ("GET", "http://a.test/x", Ok(Class::InspectAt(server("a.test", 80)))),
            ("GET", "http://a.test:81", Ok(Class::InspectAt(server("a.test", 81)))),
            ("GET", "https://a.test/", Err(Kind::NotImplemented("https is proxied by CONNECT"))),
            ("GET", "ftp://a.test/", Err(Kind::BadRequest("only http:// is proxied"))),
            ("GET", "/x", Err(Kind::BadRequest("a proxy request needs an absolute target"))),
            ("TRACE", "http://a.test/", Err(Kind::MethodNotAllowed)),
        ] {
            assert_eq!(classify_forward(&request(method, target)), class, "{method} {target}");
        }
    }

    #[test]
    fn hosts_lose_their_port() {
        for (header, host_name) in [
            ("a.test", "a.test"),
            ("a.test:80", "a.test"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            let request = Request::builder().uri("/").header("host", header).body(()).unwrap();
            assert_eq!(host(request.uri(), request.headers()), host_name);
        }
    }

    #[test]
    fn unknown_expectations_are_refused() {
        let request = Request::builder().header("expect", "202-accepted").body(()).unwrap();
        assert_eq!(classify_reverse(&request), Err(Kind::ExpectationFailed));
        let request = Request::builder().header("expect", "100-Continue").body(()).unwrap();
        assert_eq!(classify_reverse(&request), Ok(Class::Inspect));
    }
}
