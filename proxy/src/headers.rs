//! What changes in a head on its way: connection-specific fields go, our hop is told,
//! everything else stays as it came, in its order. Pure.
//!
//! Implements: REQ-EDGE-004, REQ-CORE-001.F-003

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{self, Entry},
};

use crate::wire::fields;

mod forwarding;

pub use forwarding::Forwarding;

/// `Via` of this hop (RFC 9110 section 7.6.3): the version is the one received.
pub fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2.0 underpass",
        Version::HTTP_10 => "1.0 underpass",
        _ => "1.1 underpass",
    })
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removes what is for this connection only (RFC 9110 section 7.6.1): what `Connection`
/// names, and the fields that older peers send without naming them.
///
/// `Transfer-Encoding` stays: the wire has made sure that it is `chunked`, and hyper needs
/// to be told so for methods that seldom have a body. `TE: trailers` stays, it is the one
/// coding that holds for the next hop as well; `Connection: TE` is added by the caller.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most heads have none of these, or `Connection: keep-alive`: the names there are are gone
    // through once, which costs less than a look-up of each of these.
    let found = HopByHop::of(headers);
    if found.connection
        && let Entry::Occupied(entry) = headers.entry(header::CONNECTION)
    {
        let named: Vec<HeaderName> = entry
            .iter()
            .flat_map(|value| fields::list(value.as_bytes()))
            .filter(|option| {
                !option.eq_ignore_ascii_case(b"close")
                    && !option.eq_ignore_ascii_case(b"keep-alive")
                    && !option.eq_ignore_ascii_case(b"te")
                    && !fields::is_end_to_end(option)
            })
            .filter_map(|option| HeaderName::from_bytes(option).ok())
            .collect();
        entry.remove_entry_mult();
        for name in named {
            headers.remove(name);
        }
    }
    if found.others {
        for name in HopByHop::OTHERS {
            headers.remove(name);
        }
    }
    if found.te
        && let Some(te) = headers.get(header::TE)
    {
        let trailers = fields::list(te.as_bytes())
            .any(|coding| coding.split(|&b| b == b';').next().is_some_and(is_trailers));
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Which fields for one connection only a head has.
#[derive(Default)]
struct HopByHop {
    connection: bool,
    te: bool,
    /// One of [`Self::OTHERS`].
    others: bool,
}

impl HopByHop {
    const OTHERS: [HeaderName; 6] = [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        HTTP2_SETTINGS,
        header::UPGRADE,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
    ];

    fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "connection" => found.connection = true,
                "te" => found.te = true,
                "keep-alive"
                | "proxy-connection"
                | "http2-settings"
                | "upgrade"
                | "proxy-authenticate"
                | "proxy-authorization" => found.others = true,
                _ => {}
            }
        }
        found
    }
}

/// An interim response (1xx) as it goes on: in our version, without the fields that are for
/// one connection or frame a body (RFC 9110 sections 7.6.1 and 15.2). `head` has passed
/// the wire.
pub fn interim(head: &[u8]) -> Vec<u8> {
    const DROPPED: [&[u8]; 7] = [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"upgrade",
        b"content-length",
        b"transfer-encoding",
    ];
    let is = |name: &[u8], other: &[u8]| name.eq_ignore_ascii_case(other);
    let lines = || head.split(|&byte| byte == b'\n').map(|line| line.trim_ascii_end());
    let fields = || lines().skip(1).filter_map(|line| Some((line, fields::split(line).ok()?)));
    let named = |name| {
        fields().any(|(_, (field, value))| {
            is(field, b"connection") && fields::list(value).any(|option| is(option, name))
        })
    };
    let mut passed = Vec::with_capacity(head.len());
    let status = lines().next().and_then(|line| line.get(b"HTTP/1.x".len()..));
    passed.extend_from_slice(b"HTTP/1.1");
    passed.extend_from_slice(status.unwrap_or_default());
    for (line, (name, _)) in fields() {
        if !DROPPED.iter().any(|dropped| is(name, dropped)) && !named(name) {
            passed.extend_from_slice(b"\r\n");
            passed.extend_from_slice(line);
        }
    }
    passed.extend_from_slice(b"\r\n\r\n");
    passed
}

/// Removes what `Connection` names, before anything is added to a request: nobody is to name a
/// field that we write for the server, and have it go again. The options that say something to
/// us stay.
pub fn strip_named(headers: &mut HeaderMap) {
    const OURS: [&[u8]; 4] = [b"close", b"keep-alive", b"te", b"upgrade"];
    let is_ours = |option: &&[u8]| OURS.iter().any(|own| option.eq_ignore_ascii_case(own));
    let options = || headers.get_all(header::CONNECTION).iter();
    let options = || options().flat_map(|value| fields::list(value.as_bytes()));
    if options().all(|option| is_ours(&option)) {
        return;
    }
    let named: Vec<HeaderName> = options()
        .filter(|option| !is_ours(option) && !fields::is_end_to_end(option))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect();
    let kept: Vec<&[u8]> = options().filter(is_ours).collect();
    let kept = HeaderValue::from_bytes(&kept.join(&b", "[..]));
    headers.remove(header::CONNECTION);
    if let Some(kept) = kept.ok().filter(|kept| !kept.is_empty()) {
        headers.insert(header::CONNECTION, kept);
    }
    for name in named {
        headers.remove(name);
    }
}

/// Removes these fields, and what a server could take for one of them: CGI and its heirs read `_`
/// and `-` as one (RFC 3875 section 4.1.18).
pub fn remove_alike(headers: &mut HeaderMap, names: &[HeaderName]) {
    if !names.is_empty() {
        remove_where(headers, |name| names.iter().any(|field| is_alike(field, name)));
    }
}

/// Removes what a server could take for one of these fields, and leaves the fields themselves.
pub fn remove_lookalikes(headers: &mut HeaderMap, names: &[HeaderName]) {
    let is_one = |name: &HeaderName| {
        name.as_str().contains('_') && names.iter().any(|field| is_alike(field, name))
    };
    remove_where(headers, |name| is_one(name) && !names.contains(name));
}

fn is_alike(one: &HeaderName, other: &HeaderName) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let [one, other] = [one, other].map(|name| name.as_str().bytes().map(plain));
    one.eq(other)
}

fn remove_where(headers: &mut HeaderMap, is: impl Fn(&HeaderName) -> bool) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| is(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

fn is_trailers(coding: &[u8]) -> bool {
    fields::trim(coding).eq_ignore_ascii_case(b"trailers")
}

/// HTTP/2 splits cookies over several fields; HTTP/1 wants them in one (RFC 9113 section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.by_ref().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// The value of a cookie (RFC 6265 section 4.2.1): of the first one, where there are several.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get_all(header::COOKIE).iter().find_map(|value| {
        value.as_bytes().split(|byte| *byte == b';').find_map(|pair| {
            let pair = pair.trim_ascii();
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(value)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn connection_specific_fields_go_and_others_stay_in_order() {
        let mut headers = map(&[
            ("connection", "close, X-Mine"),
            ("connection", "x-other"),
            ("x-mine", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers;q=0.5"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
        ]);
        strip_hop_by_hop(&mut headers);
        let left = map(&[
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
        ]);
        assert_eq!(headers, left);
    }

    #[test]
    fn interim_responses_lose_what_is_for_one_connection() {
        let head = b"HTTP/1.0 103 Early Hints\r\nLink: </a>\r\nconnection: close, X-Mine\r\n\
                     X-Mine: 1\r\nKeep-Alive: 5\r\nContent-Length: 0\r\nLink: </b>\r\n\r\n";
        let passed = interim(head);
        assert_eq!(passed, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n");
        assert_eq!(interim(b"HTTP/1.1 102\r\n\r\n"), b"HTTP/1.1 102\r\n\r\n");
    }
}
