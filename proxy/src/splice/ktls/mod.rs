//! TLS in the kernel (kTLS): a session's keys are given to its socket, which from then on takes
//! and gives what is inside the records (Linux 4.13 to send, 4.17 to receive).
//!
//! What is used here of it is software: the kernel encrypts on the processor that sends. It is
//! worth having because splice(2) then moves the bytes of a tunnel that is inside TLS
//! (`tls_end.rs`). Such a socket is never in a sockmap: the kernel refuses one of both.
//!
//! There is no way back. The kernel does not give up its keys before the socket is closed, so
//! what it cannot do has to be refused before (`Ktls`, `Suite`), and what comes and it cannot
//! follow ends the tunnel (`control.rs`): above all a KeyUpdate, for which Linux has no call before
//! 6.14 and rustls no secret to derive the next key from once it has given up the session. Nor are
//! the keys of our own side changed: RFC 8446 section 5.5 has AES-GCM do so after 2^24.5 full
//! records (some 380 GiB), and nothing else that sends by kTLS does.
//!
//! Not by a crate: what `ktls` does with a session of TLS 1.2 is to have the kernel begin with the
//! explicit nonce that the session began with (see `keys.rs`).
//!
//! Implements: REQ-EDGE-006

mod control;
mod keys;
mod state;
pub(super) mod sys;

pub(super) use keys::{Info, Keys};
pub(super) use state::InKernel;

use rustls::{CipherSuite, Connection, ProtocolVersion};

use super::why::Why;

/// Versions of TLS that the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// Ciphers that both the kernel and rustls have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

/// What the kernel is told the keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(super) version: Version,
    pub(super) cipher: Cipher,
}

impl Suite {
    /// All of them.
    pub(super) const ALL: [Self; 6] = {
        use {Cipher::*, Version::*};
        [
            Self { version: Tls13, cipher: Aes128Gcm },
            Self { version: Tls13, cipher: Aes256Gcm },
            Self { version: Tls13, cipher: Chacha20Poly1305 },
            Self { version: Tls12, cipher: Aes128Gcm },
            Self { version: Tls12, cipher: Aes256Gcm },
            Self { version: Tls12, cipher: Chacha20Poly1305 },
        ]
    };

    /// What a session has agreed on, if that is one of them.
    fn of(session: &Connection) -> Option<Self> {
        use CipherSuite::*;
        let cipher = match session.negotiated_cipher_suite()?.suite() {
            TLS13_AES_128_GCM_SHA256
            | TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Cipher::Aes128Gcm,
            TLS13_AES_256_GCM_SHA384
            | TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Cipher::Aes256Gcm,
            TLS13_CHACHA20_POLY1305_SHA256
            | TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Cipher::Chacha20Poly1305,
            _ => return None,
        };
        let version = match session.protocol_version()? {
            ProtocolVersion::TLSv1_3 => Version::Tls13,
            ProtocolVersion::TLSv1_2 => Version::Tls12,
            _ => return None,
        };
        Some(Self { version, cipher })
    }

    /// Bytes that a record is longer than what is in it: head, tag, and the explicit nonce of TLS
    /// 1.2 (RFC 5288 section 3) or the type that TLS 1.3 hides.
    pub(super) fn overhead(self) -> u64 {
        5 + 16
            + match (self.version, self.cipher) {
                (Version::Tls13, _) => 1,
                (Version::Tls12, Cipher::Chacha20Poly1305) => 0,
                (Version::Tls12, _) => 8,
            }
    }

    /// As much of these bytes as its keys are long.
    pub(super) fn key(self, bytes: &[u8; 32]) -> &[u8] {
        if self.cipher == Cipher::Aes128Gcm { &bytes[..16] } else { bytes }
    }

    fn bit(self) -> u8 {
        let at = Self::ALL.iter().position(|known| *known == self);
        1 << at.expect("all of them are there")
    }
}

/// Which suites the kernel is given keys for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ktls {
    suites: u8,
    why: Why,
}

impl Ktls {
    /// None, for this reason.
    pub fn none(why: Why) -> Self {
        Self { suites: 0, why }
    }

    /// These.
    pub(super) fn of(suites: impl IntoIterator<Item = Suite>) -> Self {
        let suites = suites.into_iter().fold(0, |all, suite| all | suite.bit());
        Self { suites, why: Why::TlsSuite }
    }

    /// Whether it is one of them.
    pub(super) fn takes(self, suite: Suite) -> bool {
        self.suites & suite.bit() != 0
    }

    /// Whether the kernel can have this session.
    pub(super) fn suits(self, session: &Connection) -> Result<Suite, Why> {
        Suite::of(session).filter(|suite| self.takes(*suite)).ok_or(self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_taken_or_not_by_itself() {
        let one = Ktls::of([Suite::ALL[4]]);
        for suite in Suite::ALL {
            assert!(Ktls::of(Suite::ALL).takes(suite));
            assert_eq!(one.takes(suite), suite == Suite::ALL[4]);
            assert!(!Ktls::none(Why::TlsOff).takes(suite));
        }
    }
}
