//! Handshakes with clients, by listener.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    Named,
    cells::{ListenerCells, ListenerMetrics},
    export::{counter, sum},
};

/// Why there was no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It took too long, its turn included.
    Timeout,
    /// The client left, or its connection broke.
    ClientGone,
    /// What came is not TLS: plain HTTP, as a rule.
    NotTls,
    /// No version, cipher suite or protocol in common.
    Incompatible,
    /// The client showed no certificate, or one that does not hold.
    ClientCertificate,
    /// The client did not like what it was shown: a certificate that it does not trust.
    Alert,
    /// What came breaks TLS.
    Protocol,
    /// The certificate for the name is being ordered yet.
    NoCertificate,
}

impl HandshakeFailure {
    /// All of them, each at its own index.
    pub const ALL: [Self; 8] = [
        Self::Timeout,
        Self::ClientGone,
        Self::NotTls,
        Self::Incompatible,
        Self::ClientCertificate,
        Self::Alert,
        Self::Protocol,
        Self::NoCertificate,
    ];

    /// For labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ClientGone => "client_gone",
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::ClientCertificate => "client_certificate",
            Self::Alert => "alert",
            Self::Protocol => "protocol",
            Self::NoCertificate => "no_certificate",
        }
    }
}

/// The versions that are spoken, each at its own index.
const VERSIONS: [&str; 2] = ["1.2", "1.3"];
const KINDS: [&str; 2] = ["full", "resumed"];

/// Of one listener at one worker.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// By version, full and resumed.
    handshakes: [[AtomicU64; KINDS.len()]; VERSIONS.len()],
    failures: [AtomicU64; HandshakeFailure::ALL.len()],
}

impl ListenerMetrics {
    /// A handshake is complete.
    pub fn handshake(&self, version: &str, resumed: bool) {
        let at = VERSIONS.iter().position(|known| *known == version).unwrap_or(1);
        self.tls().handshakes[at][usize::from(resumed)].fetch_add(1, Relaxed);
    }

    /// A handshake came to nothing.
    pub fn handshake_failed(&self, why: HandshakeFailure) {
        self.tls().failures[why as usize].fetch_add(1, Relaxed);
    }
}

pub(super) fn encode(out: &mut DescriptorEncoder<'_>, all: &Named<ListenerCells>) -> fmt::Result {
    let help = "Handshakes with clients that are complete, by version and kind";
    counter(out, "tls_handshakes", help, None, |one| {
        all.iter().try_for_each(|(listener, workers)| {
            VERSIONS.iter().enumerate().try_for_each(|(at, version)| {
                KINDS.iter().enumerate().try_for_each(|(kind, name)| {
                    let count = sum(workers.values().map(|c| &c.tls.handshakes[at][kind]));
                    one(&[("listener", &**listener), ("version", version), ("kind", name)], count)
                })
            })
        })
    })?;
    let help = "Handshakes with clients that came to nothing, by cause";
    counter(out, "tls_handshake_failures", help, None, |one| {
        all.iter().try_for_each(|(listener, workers)| {
            HandshakeFailure::ALL.iter().try_for_each(|why| {
                let count = sum(workers.values().map(|c| &c.tls.failures[*why as usize]));
                one(&[("listener", &**listener), ("cause", why.name())], count)
            })
        })
    })
}
