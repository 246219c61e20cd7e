//! Which server of an upstream gets the next request, at one worker.
//!
//! What all workers know of the servers is in the group (`directory.rs`); what this one knows
//! (its pools, and whose turn it is) is here, made anew when the group's version has changed.
//!
//! Implements: REQ-EDGE-002

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use http::{HeaderMap, HeaderValue, StatusCode};

use super::{
    affinity::Key,
    breaker::Permit,
    budget::Savings,
    directory::Group,
    health::eject::Passive,
    lineup::{Lineup, Rules},
    load::Load,
    parked::Parking,
    pool::{self, ServerPool},
    state::{self, Member},
};
use crate::{
    config,
    error::{Error, Kind, Side},
    metrics::UpstreamMetrics,
    proxy_protocol::write,
};

/// One upstream as a worker sees it: its servers' pools and whose turn it is.
#[derive(Debug)]
pub struct Upstream {
    /// Name for logs.
    pub name: Rc<str>,
    /// Which `Host` its servers see.
    pub host: config::HostPolicy,
    /// Whether sockets of its servers may be enrolled for local bypass.
    pub local_bypass: bool,
    /// How clients are announced to its servers, if at all.
    pub proxy_protocol: Option<write::Version>,
    group: Arc<Group>,
    choice: config::Choice,
    counts_load: bool,
    panic_percent: u32,
    pools: pool::Settings,
    tls: Option<config::ServerTls>,
    retry: Option<config::Retry>,
    breaker: config::Breaker,
    savings: Savings,
    passive: Option<Rc<Passive>>,
    metrics: UpstreamMetrics,
    parking: Rc<Parking>,
    worker: usize,
    seen: Cell<u64>,
    servers: RefCell<Vec<Rc<ServerPool>>>,
    lineup: RefCell<Lineup>,
    /// When the lineup is to be made anew, by `state::now`.
    due: Cell<Option<u64>>,
    labels: RefCell<Vec<(SocketAddr, Arc<str>)>>,
}

/// A server that was chosen for a request.
#[derive(Debug)]
pub struct Picked {
    /// Its connections.
    pub pool: Rc<ServerPool>,
    /// The request, counted as under way there; to be kept as long as it is.
    pub load: Option<Load>,
    /// What is to tell the client which server it has.
    pub set_cookie: Option<HeaderValue>,
}

impl Picked {
    /// The head of the server's answer is there.
    pub fn answered(&mut self, status: StatusCode) {
        if let Some(load) = &mut self.load {
            load.answered();
        }
        if let Some(passive) = self.pool.passive() {
            passive.answered(self.pool.state(), status);
        }
    }

    /// It has taken a connection, which is all that was asked of it.
    pub fn connected(&mut self) {
        if let Some(load) = &mut self.load {
            load.answered();
        }
        if let Some(passive) = self.pool.passive() {
            passive.good(self.pool.state());
        }
    }

    /// The request has failed there, or on its way there.
    pub fn failed(&mut self, kind: Kind) {
        // The client's deadline says nothing of the server.
        let ours = matches!(
            kind,
            Kind::PoolExhausted | Kind::Overloaded(_) | Kind::NoServer | Kind::DeadlineExceeded
        );
        if kind.side() != Side::Upstream || ours {
            return;
        }
        if let Some(load) = &mut self.load {
            load.failed();
        }
        if let Some(passive) = self.pool.passive() {
            passive.failed(self.pool.state(), kind);
        }
    }
}

/// The servers that one request has been to. Allocates only once there is one.
#[derive(Debug, Default)]
pub struct Tried(Vec<Rc<ServerPool>>);

impl Tried {
    /// The request is not to come to this server again.
    pub fn add(&mut self, pool: &Rc<ServerPool>) {
        self.0.push(Rc::clone(pool));
    }

    fn has(&self, pool: &Rc<ServerPool>) -> bool {
        self.0.iter().any(|tried| Rc::ptr_eq(tried, pool))
    }
}

/// Addresses whose label is kept. A name may resolve to ever new ones.
const MAX_LABELS: usize = 64;

impl Upstream {
    /// The upstream at the worker of this number; idle connections rest in `parking`.
    /// `before` is what a configuration that ends had in its place: pools of servers that stay
    /// are taken over with their connections.
    pub fn new(
        upstream: &config::Upstream,
        group: Arc<Group>,
        metrics: &UpstreamMetrics,
        parking: &Rc<Parking>,
        worker: usize,
        before: Option<&Self>,
    ) -> Self {
        let passive = upstream.ejection.clone();
        let this = Self {
            name: upstream.name.as_str().into(),
            host: upstream.host,
            local_bypass: upstream.local_bypass,
            proxy_protocol: upstream.proxy_protocol,
            passive: passive.map(|rules| Rc::new(Passive::new(Arc::clone(&group), rules))),
            panic_percent: upstream.panic_percent,
            group,
            choice: upstream.choice.clone(),
            counts_load: upstream.choice.counts_load(),
            pools: pool::Settings {
                http2: (upstream.speaks != config::Speaks::Http1).then_some(upstream.http2),
                either: upstream.speaks == config::Speaks::Either,
                proxy_protocol: upstream.proxy_protocol,
                max_idle: upstream.max_idle_connections,
                idle_timeout: upstream.idle_timeout,
                max_open: upstream.max_connections,
                max_open_everywhere: None,
                max_open_of_all: upstream.breaker.max_connections,
                min_idle: upstream.min_idle_connections,
                max_age: upstream.max_connection_age,
                fast_open: upstream.tcp_fast_open,
                max_requests: upstream.max_requests_per_connection,
            },
            tls: upstream.tls.clone(),
            retry: upstream.retry.clone(),
            breaker: upstream.breaker,
            savings: Savings::default(),
            metrics: metrics.clone(),
            parking: Rc::clone(parking),
            worker,
            seen: Cell::new(0),
            servers: RefCell::default(),
            lineup: RefCell::default(),
            due: Cell::new(None),
            labels: RefCell::default(),
        };
        let rules = |of: &Self| of.passive.as_ref().map(|passive| passive.rules().clone());
        let same = |before: &&Self| {
            before.pools == this.pools && before.tls == this.tls && rules(before) == rules(&this)
        };
        if let Some(before) = before.filter(same) {
            this.servers.replace(before.servers.borrow().clone());
        }
        this.follow();
        this
    }

    /// What a request brings for the choice of its server.
    pub fn key(&self, headers: &HeaderMap, path: &str, client: IpAddr) -> Key {
        Key::of_request(&self.choice, headers, path, client)
    }

    /// What a connection that is not looked into brings.
    pub fn key_of_connection(&self, client: IpAddr) -> Key {
        Key::of_connection(&self.choice, client)
    }

    /// The server for a request, of those that it has not been to. `None`: there is none.
    pub fn pick(&self, key: Key, tried: &Tried) -> Option<Picked> {
        self.pick_of(key, tried, |_, _| true)
    }

    /// One that may answer beside those that it is at: not one that only stands in for others.
    pub fn pick_beside(&self, key: Key, tried: &Tried) -> Option<Picked> {
        self.pick_of(key, tried, |lineup, chosen| lineup.first().any(|server| server == chosen))
    }

    fn pick_of(
        &self,
        key: Key,
        tried: &Tried,
        may: impl FnOnce(&Lineup, usize) -> bool,
    ) -> Option<Picked> {
        self.keep_up();
        let servers = self.servers.borrow();
        let mut lineup = self.lineup.borrow_mut();
        let chosen = lineup.choose(&servers, key, &|pool| tried.has(pool), state::now);
        let (chosen, set_cookie) = chosen?;
        let set_cookie = set_cookie.cloned();
        if !may(&lineup, chosen) {
            return None;
        }
        let pool = Rc::clone(&servers[chosen]);
        let load = self.counts_load.then(|| Load::begin(pool.state()));
        Some(Picked { pool, load, set_cookie })
    }

    /// Lets a request in, or says at once that there are too many.
    ///
    /// # Errors
    /// [`Kind::Overloaded`].
    pub fn admit(&self) -> Result<Option<Permit>, Error> {
        if let Some(retry) = &self.retry {
            self.savings.pay_in(retry.budget_percent);
        }
        self.breaker.max_requests.map(|most| Permit::request(&self.group, most)).transpose()
    }

    /// Lets a request wait for a connection, or says at once that too many do.
    ///
    /// # Errors
    /// [`Kind::Overloaded`].
    pub fn wait(&self) -> Result<Option<Permit>, Error> {
        self.breaker.max_pending.map(|most| Permit::pending(&self.group, most)).transpose()
    }

    /// Whether its servers are spoken to over HTTP/2, and tunnels asked for over it.
    pub fn speaks_http2(&self) -> bool {
        self.pools.http2.is_some() && !self.pools.either
    }

    /// What is sent again beyond what is always safe.
    pub fn retry(&self) -> Option<&config::Retry> {
        self.retry.as_ref()
    }

    /// Whether the budget has a retry left; it is taken.
    pub fn take_retry(&self) -> bool {
        let Some(retry) = &self.retry else { return false };
        let each = &self.group.each_second;
        let may = each.take(retry.budget_min_per_second, state::now()) || self.savings.take();
        if !may {
            self.metrics.retry_denied();
        }
        may
    }

    /// Its counters.
    pub fn metrics(&self) -> &UpstreamMetrics {
        &self.metrics
    }

    /// Follows the group where that has changed.
    fn keep_up(&self) {
        if self.group.version() != self.seen.get()
            || self.due.get().is_some_and(|due| state::now() >= due)
        {
            self.follow();
        }
    }

    /// Makes pools and order those of the group as it is now.
    fn follow(&self) {
        // Read first: what changes after it is seen next time.
        self.seen.set(self.group.version());
        let roster = self.group.roster();
        let mut servers = self.servers.borrow_mut();
        let pool = |member: &Member| {
            let mut settings = self.pools;
            settings.max_open_everywhere = member.spec.max_connections;
            let is_it = |pool: &&Rc<ServerPool>| {
                Arc::ptr_eq(pool.state(), &member.state) && *pool.settings() == settings
            };
            if let Some(pool) = servers.iter().find(is_it) {
                return Rc::clone(pool);
            }
            let (metrics, parking) = (self.metrics.clone(), Rc::clone(&self.parking));
            let (state, passive) = (Arc::clone(&member.state), self.passive.clone());
            let group = Arc::clone(&self.group);
            let named = &member.spec.address;
            let secure = self.tls.as_ref().map(|tls| pool::Secure::new(tls, named));
            let pool = ServerPool::new(named, state, settings, metrics, parking, passive, group);
            Rc::new(pool.secured(secure))
        };
        let pools: Vec<_> = roster.iter().map(pool).collect();
        for gone in servers.iter().filter(|pool| !pools.iter().any(|stays| Rc::ptr_eq(pool, stays)))
        {
            gone.retire();
        }
        *servers = pools;
        let rules = Rules {
            choice: &self.choice,
            panic_percent: self.panic_percent,
            upstream: &self.name,
            worker: self.worker,
        };
        let mut lineup = Lineup::new(&roster, &rules, state::now());
        lineup.go_on(self.lineup.take());
        self.due.set(lineup.due());
        self.lineup.replace(lineup);
    }

    /// How a tunnel to this address of a server is named in `/tunnels`. One text for all.
    pub fn label(&self, address: SocketAddr) -> Arc<str> {
        let mut labels = self.labels.borrow_mut();
        if let Some((_, label)) = labels.iter().find(|(known, _)| *known == address) {
            return Arc::clone(label);
        }
        let label: Arc<str> = format!("{} ({address})", self.name).into();
        if labels.len() < MAX_LABELS {
            labels.push((address, Arc::clone(&label)));
        }
        label
    }

    /// Whether nothing is open to any server and nothing kept.
    pub fn is_unused(&self) -> bool {
        self.servers.borrow().iter().all(|pool| pool.is_unused())
    }

    /// No configuration that anybody goes by has it: its pools keep nothing more, but for those that
    /// one of `others` has taken over.
    pub fn retire(&self, others: &[Rc<Self>]) {
        for pool in self.servers.borrow().iter() {
            let is_it = |other: &Rc<ServerPool>| Rc::ptr_eq(other, pool);
            if !others.iter().any(|other| other.servers.borrow().iter().any(is_it)) {
                pool.retire();
            }
        }
    }

    /// Looks after idle connections, and lets go of servers that are gone.
    pub fn sweep(&self, now: tokio::time::Instant) {
        self.keep_up();
        let servers = self.servers.borrow();
        servers.iter().for_each(|pool| pool.sweep(now));
        if self.pools.min_idle > 0 {
            let lineup = self.lineup.borrow();
            lineup.first().for_each(|server| servers[server].prewarm());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::Metrics, tunnel::Registry};

    fn upstream(servers: &str, worker: usize) -> (Upstream, Arc<Group>) {
        let text = format!(
            "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nupstream = \"u\"\n[[upstream]]\nname = \"u\"\nservers = [{servers}]\n"
        );
        let config = config::parse(&text, "test").unwrap();
        let metrics = Metrics::new(1, Registry::new()).worker(0).upstream("u");
        let (parking, group) = (Parking::new().unwrap(), Group::new(&config.upstreams[0]));
        let config = &config.upstreams[0];
        (Upstream::new(config, Arc::clone(&group), &metrics, &parking, worker, None), group)
    }

    fn port(upstream: &Upstream, tried: &Tried) -> Option<u16> {
        upstream.pick(Key::default(), tried).map(|picked| picked.pool.server().port)
    }

    #[tokio::test]
    async fn everybody_has_a_turn_and_each_attempt_another_server() {
        let (upstream, _) = upstream("\"a:1\", \"a:2\", \"a:3\"", 4);
        // All are taken before any is followed, as by requests at the same time.
        let first =
            [(); 4].map(|()| upstream.pick(Key::default(), &Tried::default()).unwrap().pool);
        assert_eq!(first.each_ref().map(|pool| pool.server().port), [2, 3, 1, 2]);
        for pool in first {
            let (mut tried, mut ports) = (Tried::default(), vec![pool.server().port]);
            tried.add(&pool);
            while let Some(next) = upstream.pick(Key::default(), &tried) {
                ports.push(next.pool.server().port);
                tried.add(&next.pool);
            }
            ports.sort_unstable();
            assert_eq!(ports, [1, 2, 3]);
        }
    }

    #[tokio::test]
    async fn what_drains_gets_nothing_and_a_backup_waits_for_the_others_to_be_gone() {
        let (upstream, group) =
            upstream("\"a:1\", \"a:2\", { address = \"a:3\", backup = true }", 0);
        let none = Tried::default();
        assert_eq!([(); 4].map(|()| port(&upstream, &none)), [1, 2, 1, 2].map(Some));
        group.set_drain("a:1", Some(true));
        assert_eq!([(); 2].map(|()| port(&upstream, &none)), [Some(2); 2]);
        group.set_weight("a:2", Some(0));
        assert_eq!([(); 2].map(|()| port(&upstream, &none)), [Some(3); 2]);
        group.set_drain("a:3", Some(true));
        assert_eq!(port(&upstream, &none), None);
        group.set_weight("a:2", None);
        assert_eq!(port(&upstream, &none), Some(2));
    }

    #[tokio::test]
    async fn a_change_of_one_server_leaves_the_pools_of_the_others() {
        let (upstream, group) = upstream("\"a:1\", \"a:2\"", 0);
        let pool = upstream.pick(Key::default(), &Tried::default()).unwrap().pool;
        group.set_weight("a:2", Some(5));
        let again =
            [(); 6].map(|()| upstream.pick(Key::default(), &Tried::default()).unwrap().pool);
        assert_eq!(again.iter().filter(|again| Rc::ptr_eq(again, &pool)).count(), 1);
    }
}
