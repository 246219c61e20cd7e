//! TLS towards clients: what a listener shows them, and what is known of a handshake.
//!
//! Settings are read in `config/tls/`; here are the files they name ([`certificate`]), the
//! choice among them ([`choose`]), and what rustls is told of all that ([`live`]), which is
//! made anew when a file changes while everything else goes on. The handshake itself is a
//! step of a connection (`connection/tls.rs`).
//!
//! One provider of cryptography serves the process: aws-lc-rs, which is here for tokens
//! already, and has the fastest signatures of those that rustls knows.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::HeaderName;

use crate::acme::Names;

pub mod certificate;
pub mod choose;
mod followed;
pub mod live;
pub mod session;
mod subject;
pub mod suites;
mod tickets;

pub use followed::{Followed, Record};
pub use live::Live;
pub use session::Session;
pub(crate) use session::without_dot;

/// Seconds between two lines of the log about clients for whom there is no certificate.
const EVERY: u64 = 60;

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientAuth {
    /// They are not asked.
    Off,
    /// They are asked, and need not have one; one that does not hold ends the handshake.
    Request,
    /// There is no connection without.
    Require,
}

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// The files of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and those between it and a root: PEM.
    pub certificate: PathBuf,
    /// Its private key: PEM.
    pub key: PathBuf,
    /// An OCSP response to be stapled: DER.
    pub staple: Option<PathBuf>,
    /// What it is for, where it is ordered by ACME: then the file of certificate and key is one,
    /// and may not be there yet.
    pub ordered: Option<Names>,
}

/// What a listener was told of TLS.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Name of the listener, which has tickets of its own.
    pub listener: String,
    /// At least one.
    pub certificates: Vec<Files>,
    /// The one that is shown where no name fits.
    pub default: usize,
    /// The oldest version.
    pub min_version: MinVersion,
    /// Those that may be used.
    pub cipher_suites: Vec<rustls::CipherSuite>,
    /// Protocols offered, in the order of preference.
    pub alpn: Vec<String>,
    /// Whether clients are asked for a certificate.
    pub client_auth: ClientAuth,
    /// Who has to have signed it: PEM.
    pub client_ca: Option<PathBuf>,
    /// The field that tells the server of its subject.
    pub client_subject_header: Option<HeaderName>,
    /// From the first byte to the end of the handshake.
    pub handshake_timeout: Duration,
    /// Handshakes that a worker computes before its other connections have their turn; `None`: any
    /// number.
    pub max_handshakes: Option<usize>,
}

/// TLS of one listener: its settings, and what its files held last.
pub struct Tls {
    /// As configured.
    pub settings: Settings,
    live: ArcSwap<Live>,
    /// When a client was turned away last for want of a certificate and the log told, in seconds
    /// since the process began.
    told: AtomicU64,
}

impl Tls {
    /// Settings with what their files held.
    pub fn new(settings: Settings, live: Live) -> Self {
        Self { settings, live: ArcSwap::from_pointee(live), told: AtomicU64::new(0) }
    }

    /// What the next handshake goes by.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// The files hold something else; handshakes from now on go by it.
    pub fn replace(&self, live: Live) {
        self.live.store(Arc::new(live));
    }

    /// Whether the log is to say that there is no certificate for somebody: once a minute.
    pub fn tells_of_missing(&self) -> bool {
        static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        // The first second is not zero.
        let now = BEGIN.elapsed().as_secs() + EVERY;
        let told = self.told.load(Relaxed);
        now - told >= EVERY && self.told.compare_exchange(told, now, Relaxed, Relaxed).is_ok()
    }
}

/// Paths only: what the files held has keys in it.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("settings", &self.settings).finish_non_exhaustive()
    }
}
