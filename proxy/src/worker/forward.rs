//! Pools of servers that clients of forward proxies name, and what is known of those servers.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Worker;
use crate::{
    config::{self, Intercept, Server, Speaks},
    listener::Listener,
    metrics::UpstreamMetrics,
    upstream::{balance::Upstream, directory::Group},
};

/// Pools of a forward listener kept at once per worker; the least useful go first.
const MAX_POOLS: usize = 1024;

/// Idle connections that a forward proxy keeps per server and worker, and for how long.
const IDLE: (usize, Duration) = (8, Duration::from_secs(60));

/// For how long it is believed of a server which version of HTTP it speaks.
const BELIEVED: Duration = Duration::from_secs(600);

/// What one worker has for clients of forward proxies.
#[derive(Debug)]
pub(super) struct Forward {
    /// By listener: what one may reach, another may be forbidden.
    pools: RefCell<HashMap<Arc<str>, Pools>>,
    metrics: UpstreamMetrics,
    origins: Origins,
}

/// By the server that a client named: plain, over TLS, and over TLS in the version of HTTP that it
/// chooses.
#[derive(Debug, Default)]
struct Pools {
    servers: HashMap<Server, [Option<Rc<Upstream>>; 3]>,
    /// What connections over TLS go by.
    rules: Option<Arc<Intercept>>,
}

impl Forward {
    pub(super) fn new(metrics: UpstreamMetrics) -> Self {
        Self { pools: RefCell::default(), metrics, origins: Origins::default() }
    }

    /// Forgets listeners that are gone.
    pub(super) fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.pools.borrow_mut().retain(|name, _| stays(name));
    }

    /// Looks after idle connections.
    pub(super) fn sweep(&self, now: Instant) {
        for pools in self.pools.borrow().values() {
            pools.servers.values().flatten().flatten().for_each(|upstream| upstream.sweep(now));
        }
    }
}

impl Worker {
    /// The pool of a server that a client of a forward proxy named. `intercept`: over TLS, by
    /// these rules, where `http2` in HTTP/2 if the server still chooses that.
    pub fn forward_upstream(
        &self,
        listener: &Listener,
        server: &Server,
        intercept: Option<&Arc<Intercept>>,
        http2: bool,
    ) -> Rc<Upstream> {
        let mut forward = self.forward.pools.borrow_mut();
        let pools = forward.entry(Arc::clone(&listener.name)).or_default();
        if let Some(rules) = intercept
            && !pools.rules.as_ref().is_some_and(|known| Arc::ptr_eq(known, rules))
        {
            // Whom another configuration believed, this one may not.
            pools.servers.values_mut().for_each(|kinds| kinds[1..].fill(None));
            pools.rules = Some(Arc::clone(rules));
        }
        let kind = if intercept.is_none() { 0 } else { 1 + usize::from(http2) };
        if let Some(upstream) = pools.servers.get(server).and_then(|kinds| kinds[kind].as_ref()) {
            return Rc::clone(upstream);
        }
        if pools.servers.len() >= MAX_POOLS {
            let is_used = |kinds: &[Option<Rc<Upstream>>; 3]| {
                kinds.iter().flatten().any(|upstream| !upstream.is_unused())
            };
            pools.servers.retain(|_, kinds| is_used(kinds));
        }
        let mut named = config::Upstream::with_defaults(&server.to_string(), vec![server.clone()]);
        (named.max_idle_connections, named.idle_timeout) = IDLE;
        named.tls = intercept.map(|rules| rules.servers.clone());
        if http2 {
            // It did when it was last asked, and may choose otherwise by now.
            named.speaks = Speaks::Either;
        }
        let (group, metrics) = (Group::new(&named), &self.forward.metrics);
        let parking = &self.upstream_parking;
        let upstream = Rc::new(Upstream::new(&named, group, metrics, parking, 0, None));
        if pools.servers.len() < MAX_POOLS || pools.servers.contains_key(server) {
            let kinds = pools.servers.entry(server.clone()).or_default();
            kinds[kind] = Some(Rc::clone(&upstream));
        }
        upstream
    }

    /// What is known of the servers of intercepted connections.
    pub fn origins(&self) -> &Origins {
        &self.forward.origins
    }
}

/// Which servers speak HTTP/2. A client that offers it is to get what its server would have
/// chosen, and that is known only from a handshake.
#[derive(Debug, Default)]
pub struct Origins(RefCell<HashMap<Server, (bool, Instant)>>);

impl Origins {
    /// Whether it does, as far as that is known.
    pub fn known(&self, server: &Server) -> Option<bool> {
        let origins = self.0.borrow();
        let (speaks, since) = origins.get(server)?;
        (since.elapsed() < BELIEVED).then_some(*speaks)
    }

    /// It does, or not.
    pub fn learn(&self, server: &Server, speaks: bool) {
        let mut origins = self.0.borrow_mut();
        if origins.len() >= MAX_POOLS {
            origins.clear();
        }
        origins.insert(server.clone(), (speaks, Instant::now()));
    }

    /// It is not as it was.
    pub fn forget(&self, server: &Server) {
        self.0.borrow_mut().remove(server);
    }
}
