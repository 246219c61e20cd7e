//! The opening of a WebSocket in the two forms that it has: an Upgrade over HTTP/1.1 (RFC 6455
//! section 4), and a CONNECT with `:protocol` over HTTP/2 (RFC 8441 section 5). Pure.
//!
//! Over HTTP/1.1 the two sides prove to each other by `Sec-WebSocket-Key` and
//! `Sec-WebSocket-Accept` that nobody between them took the request for another; over HTTP/2
//! `:protocol` says it. So whoever stands between the two makes the one and checks the other.

use http::{HeaderMap, HeaderValue, Method, Request, header};
use hyper::ext::Protocol;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::fields;

/// Its name, in `Upgrade` and in `:protocol`.
const NAME: &str = "websocket";

/// Whether a list of protocols names this one alone.
pub fn is_named(protocols: &HeaderValue) -> bool {
    let mut names = fields::list(protocols.as_bytes());
    names.next().is_some_and(|name| name.eq_ignore_ascii_case(NAME.as_bytes()))
        && names.next().is_none()
}

/// Makes a CONNECT of HTTP/2 for a WebSocket the GET that it is over HTTP/1.1, without the fields
/// of that. False: it is for another protocol, and left as it is.
pub fn into_get<B>(request: &mut Request<B>, protocol: &Protocol) -> bool {
    let is_known = protocol.as_str().eq_ignore_ascii_case(NAME);
    if is_known {
        *request.method_mut() = Method::GET;
    }
    is_known
}

/// Gives such a request the fields that a server of HTTP/1.1 wants to see. What its client wrote
/// in their place says nothing (RFC 8441 section 5).
pub fn ask_upgrade(headers: &mut HeaderMap) {
    headers.insert(header::UPGRADE, HeaderValue::from_static(NAME));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    // Base64 is always valid.
    if let Ok(key) = HeaderValue::try_from(generate_key()) {
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
}

/// Makes the request a CONNECT; the rest of it is still to become one of HTTP/2.
pub fn into_connect<B>(request: &mut Request<B>) {
    *request.method_mut() = Method::CONNECT;
    request.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
}

/// What goes with a request that may become such a CONNECT.
pub fn protocol() -> Protocol {
    Protocol::from_static(NAME)
}

/// The answer to a key. `None`: it is none, which is 16 bytes in base64 (RFC 6455 section 4.1).
pub fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let digits = key.as_bytes().strip_suffix(b"==")?;
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if digits.len() != 22 || !digits.iter().all(is_digit) {
        return None;
    }
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::try_from(text).unwrap()
    }

    #[test]
    fn keys_are_answered_and_nothing_else() {
        // RFC 6455 section 1.3.
        let answer = accept(&value("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(answer.unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for wrong in ["", "==", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j_Q==", "AAAA=="] {
            assert_eq!(accept(&value(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn it_is_named_alone_or_not_at_all() {
        for (protocols, is) in [
            ("websocket", true),
            ("WebSocket", true),
            ("websocket, echo", false),
            ("echo", false),
            ("", false),
        ] {
            assert_eq!(is_named(&value(protocols)), is, "{protocols}");
        }
    }

    #[test]
    fn a_connect_becomes_an_upgrade_and_the_other_way() {
        let head = Request::builder().method("CONNECT").uri("https://a.test/chat");
        let mut request = head.header("sec-websocket-key", "mine").body(()).unwrap();
        assert!(!into_get(&mut request, &Protocol::from_static("connect-udp")));
        assert_eq!(request.method(), "CONNECT");
        assert!(into_get(&mut request, &Protocol::from_static("WebSocket")));
        ask_upgrade(request.headers_mut());
        assert_eq!(request.method(), "GET");
        assert_eq!(request.headers()["upgrade"], "websocket");
        assert!(accept(&request.headers()["sec-websocket-key"]).is_some());
        let first = request.headers()["sec-websocket-key"].clone();
        ask_upgrade(request.headers_mut());
        assert_ne!(request.headers()["sec-websocket-key"], first, "no two are the same");
        into_connect(&mut request);
        assert_eq!(request.method(), "CONNECT");
        assert!(!request.headers().contains_key("sec-websocket-key"));
    }
}
