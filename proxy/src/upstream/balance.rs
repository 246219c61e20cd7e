//! Which server of an upstream gets the next request. State is per worker.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    ops::Range,
    rc::Rc,
    sync::Arc,
};

use super::{parked::Parking, pool::ServerPool};
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
    labels: RefCell<Vec<(SocketAddr, Arc<str>)>>,
}

/// Addresses whose label is kept. A name may resolve to ever new ones.
const MAX_LABELS: usize = 64;

impl Upstream {
    /// `first` staggers workers, so that they do not all begin with the same server.
    /// Idle connections rest in `parking`.
    pub fn new(
        upstream: &config::Upstream,
        metrics: &UpstreamMetrics,
        parking: &Rc<Parking>,
        first: usize,
    ) -> Self {
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
                    let (metrics, parking) = (metrics.clone(), Rc::clone(parking));
                    Rc::new(ServerPool::new(server.clone(), settings, metrics, parking))
                })
                .collect(),
            next: Cell::new(first),
            labels: RefCell::default(),
        }
    }

    /// The server whose turn it is, round robin, and the others for further attempts: each
    /// of these gives one to [`Self::server`]. Once per request, for the turn moves on with it.
    pub fn turn(&self) -> (&Rc<ServerPool>, Range<usize>) {
        let turn = self.next.get() % self.servers.len();
        self.next.set(turn + 1);
        (&self.servers[turn], turn + 1..turn + self.servers.len())
    }

    /// The server of a further attempt.
    pub fn server(&self, attempt: usize) -> &Rc<ServerPool> {
        &self.servers[attempt % self.servers.len()]
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

    /// All servers, for sweeping.
    pub fn servers(&self) -> &[Rc<ServerPool>] {
        &self.servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::Metrics, tunnel::Registry};

    #[tokio::test]
    async fn everybody_has_a_turn_and_each_attempt_another_server() {
        let text = "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n\
                    [[route]]\nupstream = \"u\"\n[[upstream]]\nname = \"u\"\n\
                    servers = [\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\"]\n";
        let config = config::parse(text, "test").unwrap();
        let metrics = Metrics::new(1, Registry::new()).worker(0).upstream("u");
        let upstream = Upstream::new(&config.upstreams[0], &metrics, &Parking::new().unwrap(), 4);
        let ports = |(first, others): (&Rc<ServerPool>, Range<usize>)| -> Vec<u16> {
            let others = others.map(|attempt| upstream.server(attempt));
            std::iter::once(first).chain(others).map(|pool| pool.server().port).collect()
        };
        // All are taken before any is followed, as by requests at the same time.
        let turns = [(); 4].map(|()| upstream.turn());
        assert_eq!(turns.map(ports), [[2, 3, 1], [3, 1, 2], [1, 2, 3], [2, 3, 1]]);
    }
}
