//! What the proxy has been told to do, checked and resolved.
//!
//! Raw TOML and flags become these types once, here; nothing else in the crate
//! parses settings. The way of a setting: `read.rs` (TOML, through `section.rs`) or flags
//! (`cli/`), both through `value.rs`, to a `Draft`; `draft.rs` checks the whole. A `Config` that exists is valid: names resolve to indices,
//! numbers are in range, times are `Duration`s.

use crate::{access_log::Field, spans::Collector, tls::Tls};

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::HeaderName;

pub(crate) mod acme;
#[cfg(test)]
mod acme_tests;
mod cache;
mod collector;
pub(crate) mod draft;
mod effective;
pub(crate) mod errors;
mod forward;
mod include;
#[cfg(test)]
mod include_tests;
pub(crate) mod intercept;
pub mod limits;
mod merge;
pub mod middleware;
mod overlay;
mod paths;
#[cfg(test)]
mod proxies_tests;
mod proxy_protocol;
pub(crate) mod read;
pub mod record;
pub(crate) mod routes;
mod section;
mod sources;
mod substitute;
mod suggest;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
pub mod token;
mod tracing;
mod trusted_proxies;
pub(crate) mod upstreams;
pub(crate) mod value;
#[cfg(test)]
mod workers_tests;

pub use cache::{Cache, CacheDisk, RouteCache};
pub use errors::{Errors, Place, Problem, Wrong};
pub use forward::ForwardPolicy;
pub use intercept::{Intercept, NotTls};
pub use limits::Limits;
pub use middleware::Middleware;
pub use overlay::{Edit, Overlay, Refused};
pub use proxy_protocol::{Others, ProxyProtocol};
pub use record::Record;
pub use routes::{
    Action, Changes, Condition, FieldRules, Part, Parts, PathRule, Redirect, Regex, Respond,
    Rewrite, Route, Segment, Split, Tail, Template, Test,
};
pub use sources::Sources;
pub use token::Token;
pub use trusted_proxies::TrustedProxies;
pub use upstreams::{
    Balance, Breaker, Choice, Dns, Ejection, HashBy, Health, HostPolicy, Http2, MOST_WEIGHT, Probe,
    Retry, SameSite, Server, ServerTls, Speaks, Sticky, Upstream, UpstreamServer,
};

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Config, Errors> {
    load_draft(path).resolve().config
}

/// Reads and checks the text of a file; `name` is what problems call it.
pub fn parse(text: &str, name: &str) -> Result<Config, Errors> {
    let files = [include::File { name: name.to_owned(), text: text.to_owned() }];
    let (draft, errors) = read::draft(&files, &environment);
    draft.resolve(errors)
}

/// What came of reading files, and which those were.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration, or everything that is wrong with it.
    pub config: Result<Config, Errors>,
    /// What was read, also of a configuration that is wrong.
    pub sources: Sources,
}

/// What was read, before flags go over it.
#[derive(Debug)]
pub(crate) struct LoadedDraft {
    pub(crate) draft: draft::Draft,
    pub(crate) errors: Errors,
    pub(crate) sources: Sources,
}

impl LoadedDraft {
    /// Checks the whole.
    pub(crate) fn resolve(self) -> Loaded {
        Loaded { config: self.draft.resolve(self.errors), sources: self.sources }
    }
}

/// Reads a file, and what it includes, that flags may still add to.
pub(crate) fn load_draft(path: &Path) -> LoadedDraft {
    let mut sources = Sources::default();
    let text = match sources.read(path) {
        Ok(text) => text,
        Err(error) => {
            let wrong = Wrong::new(
                format!("the file cannot be read: {error}"),
                "name a readable TOML file in UTF-8",
            );
            let place = Place::Whole(path.display().to_string());
            let draft = draft::Draft::empty(place.clone());
            return LoadedDraft { draft, errors: Errors::one(place, wrong), sources };
        }
    };
    let mut collection = include::Collection::new(&mut sources, environment);
    collection.add(path, text);
    let include::Collection { files, errors: mut all, .. } = collection;
    let (draft, errors) = read::draft(&files, &environment);
    all.extend(errors);
    sources.extend(&draft.named);
    LoadedDraft { draft, errors: all, sources }
}

/// What the process was given; a variable that is no UTF-8 is none.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A whole, valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Data-plane threads, at least 1.
    pub workers: usize,
    /// Whether each has a CPU of its own.
    pub pin_workers: bool,
    /// Admin endpoint, `None` where switched off.
    pub admin: Option<SocketAddr>,
    /// What the admin endpoint asks for before it changes anything; without one it does not.
    pub admin_token: Option<Token>,
    /// Where changes are stored that are made through it.
    pub state_file: Option<PathBuf>,
    /// Where clients arrive.
    pub listeners: Vec<Listener>,
    /// In order of the file; `route::Table` compiles them.
    pub routes: Vec<Route>,
    /// What listeners and routes name by its index.
    pub middleware: Vec<Middleware>,
    /// Groups of servers.
    pub upstreams: Vec<Upstream>,
    /// Which engine moves the bytes of tunnels.
    pub splice: SpliceMode,
    /// Whether keys of tunnels inside TLS are given to the kernel.
    pub ktls: bool,
    /// Logging.
    pub log: Log,
    /// Where spans go, if anywhere.
    pub tracing: Option<Collector>,
    /// Answers that are kept, if any are.
    pub cache: Option<Cache>,
    /// Where exchanges are recorded, if anywhere.
    pub record: Option<Record>,
    /// Where certificates are ordered, if any are.
    pub acme: Option<crate::acme::Settings>,
    /// How long a drain waits for open requests and tunnels before it ends them.
    pub drain_timeout: Duration,
    /// Where processes meet that take over from each other; `None`: they do not.
    pub handover: Option<PathBuf>,
    /// Whether to take over from the process that serves. Never in a file.
    pub take_over: bool,
    /// Whether a change of its files is followed without a signal.
    pub watch: bool,
    /// Valid, but perhaps not meant; to be logged when it comes into force.
    pub warnings: Vec<String>,
}

/// One address that clients connect to.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Unique name, used in logs, metrics and `listening NAME …` lines.
    pub name: String,
    /// Address to bind; port 0 picks one.
    pub address: SocketAddr,
    /// Whether `[::]` leaves IPv4 clients alone (IPV6_V6ONLY).
    pub ipv6_only: bool,
    /// What is spoken there.
    pub protocol: Protocol,
    /// TLS, where that is around it.
    pub tls: Option<Arc<Tls>>,
    /// Which worker gets a new connection.
    pub steering: Steering,
    /// What is done with every request, in this order: indices into [`Config::middleware`].
    pub middleware: Vec<usize>,
    /// Proxies whose word about their clients is taken, request by request.
    pub trusted_proxies: Option<TrustedProxies>,
    /// Who announces clients to it, by the PROXY protocol.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limits in force on this listener (defaults, `[limits]`, then its own).
    pub limits: Limits,
    /// Whether the case of header names is kept on the way to the upstream (HTTP/1 both sides).
    pub preserve_header_case: bool,
    /// What is done with a path that can be read in several ways.
    pub ambiguous_paths: AmbiguousPaths,
    /// What is done with forwarding headers that the client sent.
    pub forwarded: ForwardedPolicy,
    /// Fields by which some listener tells servers who a client is: nobody else may send them.
    pub guarded_fields: Vec<HeaderName>,
    /// Whether sockets of applications of this host that are clients of this listener may be
    /// enrolled for tunnels; on a forward proxy also those of their servers.
    pub local_bypass: bool,
    /// Hosts whose TLS is taken apart, on a forward proxy.
    pub intercept: Option<Arc<Intercept>>,
    /// Whether its exchanges are recorded, where there is a recorder and the route says nothing.
    pub record: bool,
}

/// What is done with a path that servers may read in different ways (`route/reading.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmbiguousPaths {
    /// Refused where these readings have different routes, else passed as it came (the default).
    Refuse,
    /// Put into its normal form, which is what routes and servers see.
    Normalise,
    /// Passed as it came, and routed by how it is written.
    Pass,
}

/// Which worker gets a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// The one with the least to do (the default).
    Load,
    /// The one that is pinned to the CPU which received the connection.
    Cpu,
    /// By the kernel's hash of addresses and ports.
    Hash,
}

/// What a listener speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// Reverse proxy: HTTP/1.1 and HTTP/2 with prior knowledge, by routes.
    Http,
    /// Forward proxy: CONNECT and absolute-form, within a policy.
    Forward(ForwardPolicy),
    /// Bytes as they come, to the upstream of the only route or of the one that the SNI of a
    /// TLS ClientHello chooses.
    Tcp,
}

/// Trust in `Forwarded` and `X-Forwarded-*` of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedPolicy {
    /// Drop what came, write our own (edge; the default).
    Replace,
    /// Add our hop to what came (behind another proxy that is trusted).
    Append,
    /// Leave them as they are, add nothing.
    Off,
}

/// Which hosts a route is for. Lower case, without port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `api.example.org`
    Exact(String),
    /// `*.example.org`, kept as `.example.org`; at least one more label.
    Wildcard(String),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Wildcard(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// Which engine moves the bytes of tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpliceMode {
    /// By probe and by what the tunnel does.
    Auto,
    /// BPF, or refuse to start.
    Kernel,
    /// splice(2) through a pooled pipe.
    Pipe,
    /// read and write.
    Copy,
}

/// Where logs go and how they look.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// Text or JSON lines, for the process log and the access log alike.
    pub format: LogFormat,
    /// Access log.
    pub access: AccessLog,
    /// The fields of its lines, in their order.
    pub fields: Vec<Field>,
    /// Of exchanges without a fault, how many have a line: 0 to 1.
    pub sample_ratio: f64,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where access log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard error (the default).
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}
