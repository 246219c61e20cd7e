//! From a request to a route, by listener, host, path, method, fields and query, and from
//! listener and server name (SNI) for connections that are not looked into.
//!
//! Pure; compiled once per configuration (`listener.rs`, `tree.rs`), no allocation per match,
//! and the number of routes does not matter. Which of several matching routes wins does not
//! depend on their order in the file unless they are equally specific (`rank.rs`). A path is
//! never normalised on its way, and so no rule can be walked around by another spelling of
//! it: where two servers could read it as two paths with two routes, it is refused
//! (`reading.rs`). `matched.rs` is what a worker makes of each route.
//!
//! Implements: REQ-CTRL-006

use std::cell::RefCell;

use http::{HeaderMap, Method, Uri};

use crate::{
    config::{Config, Protocol},
    error::Kind,
    request,
};

mod conditions;
mod listener;
pub mod matched;
mod rank;
pub(crate) mod reading;
#[cfg(test)]
mod reference;
mod split;
#[cfg(test)]
mod tests;
mod tree;

use listener::Listener;
pub use matched::{Action, Matched};
pub use split::Split;

thread_local! {
    /// Where a path is decoded that has something to decode; kept, so that it costs nothing.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The routes of a configuration, by listener.
#[derive(Debug, Default)]
pub struct Table {
    listeners: Vec<Listener>,
}

/// A path that servers read in different ways, for which there are different routes.
#[derive(Debug)]
struct Ambiguous;

/// What routes can look at.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The host that is asked for, without its port.
    pub host: &'a str,
    /// The target; of it, path and query.
    pub uri: &'a Uri,
    /// The method.
    pub method: &'a Method,
    /// All fields.
    pub headers: &'a HeaderMap,
}

impl<'a> Head<'a> {
    /// Of a request.
    pub fn of<B>(request: &'a http::Request<B>) -> Self {
        let (uri, headers) = (request.uri(), request.headers());
        Self { host: request::host(uri, headers), uri, method: request.method(), headers }
    }
}

impl Table {
    /// Compiles what a search needs.
    pub fn compile(config: &Config) -> Self {
        let listeners = config.listeners.iter().enumerate();
        let compile = |(index, listener): (usize, &crate::config::Listener)| {
            Listener::compile(config, index, matches!(listener.protocol, Protocol::Tcp))
        };
        Self { listeners: listeners.map(compile).collect() }
    }

    /// Whether paths of requests to this listener are put into their normal form before
    /// anything looks at them.
    pub fn normalises(&self, listener: usize) -> bool {
        self.listeners.get(listener).is_some_and(|listener| listener.normalises)
    }

    /// Index of the route of a request.
    ///
    /// # Errors
    /// [`Kind::NoRoute`], and [`Kind::BadRequest`] for a path that can be read in two ways.
    pub fn find(&self, listener: usize, head: &Head<'_>) -> Result<usize, Kind> {
        match self.listeners.get(listener).map(|listener| listener.find(head)) {
            Some(Ok(Some(route))) => Ok(route),
            Some(Err(Ambiguous)) => {
                Err(Kind::BadRequest("a path that servers read in different ways"))
            }
            Some(Ok(None)) | None => Err(Kind::NoRoute),
        }
    }

    /// Whether a route of this tcp listener goes by the server name.
    pub fn wants_server_name(&self, listener: usize) -> bool {
        self.listeners.get(listener).is_some_and(|listener| listener.asks_for_names)
    }

    /// Index of the route of a connection of a tcp listener. `None` as name: it has none, or
    /// nobody looked.
    ///
    /// # Errors
    /// [`Kind::NoRoute`].
    pub fn find_tcp(&self, listener: usize, server_name: Option<&str>) -> Result<usize, Kind> {
        let listener = self.listeners.get(listener);
        listener.and_then(|listener| listener.find_tcp(server_name)).ok_or(Kind::NoRoute)
    }
}
