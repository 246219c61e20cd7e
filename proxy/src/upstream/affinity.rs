//! What leads a request to the same server again: the key of a hash, and the cookie that
//! names a server.
//!
//! A cookie's value is a keyed hash of upstream and address (SipHash-2-4): it says nothing of
//! the address to whom does not know the secret, and a client that makes one up reaches no
//! server that it would not be sent to by chance.

use std::{fmt::Write as _, hash::Hasher, net::IpAddr};

use http::{HeaderMap, HeaderValue};
use siphasher::sip::{SipHasher13, SipHasher24};

use super::choose::hash;
use crate::{
    config::{Balance, Choice, HashBy, SameSite, Server, Sticky},
    headers::cookie,
};

/// What a request brings for the choice of its server. Made once per request, and costs
/// nothing where nothing goes by it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Key {
    /// Hash of what it is known by.
    pub(super) hash: Option<u64>,
    /// The server that its cookie names.
    pub(super) server: Option<u64>,
}

impl Key {
    /// Of a request.
    pub(super) fn of_request(
        choice: &Choice,
        headers: &HeaderMap,
        path: &str,
        client: IpAddr,
    ) -> Self {
        let hash = (choice.balance == Balance::Hash).then(|| {
            let found = hash_by(&choice.hash_by, headers, path, client);
            found.unwrap_or_else(|| of_client(client))
        });
        let named = choice.sticky.as_ref().and_then(|sticky| cookie(headers, &sticky.cookie));
        Self { hash, server: named.and_then(parse) }
    }

    /// Of a connection that is not looked into.
    pub(super) fn of_connection(choice: &Choice, client: IpAddr) -> Self {
        let hash = (choice.balance == Balance::Hash).then(|| of_client(client));
        Self { hash, server: None }
    }
}

/// Hash of what a request is known by; `None` where it does not have that.
pub fn hash_by(by: &HashBy, headers: &HeaderMap, path: &str, client: IpAddr) -> Option<u64> {
    match by {
        HashBy::Client => Some(of_client(client)),
        HashBy::Path => Some(hash::of(path.as_bytes())),
        HashBy::Header(name) => headers.get(name).map(|value| hash::of(value.as_bytes())),
        HashBy::Cookie(name) => cookie(headers, name).map(hash::of),
    }
}

/// Hash of a client's address.
pub fn of_client(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => hash::of(&address.octets()),
        IpAddr::V6(address) => hash::of(&address.octets()),
    }
}

fn parse(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() == 16)?;
    // `from_str_radix` alone would take a plus sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// What names a server in the cookie of an upstream.
pub(super) fn token(sticky: &Sticky, upstream: &str, server: &Server) -> u64 {
    let secret = sticky.secret.as_deref().unwrap_or_default();
    // 128 bits of key out of a text of any length.
    let half = |first: u8| {
        let mut hasher = SipHasher13::new();
        hasher.write_u8(first);
        hasher.write(secret.as_bytes());
        hasher.finish()
    };
    let mut hasher = SipHasher24::new_with_keys(half(0), half(1));
    hasher.write(upstream.as_bytes());
    hasher.write_u8(0);
    hasher.write(server.to_string().as_bytes());
    hasher.finish()
}

/// The field that gives a client the cookie of a server.
pub(super) fn set_cookie(sticky: &Sticky, token: u64) -> HeaderValue {
    let mut text = format!("{}={token:016x}; Path=/; HttpOnly", sticky.cookie);
    if sticky.secure {
        text.push_str("; Secure");
    }
    text.push_str(match sticky.same_site {
        SameSite::Strict => "; SameSite=Strict",
        SameSite::Lax => "; SameSite=Lax",
        SameSite::None => "; SameSite=None",
    });
    if let Some(time) = sticky.max_age {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "; Max-Age={}", time.as_secs().max(1));
    }
    // Made of a checked name and of plain ASCII: always valid.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn sticky() -> Sticky {
        Sticky {
            cookie: "SID".to_owned(),
            secret: None,
            secure: false,
            same_site: SameSite::Lax,
            max_age: None,
            while_draining: true,
        }
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let headers = headers(&[("cookie", "xSID=0; SIDx=1"), ("cookie", " a=b ;SID=2; SID=3")]);
        assert_eq!(cookie(&headers, "SID"), Some(&b"2"[..]));
        assert_eq!(cookie(&headers, "a"), Some(&b"b"[..]));
        assert_eq!(cookie(&headers, "SI"), None);
    }

    #[test]
    fn a_key_is_what_the_rule_goes_by_and_else_the_client() {
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let given = headers(&[("x-user", "ada"), ("cookie", "SID=ada")]);
        let key = |hash_by: HashBy, headers: &HeaderMap, client: IpAddr| {
            let choice = Choice { balance: Balance::Hash, hash_by, ..Choice::default() };
            Key::of_request(&choice, headers, "/path", client).hash
        };
        let header = || HashBy::Header(http::HeaderName::from_static("x-user"));
        let ada = Some(hash::of(b"ada"));
        assert_eq!(key(header(), &given, client), ada);
        assert_eq!(key(HashBy::Cookie("SID".to_owned()), &given, client), ada);
        assert_eq!(key(HashBy::Path, &given, client), Some(hash::of(b"/path")));
        let by_client = key(HashBy::Client, &given, client);
        assert_eq!(key(header(), &HeaderMap::new(), client), by_client);
        assert_eq!(key(HashBy::Client, &given, "::ffff:192.0.2.1".parse().unwrap()), by_client);
        assert_ne!(key(HashBy::Client, &given, "192.0.2.2".parse().unwrap()), by_client);
        let other = Key::of_request(&Choice::default(), &given, "/path", client);
        assert_eq!((other.hash, other.server), (None, None));
    }

    #[test]
    fn only_a_whole_token_names_a_server() {
        let choice = Choice { sticky: Some(sticky()), ..Choice::default() };
        let named = |value: &'static str| {
            let headers = headers(&[("cookie", value)]);
            Key::of_request(&choice, &headers, "/", "192.0.2.1".parse().unwrap()).server
        };
        assert_eq!(named("SID=00000000000000ff"), Some(255));
        for bad in ["SID=", "SID=ff", "SID=+0000000000000ff", "SID=00000000000000fg", "x=1"] {
            assert_eq!(named(bad), None, "{bad}");
        }
    }

    #[test]
    fn tokens_differ_by_server_upstream_and_secret() {
        let secret = |text: &str| Sticky { secret: Some(text.to_owned()), ..sticky() };
        let server = |text: &str| crate::config::value::server(text).unwrap();
        let tokens = [
            token(&sticky(), "u", &server("a:1")),
            token(&sticky(), "u", &server("a:2")),
            token(&sticky(), "v", &server("a:1")),
            token(&secret("one"), "u", &server("a:1")),
            token(&secret("two"), "u", &server("a:1")),
        ];
        for (at, one) in tokens.iter().enumerate() {
            assert!(!tokens[..at].contains(one), "{tokens:x?}");
        }
        assert_eq!(tokens[0], token(&sticky(), "u", &server("a:1")), "and are always the same");
    }

    #[test]
    fn a_cookie_is_for_this_site_and_not_for_scripts() {
        assert_eq!(
            set_cookie(&sticky(), 255),
            "SID=00000000000000ff; Path=/; HttpOnly; SameSite=Lax"
        );
        let all = Sticky {
            secure: true,
            same_site: SameSite::None,
            max_age: Some(std::time::Duration::from_secs(60)),
            ..sticky()
        };
        let wanted = "SID=0000000000000001; Path=/; HttpOnly; Secure; SameSite=None; Max-Age=60";
        assert_eq!(set_cookie(&all, 1), wanted);
    }
}
