//! What a pool goes by.

use std::{sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::{
    config::{ForwardPolicy, Http2, Server, ServerTls},
    proxy_protocol::write::Version,
    splice::kernel::Kernel,
    transport::Transport,
    upstream::tls::{Connector, Inside, fault},
    wire::head::Bounds,
};

/// Limits of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Where HTTP/2 is spoken.
    pub http2: Option<Http2>,
    /// Where HTTP/1.1 is as well: the server chooses (ALPN).
    pub either: bool,
    /// Whether connections begin with a PROXY header, and which.
    pub proxy_protocol: Option<Version>,
    /// Idle connections kept.
    pub max_idle: usize,
    /// How long one is kept idle.
    pub idle_timeout: Duration,
    /// Connections open at once, `None`: any number.
    pub max_open: Option<usize>,
    /// The same over all workers.
    pub max_open_everywhere: Option<usize>,
    /// The same to all servers together.
    pub max_open_of_all: Option<usize>,
    /// Idle connections that there are always.
    pub min_idle: usize,
    /// Whether what is first sent on one may go out with its first segment.
    pub fast_open: bool,
    /// How old one gets before it is kept no more.
    pub max_age: Option<Duration>,
    /// How many requests one carries before that.
    pub max_requests: Option<u32>,
}

/// TLS to the server of one pool.
#[derive(Debug, Clone)]
pub struct Secure {
    connector: Arc<Connector>,
    /// What its certificate has to be for. `None`: nothing that a certificate can be for.
    name: Option<ServerName<'static>>,
}

impl Secure {
    /// For a server that is `named` so.
    pub fn new(tls: &ServerTls, named: &Server) -> Self {
        let name = tls.server_name.clone().unwrap_or_else(|| named.host.clone());
        let name = ServerName::try_from(name).ok();
        Self { connector: Arc::clone(&tls.connector), name }
    }

    /// Begins a session.
    ///
    /// # Errors
    /// What it has failed of.
    pub async fn begin(&self, stream: TcpStream, inside: Inside) -> Result<Transport, Unsecured> {
        let name = self.name.clone().ok_or_else(|| Unsecured {
            what: "no certificate can be for the server's name".to_owned(),
            below: false,
        })?;
        let begun = self.connector.connect(stream, name, inside).await;
        begun.map_err(|error| Unsecured {
            what: fault::of(&error),
            below: error.raw_os_error().is_some(),
        })
    }
}

/// Why there is no session with a server.
#[derive(Debug)]
pub struct Unsecured {
    /// In words for people.
    pub what: String,
    /// Whether it is the socket that failed, below TLS.
    pub below: bool,
}

/// How a new connection is made, and for how long one is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Making<'a> {
    /// Look-up, connect and waiting together.
    pub timeout: Duration,
    /// Bounds of response heads.
    pub bounds: Bounds,
    /// Keep the case of header names.
    pub preserve_header_case: bool,
    /// Addresses that may be connected to, for a forward proxy.
    pub policy: Option<&'a ForwardPolicy>,
    /// For local bypass, where it is allowed.
    pub kernel: Option<&'a Arc<Kernel>>,
    /// The request is to become a tunnel.
    pub wants_tunnel: bool,
    /// What the server is sent first: a PROXY header, which makes the connection one for this
    /// request alone, because the next may be another client's.
    pub announcement: Option<&'a [u8]>,
    /// Whether the server may get the request twice.
    pub repeatable: bool,
}
