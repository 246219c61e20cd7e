//! gRPC where the proxy itself has a part in it: calls are told from other requests, their
//! deadlines are kept, and what goes wrong here is said in gRPC's form. Pure.
//!
//! Everything else of a call is HTTP/2: messages are chunks of a body, the status is a trailer.
//! The names are those of the protocol (`doc/PROTOCOL-HTTP2.md` of gRPC).
//!
//! Implements: REQ-EDGE-005

use std::{fmt::Write, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{error::Kind, response};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const CONTENT_TYPE: &[u8] = b"application/grpc";

/// Status codes that the proxy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The client left.
    Cancelled = 1,
    /// A status that has no code.
    Unknown = 2,
    /// The deadline has passed.
    DeadlineExceeded = 4,
    /// Not for this client.
    PermissionDenied = 7,
    /// More than is allowed.
    ResourceExhausted = 8,
    /// No such method, as far as the proxy knows.
    Unimplemented = 12,
    /// Something is broken, here or in the call.
    Internal = 13,
    /// No server answers, now.
    Unavailable = 14,
    /// No credentials, or wrong ones.
    Unauthenticated = 16,
}

/// Whether these are the fields of a call, or of its answer: not of gRPC-Web.
pub fn is_call(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    value.is_some_and(|value| {
        let Some((start, rest)) = value.split_at_checked(CONTENT_TYPE.len()) else { return false };
        start.eq_ignore_ascii_case(CONTENT_TYPE) && matches!(rest.first(), None | Some(b'+' | b';'))
    })
}

/// How long the client waits: at most eight digits and a unit. `None`: for ever, or nothing that
/// can be read.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The code for a fault. Where the protocol has a code for the HTTP status that others get
/// (`doc/http-grpc-status-mapping.md`) it is that one, but for limits, which are a status of
/// their own.
pub fn code(kind: Kind) -> Code {
    use Kind::*;
    match kind {
        ClientGone => Code::Cancelled,
        DeadlineExceeded | ResponseTimeout | ResponseBodyTimeout | RequestBodyTimeout => {
            Code::DeadlineExceeded
        }
        Forbidden(_) => Code::PermissionDenied,
        RateLimited | TooManyAtOnce | RequestBodyTooLarge | HeadTooLarge | UriTooLong => {
            Code::ResourceExhausted
        }
        NoRoute | NotImplemented(_) | MethodNotAllowed => Code::Unimplemented,
        Unauthorized | ProxyAuthRequired => Code::Unauthenticated,
        NoServer | Resolve | Connect | UpstreamTls | ConnectTimeout | PoolExhausted
        | Overloaded(_) | UpstreamClosed | BadResponse(_) | ResponseBodyBroken | Draining => {
            Code::Unavailable
        }
        Misdirected => Code::Unknown,
        BadRequest(_) | BadClientHello(_) | BadProxyHeader(_) | Handshake | HeadTimeout
        | VersionNotSupported | ExpectationFailed | Internal => Code::Internal,
    }
}

/// The fields that end a call with a fault: trailers, or with [`head`] a whole answer.
pub fn trailers(kind: Kind) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(3);
    fields.insert(GRPC_STATUS, HeaderValue::from(code(kind) as u16));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&response::text(kind))) {
        fields.insert(GRPC_MESSAGE, message);
    }
    fields
}

/// The head of an answer that is nothing but trailers.
pub fn head(kind: Kind) -> HeaderMap {
    let mut fields = trailers(kind);
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut all, byte| {
        match byte {
            b'%' | ..b' ' | 0x7f.. => {
                // A string takes all that is written.
                let _ = write!(all, "%{byte:02X}");
            }
            _ => all.push(char::from(byte)),
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        let value = HeaderValue::from_str(value).unwrap();
        [(HeaderName::from_static(name), value)].into_iter().collect()
    }

    #[test]
    fn calls_are_known_by_their_type() {
        for (of_type, call) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC; charset=utf-8", true),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_call(&with("content-type", of_type)), call, "{of_type}");
        }
    }

    #[test]
    fn timeouts_have_eight_digits_and_a_unit() {
        for (text, time) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("4u", Some(Duration::from_micros(4))),
            ("5n", Some(Duration::from_nanos(5))),
            ("123456789m", None),
            ("S", None),
            ("1", None),
            ("+1S", None),
            ("1 S", None),
            ("", None),
        ] {
            assert_eq!(timeout(&with("grpc-timeout", text)), time, "{text}");
        }
    }

    #[test]
    fn faults_are_told_in_one_field_each() {
        let fields = head(Kind::Overloaded("100% of\nit"));
        assert_eq!(fields["grpc-status"], "14");
        assert_eq!(fields["grpc-message"], "503 Service Unavailable: 100%25 of%0Ait");
        assert_eq!(trailers(Kind::NoRoute)["grpc-status"], "12");
    }
}
