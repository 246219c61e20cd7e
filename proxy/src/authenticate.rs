//! Credentials of the scheme Basic (RFC 7617, RFC 9110 section 11), and how secrets are
//! compared. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;

/// Whether `credentials` (the value of `Proxy-Authorization`) belong to one of `users`
/// (`name:password`). Nobody is asked where there are no users.
pub fn admits(users: &[String], credentials: Option<&HeaderValue>) -> bool {
    if users.is_empty() {
        return true;
    }
    let Some(given) = credentials.and_then(basic) else {
        return false;
    };
    // All are compared, each in a time that does not tell how much of it was right.
    users.iter().fold(false, |found, user| found | same(user.as_bytes(), &given))
}

/// `name:password`, where a value of `Authorization` or `Proxy-Authorization` is of this scheme.
pub fn basic(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, token) = value.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    STANDARD.decode(crate::wire::fields::trim(token)).ok()
}

/// Whether two are the same, in a time that does not tell how much of them is.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(differing) == 0 && a.len() == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_credentials_are_admitted() {
        let users = ["ada:s3cret:x".to_owned(), "bob:pw".to_owned()];
        let value = |text: &str| {
            HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text))).unwrap()
        };
        assert!(admits(&users, Some(&value("ada:s3cret:x"))));
        assert!(admits(&users, Some(&value("bob:pw"))));
        assert!(admits(&[], None));
        for wrong in ["ada:s3cret", "ada:", "bob:pw2", "eve:pw", ""] {
            assert!(!admits(&users, Some(&value(wrong))), "{wrong}");
        }
        assert!(!admits(&users, None));
        assert!(!admits(&users, Some(&HeaderValue::from_static("Bearer x"))));
        assert!(!admits(&users, Some(&HeaderValue::from_static("Basic !!"))));
    }
}
