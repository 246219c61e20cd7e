//! `[[route]]`: from a request, or from a connection of a tcp listener, to what is done with it.
//!
//! `read.rs` reads the section, `check.rs` compares the whole file, `label.rs` names routes
//! that have no name of their own.

use super::{
    HostPattern, effective,
    errors::{Place, Placed},
};

mod check;
mod label;
mod read;

pub(super) use read::{KEYS, read};

/// One rule from request to upstream.
#[derive(Debug, Clone)]
pub struct Route {
    /// Unique: for logs, metrics and people. Where the file gives none, a label that is made
    /// of the conditions, which no `name` can be (see `label.rs`).
    pub name: String,
    /// Index into [`super::Config::listeners`]; `None`: on every tcp listener if it has an
    /// `sni`, else on every http listener.
    pub listener: Option<usize>,
    /// `None`: any host.
    pub host: Option<HostPattern>,
    /// Path prefix, on whole segments (`/v1` matches `/v1` and `/v1/x`, not `/v10`).
    pub path_prefix: Option<String>,
    /// `None`: any method.
    pub method: Option<http::Method>,
    /// On tcp listeners: the server name of a TLS ClientHello; `None`: whatever matches no
    /// other route.
    pub sni: Option<HostPattern>,
    /// Index into [`super::Config::upstreams`].
    pub upstream: usize,
}

/// A route as it was asked for, valid by itself.
#[derive(Debug)]
pub(crate) struct DraftRoute {
    pub(crate) place: Place,
    /// `None`: none was given, or it could not be read.
    pub(crate) name: Option<Placed<String>>,
    /// Empty: could not be read.
    pub(crate) listener: Option<Placed<String>>,
    pub(crate) host: Option<HostPattern>,
    pub(crate) path_prefix: Option<String>,
    pub(crate) method: Option<http::Method>,
    pub(crate) sni: Option<Placed<HostPattern>>,
    /// The first condition that only a request can meet, by its key.
    pub(crate) of_requests: Option<Placed<&'static str>>,
    /// Empty: could not be read.
    pub(crate) upstream: Placed<String>,
    /// A condition could not be read: not to be compared with others.
    pub(crate) incomplete: bool,
}

impl DraftRoute {
    /// Everything that comes to a listener goes to an upstream.
    pub(crate) fn all_of(listener: Option<Placed<String>>, upstream: Placed<String>) -> Self {
        Self {
            place: upstream.place.clone(),
            name: None,
            listener,
            host: None,
            path_prefix: None,
            method: None,
            sni: None,
            of_requests: None,
            upstream,
            incomplete: false,
        }
    }
}

impl Route {
    /// Writes it as a section of the effective configuration.
    pub(super) fn write(&self, out: &mut String, config: &super::Config) {
        effective::header(out, "[[route]]");
        if !label::is_derived(&self.name) {
            effective::text(out, "name", &self.name);
        }
        if let Some(listener) = self.listener.and_then(|index| config.listeners.get(index)) {
            effective::text(out, "listener", &listener.name);
        }
        if let Some(pattern) = &self.host {
            effective::text(out, "host", pattern);
        }
        if let Some(prefix) = &self.path_prefix {
            effective::text(out, "path_prefix", prefix);
        }
        if let Some(method) = &self.method {
            effective::text(out, "method", method);
        }
        if let Some(pattern) = &self.sni {
            effective::text(out, "sni", pattern);
        }
        if let Some(upstream) = config.upstreams.get(self.upstream) {
            effective::text(out, "upstream", &upstream.name);
        }
    }
}
