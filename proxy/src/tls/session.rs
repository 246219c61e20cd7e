//! What a handshake has settled, as requests and logs need it.

use std::sync::Arc;

use http::HeaderValue;
use rustls::{HandshakeKind, ServerConnection};

use super::{Live, Settings, subject, suites};

/// One connection's session.
#[derive(Debug)]
pub struct Session {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// By IANA's name.
    pub cipher: &'static str,
    /// The name that the client asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// Whether it went on from an earlier one.
    pub resumed: bool,
    /// Of the client's certificate, where that is wanted and there is one.
    pub subject: Option<HeaderValue>,
    /// Clients are known by their certificates here.
    strict: bool,
    live: Option<Arc<Live>>,
}

impl Session {
    /// After a handshake.
    pub fn new(connection: &ServerConnection, settings: &Settings, live: Arc<Live>) -> Self {
        let wanted = settings.client_subject_header.is_some();
        let shown = connection.peer_certificates().filter(|_| wanted);
        Self {
            version: connection.protocol_version().map_or("-", suites::version),
            cipher: connection
                .negotiated_cipher_suite()
                .map_or("-", |suite| suites::name(suite.suite())),
            server_name: connection.server_name().map(|name| without_dot(name).into()),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            subject: shown.and_then(|chain| subject::of(chain.first()?)),
            strict: settings.client_ca.is_some(),
            live: Some(live),
        }
    }

    /// Of a connection that is taken apart (`connection/intercept.rs`), whose requests are held to
    /// the host that was connected to.
    pub fn inside(connection: &ServerConnection) -> Self {
        Self {
            version: connection.protocol_version().map_or("-", suites::version),
            cipher: connection
                .negotiated_cipher_suite()
                .map_or("-", |suite| suites::name(suite.suite())),
            server_name: connection.server_name().map(|name| without_dot(name).into()),
            resumed: false,
            subject: None,
            strict: false,
            live: None,
        }
    }

    /// Whether a request for `host` may come by it (RFC 9110 section 15.5.20).
    ///
    /// It may where the name of the handshake is that host, or where the certificate that was
    /// shown is for it, too: clients use one connection for all its names (RFC 9113 section
    /// 9.1.1). Without a name in the handshake there is nothing to disagree with. Where
    /// clients are known by their certificates they get no further than the name they gave, or
    /// without one than what the default certificate is for.
    pub fn permits(&self, host: &str) -> bool {
        let Some(live) = &self.live else { return true };
        let host = without_dot(host);
        let covered = |name: Option<&str>, host: &str| {
            live.chooser.for_name(name).is_some_and(|shown| shown.covers(host))
        };
        match self.server_name.as_deref() {
            // HTTP/1.0 may say nothing.
            _ if host.is_empty() => true,
            None => !self.strict || covered(None, &host.to_ascii_lowercase()),
            Some(name) if name.eq_ignore_ascii_case(host) => true,
            Some(_) if self.strict => false,
            name => covered(name, &host.to_ascii_lowercase()),
        }
    }
}

/// A name of DNS may end in a dot, and means the same.
pub(crate) fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}
