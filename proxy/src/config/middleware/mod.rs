//! `[[middleware]]`: what is done with requests before a server is asked, and with answers
//! before the client gets them. Defined once by name, used by listeners and routes.
//!
//! `read.rs` reads the sections, `write.rs` writes them back, and the checks of names are
//! here. What runs is `crate::middleware`, compiled from these.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::middleware::{bearer, compress, cors, rate::Rate};

use super::{
    draft::Draft,
    errors::{Errors, Place, Placed, Wrong},
    suggest,
};

pub(super) mod read;
#[cfg(test)]
mod tests;
mod write;

pub(super) use read::{KEYS, read};

/// One thing that is done, by its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Middleware {
    /// Unique.
    pub name: String,
    /// What is done.
    pub what: What,
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Clients are let in by their addresses.
    Access(Access),
    /// Users are asked for a password (RFC 7617).
    BasicAuth(BasicAuth),
    /// A signed token is asked for (RFC 6750, RFC 7519).
    Jwt(Jwt),
    /// So many requests in a time.
    RateLimit(RateLimit),
    /// So many requests at once.
    Concurrency(Concurrency),
    /// Browsers on pages of other origins (Fetch standard).
    Cors(cors::Policy),
    /// Answers are compressed.
    Compression(compress::Rules),
    /// Each request gets a name.
    RequestId(RequestId),
    /// Answers tell browsers to be careful.
    SecurityHeaders(Vec<(HeaderName, HeaderValue)>),
    /// Requests go to another upstream as well.
    Mirror(Mirror),
}

/// Which addresses are let in. Deny wins over allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// If not empty, only these.
    pub allow: Vec<IpNet>,
    /// Never these.
    pub deny: Vec<IpNet>,
}

/// Who has a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// What browsers show.
    pub realm: String,
    /// `name:password` or `name:$2b$…`; at least one.
    pub users: Vec<String>,
    /// Field that tells the server who it is.
    pub user_header: Option<HeaderName>,
    /// Whether the server does not see the password.
    pub remove: bool,
}

/// Which tokens are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// Where the keys were read from.
    pub keys_file: PathBuf,
    /// The rest, with the keys.
    pub rules: bearer::Rules,
}

/// By what requests are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Not at all.
    All,
    /// By the client's address; of IPv6 the first 64 bits, because that is what one has.
    Client,
    /// By the value of a field; without it, by the client's address.
    Field(HeaderName),
}

/// So many requests in a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// How many.
    pub rate: Rate,
    /// Whose.
    pub key: Key,
    /// Keys that are remembered at once, 16 bytes each.
    pub max_keys: usize,
}

/// So many requests at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// How many.
    pub max: u32,
    /// Whose.
    pub key: Key,
}

/// The name of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// The field that carries it, both ways.
    pub header: HeaderName,
    /// Whether a name that the client gave is kept.
    pub trust: bool,
}

/// Where copies of requests go.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// Name of an upstream.
    pub upstream: String,
    /// Of the requests, how many: 0 to 1.
    pub ratio: f64,
    /// Bytes of a body that may wait for the second server.
    pub max_pending_bytes: usize,
}

/// As it was asked for.
#[derive(Debug)]
pub(crate) struct DraftMiddleware {
    pub(crate) place: Place,
    /// Empty: could not be read.
    pub(crate) name: Placed<String>,
    /// `None`: could not be read.
    pub(crate) what: Option<What>,
}

impl Draft {
    /// Indices of those that a listener or a route names.
    pub(super) fn resolve_middleware(
        &self,
        names: &[Placed<String>],
        errors: &mut Errors,
    ) -> Vec<usize> {
        let valid = || self.middleware.iter().map(|it| it.name.value.as_str());
        let mut found: Vec<usize> = Vec::with_capacity(names.len());
        for name in names {
            match valid().position(|valid| valid == name.value) {
                Some(index) if found.contains(&index) => errors.add(
                    &name.place,
                    Wrong::new(format!("`{}` is named twice", name.value), "remove one"),
                ),
                Some(index) => found.push(index),
                // An unreadable name on either side has been complained about already.
                None if name.value.is_empty() || valid().any(str::is_empty) => {}
                None => {
                    let cure = match self.middleware.is_empty() {
                        true => format!("add [[middleware]] with `name = \"{}\"`", name.value),
                        false => suggest::cure(&name.value, valid()),
                    };
                    let what = format!("unknown middleware `{}`", name.value);
                    errors.add(&name.place, Wrong::new(what, cure));
                }
            }
        }
        found
    }

    pub(super) fn warn_unused_middleware(&self, warnings: &mut Vec<String>) {
        let listeners = self.listeners.iter().flat_map(|listener| &listener.middleware);
        let routes = self.routes.iter().flat_map(|route| &route.middleware);
        let used: Vec<&str> = listeners.chain(routes).map(|name| name.value.as_str()).collect();
        for DraftMiddleware { place, name, .. } in &self.middleware {
            if !used.contains(&name.value.as_str()) {
                let name = &name.value;
                warnings.push(format!("{place}: no listener and no route names `{name}`"));
            }
        }
    }

    /// Whether copies of requests go to an upstream.
    pub(super) fn is_mirrored_to(&self, upstream: &str) -> bool {
        self.middleware
            .iter()
            .any(|it| matches!(&it.what, Some(What::Mirror(of)) if of.upstream == upstream))
    }

    /// Those that are defined, each name once.
    pub(super) fn resolve_definitions(&self, errors: &mut Errors) -> Vec<Middleware> {
        let mut seen: Vec<&str> = Vec::new();
        let mut definitions = Vec::new();
        for draft in &self.middleware {
            let name = &draft.name.value;
            if !name.is_empty() && seen.contains(&name.as_str()) {
                let what = format!("a second middleware `{name}`");
                errors.add(&draft.name.place, Wrong::new(what, "give each its own name"));
            }
            seen.push(name);
            if let Some(What::Mirror(of)) = &draft.what {
                let valid = || self.upstreams.iter().map(|it| it.upstream.name.as_str());
                if !valid().any(|name| name == of.upstream || name.is_empty()) {
                    let what = format!("unknown upstream `{}`", of.upstream);
                    let cure = suggest::cure(&of.upstream, valid());
                    errors.add(&draft.place, Wrong::new(what, cure));
                }
            }
            if let Some(what) = &draft.what {
                definitions.push(Middleware { name: name.clone(), what: what.clone() });
            }
        }
        definitions
    }
}
