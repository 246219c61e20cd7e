//! One test, several ways: downstream versions and splice engines by parameter.
//!
//! `over_versions!(name)` beside `async fn name(version: Version)` makes the tests
//! `name::h1` and `name::h2`; `over_engines!` likewise. A requirement's test keeps its name
//! this way, and a failure says which way failed.

use std::fmt;

/// HTTP version that the client speaks to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1
    H1,
    /// HTTP/2 with prior knowledge (RFC 9113 3.3)
    H2,
}

/// Value of `--splice`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// splice(2) through a pipe.
    Pipe,
    /// read and write; the oracle of the others.
    Copy,
    /// The proxy's own choice.
    Auto,
}

impl Engine {
    /// As the command line spells it.
    pub fn flag(self) -> &'static str {
        match self {
            Engine::Pipe => "pipe",
            Engine::Copy => "copy",
            Engine::Auto => "auto",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.flag())
    }
}

/// Makes `name::h1` and `name::h2` of `async fn name(Version)`.
#[macro_export]
macro_rules! over_versions {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test]
            async fn h1() {
                super::$name($crate::Version::H1).await
            }
            #[tokio::test]
            async fn h2() {
                super::$name($crate::Version::H2).await
            }
        }
    )+};
}

/// Makes `name::pipe`, `name::copy` and `name::auto` of `async fn name(Engine)`.
#[macro_export]
macro_rules! over_engines {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test]
            async fn pipe() {
                super::$name($crate::Engine::Pipe).await
            }
            #[tokio::test]
            async fn copy() {
                super::$name($crate::Engine::Copy).await
            }
            #[tokio::test]
            async fn auto() {
                super::$name($crate::Engine::Auto).await
            }
        }
    )+};
}
