//! Which server of an upstream gets the next request. State is per worker.

use std::{cell::Cell, rc::Rc};

use super::pool::ServerPool;
use crate::{config, metrics::UpstreamMetrics};

/// One upstream as a worker sees it: its servers' pools and whose turn it is.
#[derive(Debug)]
pub struct Upstream {
    /// Name for logs.
    pub name: Rc<str>,
    /// Which `Host` its servers see.
    pub host: config::HostPolicy,
    /// Whether sockets of its servers may be enrolled for local bypass.
    pub local_bypass: bool,
    servers: Vec<Rc<ServerPool>>,
    next: Cell<usize>,
}

impl Upstream {
    /// `first` staggers workers, so that they do not all begin with the same server.
    pub fn new(upstream: &config::Upstream, metrics: &UpstreamMetrics, first: usize) -> Self {
        let servers = upstream.servers.iter();
        Self {
            name: upstream.name.as_str().into(),
            host: upstream.host,
            local_bypass: upstream.local_bypass,
            servers: servers
                .map(|server| {
                    let settings = super::pool::Settings {
                        max_idle: upstream.max_idle_connections,
                        idle_timeout: upstream.idle_timeout,
                        max_open: upstream.max_connections,
                    };
                    Rc::new(ServerPool::new(server.clone(), settings, metrics.clone()))
                })
                .collect(),
            next: Cell::new(first),
        }
    }

    /// How many servers there are to try.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    /// Whether there is none. A valid configuration has at least one.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The next server, round robin.
    pub fn pick(&self) -> &Rc<ServerPool> {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        &self.servers[turn % self.servers.len()]
    }

    /// All servers, for sweeping.
    pub fn servers(&self) -> &[Rc<ServerPool>] {
        &self.servers
    }
}
