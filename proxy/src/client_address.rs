//! Who the client of a request is, where trusted proxies in front tell of it in a field.
//!
//! Each proxy adds the address that it saw to the end of a list. From the end on, addresses of
//! trusted proxies are believed to have told the truth of the one before them; the first that
//! is not trusted is the client. Whatever stands before it, the client may have made up: so a
//! list is read from its end, and no quote that a client opens reaches what a proxy appends.
//!
//! Source: RFC 7239 section 8.1, for `Forwarded` and the customary `X-Forwarded-For` alike.
//! Pure.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, header};

use crate::{config::TrustedProxies, wire::fields};

/// The client of a request that came from `peer`, as far as that can be believed. With port 0
/// where a field tells of it: those seldom have one.
pub fn of(headers: &HeaderMap, trusted: &TrustedProxies, peer: SocketAddr) -> SocketAddr {
    if !trusted.has(peer.ip()) {
        return peer;
    }
    let mut client = peer;
    for value in headers.get_all(&trusted.field).iter().rev() {
        let value = value.as_bytes();
        let is_over = match trusted.field {
            header::FORWARDED => {
                let mut elements = fields::quoted_list_from_end(value).map(forwarded);
                elements.any(|ip| !go_back(&mut client, ip, trusted))
            }
            // No other has quoted strings.
            _ => {
                let mut elements = fields::list(value).rev().map(address);
                elements.any(|ip| !go_back(&mut client, ip, trusted))
            }
        };
        if is_over {
            break;
        }
    }
    client
}

/// Goes to the one before `client`, as an element tells of it. Whether what it tells in turn
/// counts.
fn go_back(client: &mut SocketAddr, told: Option<IpAddr>, trusted: &TrustedProxies) -> bool {
    // Not an address, or one that somebody hides: nobody before it is known.
    let Some(ip) = told else { return false };
    *client = SocketAddr::new(ip, 0);
    trusted.has(ip)
}

/// The pairs of an element; a semicolon within quotes does not end one (RFC 9110 section 5.6.4).
fn pairs(element: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    element.split(move |byte| {
        let separates = *byte == b';' && !quoted;
        match *byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        separates
    })
}

/// The node that `for` of an element of `Forwarded` names (RFC 7239 section 6).
fn forwarded(element: &[u8]) -> Option<IpAddr> {
    let mut named = pairs(element).filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let name = fields::trim(&pair[..at]);
        name.eq_ignore_ascii_case(b"for").then_some(fields::trim(&pair[at + 1..]))
    });
    let node = named.next()?;
    if named.next().is_some() {
        return None;
    }
    match node {
        [b'"', node @ .., b'"'] => address(node),
        node => address(node),
    }
}

/// An address, with or without brackets and port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let ip = text.parse::<IpAddr>().ok();
    let ip = ip.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    Some(ip.or_else(bracketed)?.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn seen(field: &str, values: &[&str], peer: &str) -> String {
        let trusted = TrustedProxies {
            networks: ["10.0.0.0/8", "2001:db8:7::/64"].map(|net| net.parse().unwrap()).to_vec(),
            field: HeaderName::from_bytes(field.as_bytes()).unwrap(),
        };
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&trusted.field, HeaderValue::from_str(value).unwrap());
        }
        of(&headers, &trusted, peer.parse().unwrap()).to_string()
    }

    #[test]
    fn the_last_address_that_is_not_trusted_is_the_client() {
        let cases: &[(&[&str], &str)] = &[
            (&[], "10.0.0.1:7"),
            (&["203.0.113.7"], "203.0.113.7:0"),
            // The client may write what it likes; the proxy adds to it.
            (&["6.6.6.6, 203.0.113.7"], "203.0.113.7:0"),
            (&["6.6.6.6", "203.0.113.7"], "203.0.113.7:0"),
            (&["6.6.6.6", "203.0.113.7, 10.0.0.2"], "203.0.113.7:0"),
            (&["203.0.113.7, 10.0.0.2", "10.0.0.3"], "203.0.113.7:0"),
            // All are ours: the one that is the farthest away.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3:0"),
            // What is no address hides all before it.
            (&["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2:0"),
            (&["203.0.113.7, unknown"], "10.0.0.1:7"),
            (&["203.0.113.7, 10.0.0.2.1"], "10.0.0.1:7"),
            (&["203.0.113.7,, ,"], "203.0.113.7:0"),
            (&["203.0.113.7:5060"], "203.0.113.7:0"),
            (&["2001:db8::1"], "[2001:db8::1]:0"),
            (&["[2001:db8::1]:443"], "[2001:db8::1]:0"),
            (&["[2001:db8::1], 2001:db8:7::9"], "[2001:db8::1]:0"),
            (&["::ffff:203.0.113.7"], "203.0.113.7:0"),
        ];
        for (values, client) in cases {
            assert_eq!(seen("x-forwarded-for", values, "10.0.0.1:7"), *client, "{values:?}");
        }
        // Whoever is not trusted is the client, whatever it says.
        assert_eq!(seen("x-forwarded-for", &["203.0.113.7"], "192.0.2.1:7"), "192.0.2.1:7");
        // A proxy on an address that stands for an IPv4 one.
        let mapped = "[::ffff:10.0.0.1]:7";
        assert_eq!(seen("x-forwarded-for", &["203.0.113.7"], mapped), "203.0.113.7:0");
        assert_eq!(seen("cf-connecting-ip", &["203.0.113.7"], "10.0.0.1:7"), "203.0.113.7:0");
    }

    #[test]
    fn no_quote_of_a_client_reaches_what_a_proxy_appends() {
        let cases: &[&[&str]] = &[
            &["\", 203.0.113.9"],
            &["\"6.6.6.6\", \"6.6.6.6, 203.0.113.9"],
            &["\\, 203.0.113.9"],
            &["\"", "203.0.113.9, 10.0.0.2"],
            &["\"", "203.0.113.9, 10.0.0.2", "10.0.0.3"],
        ];
        for values in cases {
            assert_eq!(seen("x-forwarded-for", values, "10.0.0.1:7"), "203.0.113.9:0");
        }
        let claims = [
            "for=10.1.1.1;x=\"",
            "for=10.1.1.1;x=\"\\",
            "for=10.1.1.1;x=\"a\\\"",
            "for=10.1.1.1;x=a\"\"\"",
            "for=10.1.1.1, \"",
            "for=10.1.1.1\\",
        ];
        let elements = [
            "for=203.0.113.9;proto=https",
            "for=\"203.0.113.9:80\"",
            // Of what a proxy quotes the client may have written something as well.
            "for=203.0.113.9;host=\"a, for=6.6.6.6\"",
            "for=203.0.113.9;host=\"\\\"\\\\, for=6.6.6.6;x=\"",
            "for=203.0.113.9;host=\"a\\\", for=6.6.6.6;x=\\\"\"",
            "for=203.0.113.9;host=\";x=\", for=10.0.0.2;host=\",for=6.6.6.6\"",
        ];
        for (claim, element) in claims.iter().flat_map(|claim| elements.map(|it| (claim, it))) {
            for values in [&[format!("{claim}, {element}")][..], &[(*claim).into(), element.into()]]
            {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                assert_eq!(seen("forwarded", &values, "10.0.0.1:7"), "203.0.113.9:0", "{values:?}");
            }
        }
    }

    #[test]
    fn forwarded_names_it_with_for() {
        let cases: &[(&[&str], &str)] = &[
            (&["for=203.0.113.7"], "203.0.113.7:0"),
            (&["proto=https;For=\"203.0.113.7:80\";by=10.0.0.1"], "203.0.113.7:0"),
            (&["for=\"[2001:db8::1]:443\", for=10.0.0.9"], "[2001:db8::1]:0"),
            (&["for=6.6.6.6", "for=203.0.113.7;host=\"a, for=10.0.0.2\""], "203.0.113.7:0"),
            (&["for=203.0.113.7;host=\"\\\", for=6.6.6.6\""], "203.0.113.7:0"),
            (&["for=203.0.113.7, for=_hidden"], "10.0.0.1:7"),
            (&["for=203.0.113.7;for=6.6.6.6"], "10.0.0.1:7"),
            (&["203.0.113.7"], "10.0.0.1:7"),
            (&["proto=https"], "10.0.0.1:7"),
        ];
        for (values, client) in cases {
            assert_eq!(seen("forwarded", values, "10.0.0.1:7"), *client, "{values:?}");
        }
    }
}
