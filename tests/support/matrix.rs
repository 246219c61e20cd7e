//! One test, several ways: downstream versions and splice engines by parameter.
//!
//! `over_versions!(name)` beside `async fn name(version: Version)` makes the tests
//! `name::h1` and `name::h2`; `over_engines!` likewise. A requirement's test keeps its name
//! this way, and a failure says which way failed.
//!
//! `over_engines!` is for what every machine can run; `over_all_engines!` adds the kernel's
//! engines, which need privilege, and says where it skips one ([`engine::ready`]).
//!
//! [`engine::ready`]: crate::engine::ready

use std::fmt;

/// HTTP version that the client speaks to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1
    H1,
    /// HTTP/2 with prior knowledge (RFC 9113 3.3)
    H2,
}

/// Value of `--splice`, and whether local applications are enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// splice(2) through a pipe.
    Pipe,
    /// read and write; the oracle of the others.
    Copy,
    /// The proxy's own choice.
    Auto,
    /// In the kernel, touching the proxy's own sockets only.
    Kernel,
    /// In the kernel, past the proxy where a peer is an application on this host.
    Bypass,
}

impl Engine {
    /// All of them, the oracle first.
    pub const ALL: [Engine; 5] =
        [Engine::Copy, Engine::Pipe, Engine::Auto, Engine::Kernel, Engine::Bypass];

    /// The value of `--splice`.
    pub fn flag(self) -> &'static str {
        match self {
            Engine::Pipe => "pipe",
            Engine::Copy => "copy",
            Engine::Auto => "auto",
            Engine::Kernel | Engine::Bypass => "kernel",
        }
    }

    /// All that the command line says about it.
    pub fn args(self) -> Vec<&'static str> {
        let local: &[&str] = if self == Engine::Bypass { &["--local-bypass"] } else { &[] };
        [&["--splice", self.flag()], local].concat()
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Bypass => "bypass",
            engine => engine.flag(),
        })
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

/// Makes `name::copy`, `name::pipe`, `name::auto`, `name::kernel` and `name::bypass` of
/// `async fn name(Engine)`. Tasks run on two threads, so that peers are truly at work at the
/// same time. An engine that this machine lacks is skipped, and says so.
#[macro_export]
macro_rules! over_all_engines {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            $crate::over_all_engines! {
                @one $name copy Copy, pipe Pipe, auto Auto, kernel Kernel, bypass Bypass
            }
        }
    )+};
    (@one $name:ident $($test:ident $engine:ident),+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            if $crate::engine::ready($crate::Engine::$engine) {
                super::$name($crate::Engine::$engine).await
            }
        }
    )+};
}
