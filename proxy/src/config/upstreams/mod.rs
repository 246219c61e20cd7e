//! Groups of servers, as they are configured: who they are and how one is chosen.
//!
//! What a server is doing (health, load) is not here but in `upstream::state`, for it
//! outlives a configuration. Read from TOML by `read.rs`, written by `write.rs`.

use std::{fmt, time::Duration};

use crate::proxy_protocol::write::Version;

pub(super) mod choice;
mod dns;
mod health;
mod http2;
pub(super) mod read;
mod retry;
#[cfg(test)]
mod tests;
mod tls;
pub(super) mod write;

pub use choice::{Balance, Choice, HashBy, SameSite, Sticky};
pub use dns::Dns;
pub use health::{Ejection, Health, Probe};
pub use http2::{Http2, Speaks};
pub use retry::{Breaker, Retry};
pub use tls::ServerTls;

/// Idle connections kept per worker and server, unless told otherwise.
const IDLE_CONNECTIONS: usize = 64;
/// How long one is kept idle, unless told otherwise.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A group of servers that answer for the same thing.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Unique name.
    pub name: String,
    /// At least one; not all of them are backups.
    pub servers: Vec<UpstreamServer>,
    /// Which version of HTTP they are spoken to in.
    pub speaks: Speaks,
    /// Where that is HTTP/2.
    pub http2: Http2,
    /// Over TLS, where that is asked for.
    pub tls: Option<ServerTls>,
    /// How one is chosen.
    pub choice: Choice,
    /// How names become addresses; `None`: the system is asked for each connection.
    pub dns: Option<Dns>,
    /// Checks that the proxy makes by itself.
    pub health: Option<Health>,
    /// What becomes of servers that fail requests.
    pub ejection: Option<Ejection>,
    /// What is sent again.
    pub retry: Option<Retry>,
    /// From when on nothing more is sent.
    pub breaker: Breaker,
    /// With fewer of the servers well than so many percent all are asked; 0: only with none.
    pub panic_percent: u32,
    /// Which `Host` the server sees.
    pub host: HostPolicy,
    /// Idle connections kept per worker and server.
    pub max_idle_connections: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Connections per worker and server at once; `None`: no limit. Requests wait for one, up to `connect_timeout`.
    pub max_connections: Option<usize>,
    /// Idle connections that there are always, per worker and server.
    pub min_idle_connections: usize,
    /// How old a connection gets before it is kept no more.
    pub max_connection_age: Option<Duration>,
    /// How many requests one carries before it is kept no more.
    pub max_requests_per_connection: Option<u32>,
    /// Whether a request that may be repeated goes out with the first segment of a new connection,
    /// and the beginning of a handshake of TLS (TCP Fast Open).
    pub tcp_fast_open: bool,
    /// How clients are announced to its servers, if at all.
    pub proxy_protocol: Option<Version>,
    /// Whether sockets of its servers on this host may be enrolled for tunnels.
    pub local_bypass: bool,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Where it is.
    pub address: Server,
    /// Its share of the requests, in proportion to the others' weights; 1 to [`MOST_WEIGHT`].
    pub weight: u32,
    /// Asked only while no other server can be.
    pub backup: bool,
    /// It gets no new requests.
    pub drain: bool,
    /// Connections to it at once, over all workers; `None`: no limit. Requests wait for one.
    pub max_connections: Option<usize>,
}

/// The largest weight of a server.
pub const MOST_WEIGHT: u32 = 1000;

impl UpstreamServer {
    /// A server of which nothing but the address was said.
    pub(crate) fn new(address: Server) -> Self {
        Self { address, weight: 1, backup: false, drain: false, max_connections: None }
    }
}

impl fmt::Display for UpstreamServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Host and port of one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only an IPv6 address has a colon, and a URI wants it in brackets.
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Which `Host` the server sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPolicy {
    /// What the client asked for (the default).
    Preserve,
    /// The server's own host and port.
    Server,
}

impl Upstream {
    /// An upstream with the defaults of the file.
    pub(crate) fn with_defaults(name: &str, servers: Vec<Server>) -> Self {
        Self {
            name: name.to_owned(),
            servers: servers.into_iter().map(UpstreamServer::new).collect(),
            speaks: Speaks::Http1,
            http2: Http2::default(),
            tls: None,
            choice: Choice::default(),
            dns: Some(Dns::default()),
            health: None,
            ejection: None,
            retry: None,
            breaker: Breaker::default(),
            panic_percent: 0,
            host: HostPolicy::Preserve,
            max_idle_connections: IDLE_CONNECTIONS,
            idle_timeout: IDLE_TIMEOUT,
            max_connections: None,
            min_idle_connections: 0,
            max_connection_age: None,
            max_requests_per_connection: None,
            tcp_fast_open: false,
            proxy_protocol: None,
            local_bypass: false,
        }
    }
}
