//! `[[route]]`: from a request, or from a connection of a tcp listener, to what is done with it.
//!
//! `read.rs` reads the section, `check.rs` compares the whole file, `label.rs` names routes
//! that have no name of their own.

use std::sync::Arc;

use http::{HeaderName, Method};

use super::{
    HostPattern, RouteCache,
    cache::{self, DraftCache},
    effective,
    errors::{Place, Placed},
};

mod action;
mod check;
mod conditions;
mod fields;
mod label;
mod path;
mod read;
mod rewrite;
mod template;
#[cfg(test)]
mod tests;

pub(crate) use action::DraftAction;
pub use action::{Action, Redirect, Respond, Split};
pub use conditions::{Condition, Regex, Test};
pub use fields::FieldRules;
pub use path::{Part, PathRule, Segment, Tail};
pub(super) use read::{KEYS, read};
pub use rewrite::Rewrite;
pub use template::{Parts, Template};

/// One rule from request to upstream.
#[derive(Debug, Clone)]
pub struct Route {
    /// Unique: for logs, metrics and people. Where the file gives none, a label that is made
    /// of the conditions, which no `name` can be (see `label.rs`).
    pub name: String,
    /// Index into [`super::Config::listeners`]; `None`: on every tcp listener if it has an
    /// `sni`, else on every http listener.
    pub listener: Option<usize>,
    /// Goes before how specific a route is; the higher wins. 0 unless said.
    pub priority: i64,
    /// `None`: any host.
    pub host: Option<HostPattern>,
    /// `None`: any path.
    pub path: Option<PathRule>,
    /// Empty: any method.
    pub methods: Vec<Method>,
    /// All of them have to hold.
    pub headers: Vec<Condition<HeaderName>>,
    /// All of them have to hold.
    pub query: Vec<Condition<Box<str>>>,
    /// On tcp listeners: the server name of a TLS ClientHello; `None`: whatever matches no
    /// other route.
    pub sni: Option<HostPattern>,
    /// What is done with its requests, in this order, after what their listener does: indices
    /// into [`super::Config::middleware`].
    pub middleware: Vec<usize>,
    /// What is done.
    pub action: Action,
    /// What is changed.
    pub changes: Changes,
    /// Whether its exchanges are recorded; `None`: as the listener says.
    pub record: Option<bool>,
    /// How its answers are kept; `None`: they are not.
    pub cache: Option<Arc<RouteCache>>,
}

/// What a route changes in requests and answers on their way.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// In the target and the host.
    pub rewrite: Rewrite,
    /// In the fields of the request.
    pub request: FieldRules,
    /// In the fields of the answer, whoever gives it.
    pub response: FieldRules,
}

/// A route as it was asked for, valid by itself.
#[derive(Debug)]
pub(crate) struct DraftRoute {
    pub(crate) place: Place,
    /// `None`: none was given, or it could not be read.
    pub(crate) name: Option<Placed<String>>,
    /// Empty: could not be read.
    pub(crate) listener: Option<Placed<String>>,
    pub(crate) priority: i64,
    pub(crate) host: Option<HostPattern>,
    pub(crate) path: Option<PathRule>,
    pub(crate) methods: Vec<Method>,
    pub(crate) headers: Vec<Condition<HeaderName>>,
    pub(crate) query: Vec<Condition<Box<str>>>,
    pub(crate) sni: Option<Placed<HostPattern>>,
    /// The first condition that only a request can meet, by its key.
    pub(crate) of_requests: Option<Placed<&'static str>>,
    pub(crate) middleware: Vec<Placed<String>>,
    pub(crate) action: DraftAction,
    pub(crate) changes: Changes,
    pub(crate) record: Option<bool>,
    pub(crate) cache: DraftCache,
    /// A condition could not be read: not to be compared with others.
    pub(crate) incomplete: bool,
}

impl Changes {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.rewrite.is_empty() && self.request.is_empty() && self.response.is_empty()
    }
}

impl DraftRoute {
    /// Everything that comes to a listener goes to an upstream.
    pub(crate) fn all_of(listener: Option<Placed<String>>, upstream: Placed<String>) -> Self {
        Self {
            place: upstream.place.clone(),
            name: None,
            listener,
            priority: 0,
            host: None,
            path: None,
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            sni: None,
            of_requests: None,
            middleware: Vec::new(),
            action: DraftAction::Upstream(upstream),
            changes: Changes::default(),
            record: None,
            cache: DraftCache::Unsaid,
            incomplete: false,
        }
    }
}

impl Route {
    /// Whether its name was given, not made.
    pub fn is_named(&self) -> bool {
        !label::is_derived(&self.name)
    }

    /// Writes it as a section of the effective configuration.
    pub(super) fn write(&self, out: &mut String, config: &super::Config) {
        effective::header(out, "[[route]]");
        if self.is_named() {
            effective::text(out, "name", &self.name);
        }
        if let Some(listener) = self.listener.and_then(|index| config.listeners.get(index)) {
            effective::text(out, "listener", &listener.name);
        }
        if self.priority != 0 {
            effective::key(out, "priority", self.priority);
        }
        if let Some(pattern) = &self.host {
            effective::text(out, "host", pattern);
        }
        if let Some(path) = &self.path {
            effective::text(out, path.key(), path);
        }
        match self.methods.as_slice() {
            [] => {}
            [method] => effective::text(out, "method", method),
            methods => effective::list(out, "method", methods),
        }
        effective::entries(out, "headers", self.headers.iter().map(|c| (&c.name, c.shown())));
        effective::entries(out, "query", self.query.iter().map(|c| (&c.name, c.shown())));
        if let Some(pattern) = &self.sni {
            effective::text(out, "sni", pattern);
        }
        config.write_middleware(out, &self.middleware);
        self.action.write(out, config);
        if let Some(record) = self.record {
            effective::key(out, "record", record);
        }
        if !self.changes.rewrite.is_empty() {
            effective::key(out, "rewrite", self.changes.rewrite.shown());
        }
        for (key, rules) in [
            ("request_headers", &self.changes.request),
            ("response_headers", &self.changes.response),
        ] {
            if !rules.is_empty() {
                effective::key(out, key, rules.shown());
            }
        }
        if config.cache.is_some() && self.action.upstreams().next().is_some() {
            cache::write_route(out, self.cache.as_deref());
        }
    }
}
