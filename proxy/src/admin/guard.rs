//! Keeps other web sites out of the admin endpoint. Pure.
//!
//! A browser on the same machine can reach loopback for any page it has open. Two things
//! follow. A page of a name that is made to resolve to 127.0.0.1 (DNS rebinding) is of
//! the same origin as we are, as far as the browser can tell; only the `Host` it sends
//! gives it away. And a page of any site can have a request sent, even if it may not read
//! the answer; what changes something therefore has to come from our own page, or from a
//! client that is no browser.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Version,
    header::{HOST, ORIGIN},
    uri::Authority,
};

/// Fetch Metadata: where a browser's request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No `Host`, several, or one that is no authority (RFC 9112 3.2): 400.
    BadHost,
    /// A name that is not ours: 403.
    ForeignHost,
    /// Sent by a page of another site: 403.
    ForeignOrigin,
}

/// Whether a request may be answered.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let host = match host(request.headers(), request.version())? {
        Some(host) => Some(host),
        // HTTP/1.0 without a Host: no browser sends that.
        None => request.uri().authority().cloned(),
    };
    for authority in [host.as_ref(), request.uri().authority()].into_iter().flatten() {
        if !is_ours(authority) {
            return Err(Refusal::ForeignHost);
        }
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads || is_same_site(request.headers(), host.as_ref()) {
        Ok(())
    } else {
        Err(Refusal::ForeignOrigin)
    }
}

fn host(headers: &HeaderMap, version: Version) -> Result<Option<Authority>, Refusal> {
    let mut all = headers.get_all(HOST).iter();
    match (all.next(), all.next()) {
        (Some(host), None) => {
            Authority::try_from(host.as_bytes()).map(Some).map_err(|_| Refusal::BadHost)
        }
        (None, _) if version == Version::HTTP_10 => Ok(None),
        _ => Err(Refusal::BadHost),
    }
}

/// An address was typed, not resolved, so no name server had a say in it; and `localhost`
/// is never asked of one (RFC 6761 6.3).
fn is_ours(authority: &Authority) -> bool {
    let host = authority.host();
    if authority.as_str().contains('@') {
        return false;
    }
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse::<std::net::Ipv6Addr>().is_ok();
    }
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return true;
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn is_same_site(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return false;
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next(), host) {
        (None, _, _) => true,
        (Some(origin), None, Some(host)) => {
            origin.as_bytes().strip_prefix(b"http://") == Some(host.as_str().as_bytes())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn only_addresses_and_localhost_are_answered() {
        for host in [
            "127.0.0.1:9900",
            "127.0.0.1",
            "[::1]:9900",
            "192.0.2.7:9900",
            "localhost:9900",
            "LOCALHOST",
            "underpass.localhost:9900",
        ] {
            let request = request(Method::GET, "/", &[("host", host)]);
            assert_eq!(check(&request), Ok(()), "{host}");
        }
        for host in [
            "rebound.example.org:9900",
            "127.0.0.1.example.org",
            "localhost.example.org",
            "notlocalhost",
            "user@127.0.0.1",
            "2130706433",
            "0x7f.1",
            "[v1.x]",
        ] {
            let request = request(Method::GET, "/", &[("host", host)]);
            assert!(
                matches!(check(&request), Err(Refusal::ForeignHost | Refusal::BadHost)),
                "{host}"
            );
        }
    }

    #[test]
    fn a_target_in_absolute_form_does_not_get_round_the_check() {
        let request =
            request(Method::GET, "http://rebound.example.org/", &[("host", "127.0.0.1:9900")]);
        assert_eq!(check(&request), Err(Refusal::ForeignHost));
    }

    #[test]
    fn a_host_is_needed_and_one_only() {
        assert_eq!(check(&request(Method::GET, "/", &[])), Err(Refusal::BadHost));
        let twice = [("host", "127.0.0.1"), ("host", "127.0.0.1")];
        assert_eq!(check(&request(Method::GET, "/", &twice)), Err(Refusal::BadHost));
        let mut old = request(Method::GET, "/", &[]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(check(&old), Ok(()));
    }

    #[test]
    fn changes_come_from_our_own_page_or_from_no_browser() {
        let host = ("host", "127.0.0.1:9900");
        let delete = |headers: &[(&str, &str)]| {
            let mut all = vec![host];
            all.extend(headers);
            check(&request(Method::DELETE, "/tunnels/1", &all))
        };
        assert_eq!(delete(&[]), Ok(()));
        assert_eq!(delete(&[("origin", "http://127.0.0.1:9900")]), Ok(()));
        assert_eq!(delete(&[("sec-fetch-site", "same-origin")]), Ok(()));
        for foreign in [
            ("origin", "http://example.org"),
            ("origin", "http://127.0.0.1:9901"),
            ("origin", "https://127.0.0.1:9900"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(delete(&[foreign]), Err(Refusal::ForeignOrigin), "{foreign:?}");
        }
    }
}
