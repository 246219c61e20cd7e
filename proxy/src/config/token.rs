//! The token that the admin endpoint asks for before it changes anything.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::authenticate;

use super::errors::Wrong;

/// Shorter ones can be guessed.
const SHORTEST: usize = 16;

/// Names the token where there is no file.
pub(super) const VARIABLE: &str = "UNDERPASS_ADMIN_TOKEN";

/// A token, and the file that it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: Box<[u8]>,
    /// Where it was read; `None`: in the environment.
    pub file: Option<PathBuf>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Token {
    /// Takes it from a file, which `read` reads: its only line.
    pub(super) fn from_file(
        path: &str,
        read: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Self, Wrong> {
        let text = read(Path::new(path)).map_err(|error| {
            let what = format!("the token in `{path}` cannot be read: {error}");
            Wrong::new(what, "name a readable file that holds the token")
        })?;
        Self::new(text.trim_end(), Some(path.into()))
    }

    /// Takes it from the environment, if it is there.
    pub(super) fn from_environment(
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Wrong> {
        environment(VARIABLE).map(|text| Self::new(&text, None)).transpose()
    }

    fn new(text: &str, file: Option<PathBuf>) -> Result<Self, Wrong> {
        // RFC 6750 section 2.1: what a client can send as a bearer token.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if text.len() < SHORTEST || !text.bytes().all(plain) {
            return Err(Wrong::new(
                "the token is too short or has characters that no token has",
                format!("make one of at least {SHORTEST} letters and digits: openssl rand -hex 32"),
            ));
        }
        Ok(Self { secret: text.as_bytes().into(), file })
    }

    /// Whether `given` is it, in a time that does not tell how much of it was right.
    pub fn is(&self, given: &[u8]) -> bool {
        authenticate::same(&self.secret, given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_it() {
        let token = Token::new("0123456789abcdef", None).unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeF", "x"] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
        assert!(!format!("{token:?}").contains("0123"));
        for bad in ["short", "0123456789 abcdef", "0123456789abcdef\u{e9}"] {
            Token::new(bad, None).unwrap_err();
        }
    }
}
