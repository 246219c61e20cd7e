//! One data-plane thread: a current-thread runtime with its own listeners, pools and
//! deadlines. What it shares with others is read-only or atomic.
//!
//! Implements: REQ-CTRL-002, REQ-CTRL-005

use std::{
    cell::{Cell, RefCell},
    io,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderName;
use tokio::{sync::Notify, time::Instant};

mod change;
mod forward;
pub mod orders;
pub mod thread;

use forward::Forward;

use crate::{
    access_log, acme, admin,
    cache::Cache,
    config::{Config, SpliceMode},
    connection::parked::Parking,
    drain,
    error::{Error, Kind},
    listener::{Door, Listener, steer::Seat},
    metrics::WorkerMetrics,
    middleware::{Chain, Chains},
    reclaim::Reclaim,
    record,
    route::{self, Matched},
    spans::Tracer,
    splice::{Engine, Ktls, kernel::Kernel},
    tunnel,
    upstream::{
        self,
        balance::Upstream,
        directory::{Directory, Group},
    },
    watchdog::Watchdog,
};

/// How often idle upstream connections are looked at, connections that never came forgotten, and
/// memory that is free.
const SWEEP: Duration = Duration::from_secs(1);

/// A configuration, compiled. Never changes; a reload puts another in its place.
#[derive(Debug)]
pub struct Snapshot {
    /// As it was checked.
    pub config: Arc<Config>,
    /// Its routes.
    pub routes: route::Table,
    /// What is done with requests on their way.
    pub chains: Chains,
    /// Its upstreams, in the order of the configuration, with what is known of their servers.
    pub groups: Vec<Arc<Group>>,
}

impl Snapshot {
    /// Compiles what requests need, and has the directory follow the configuration.
    /// `before`: the one in force so far, whose limits go on counting.
    pub fn new(config: Config, directory: &Directory, before: Option<&Self>) -> Self {
        let routes = route::Table::compile(&config);
        let groups = directory.apply(&config.upstreams);
        let chains = Chains::compile(&config, before.map(|before| &before.chains));
        Self { config: Arc::new(config), routes, chains, groups }
    }
}

/// What all threads share.
#[derive(Debug)]
pub struct Process {
    /// The configuration in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// All open tunnels.
    pub tunnels: Arc<tunnel::registry::Registry>,
    /// All upstreams and their servers, over every reload.
    pub directory: Arc<Directory>,
    /// Counters, tunnels and configuration for the admin endpoint.
    pub admin: Arc<admin::State>,
    /// Engine of tunnels.
    pub splice: SpliceMode,
    /// What of TLS the kernel takes over.
    pub ktls: Ktls,
    /// Answers that are kept, where any are.
    pub cache: Option<Arc<Cache>>,
    /// What makes requests parts of traces, where there is a collector.
    pub tracer: Option<Tracer>,
    /// The kernel tier, where it is to be had and wanted.
    pub kernel: Option<Arc<Kernel>>,
    /// What a CA is to find that is asked for a certificate.
    pub answers: Arc<acme::Answers>,
}

/// One worker, seen from its own thread.
#[derive(Debug)]
pub struct Worker {
    /// Shared state.
    pub process: Arc<Process>,
    /// This worker's counters.
    pub metrics: WorkerMetrics,
    /// This worker's end of the access log.
    pub log: access_log::Writer,
    /// This worker's end of the recorder, where there is one.
    pub recorder: Option<Rc<record::Lane>>,
    /// Deadlines.
    pub watchdog: Watchdog,
    /// Idle connections of clients.
    pub parking: Parking,
    /// Idle connections to servers.
    upstream_parking: Rc<upstream::parked::Parking>,
    /// For those who wait for the end by themselves.
    pub drain: drain::Watch,
    index: usize,
    leaving: Cell<bool>,
    draining: Cell<bool>,
    forced: Cell<bool>,
    connections: Cell<usize>,
    /// Copies of requests under way.
    mirrors: Rc<()>,
    /// Where this worker says how many those are.
    seats: RefCell<Vec<Weak<Seat>>>,
    last_gone: Notify,
    view: RefCell<Rc<View>>,
    /// Upstreams of configurations before.
    past: RefCell<Vec<Weak<Upstream>>>,
    doors: RefCell<Vec<Rc<Door>>>,
    /// Sockets that are registered and accept nothing yet.
    prepared: RefCell<Vec<orders::Prepared>>,
    /// With the number of the door.
    accepting: RefCell<Vec<(u64, tokio::task::JoinHandle<()>)>>,
    /// All that some connection may still belong to.
    listeners: RefCell<Vec<Weak<Listener>>>,
    forward: Forward,
}

/// A configuration as this worker goes by it: its upstreams and routes.
#[derive(Debug)]
pub struct View {
    snapshot: Arc<Snapshot>,
    upstreams: Vec<Rc<Upstream>>,
    /// Whether servers of any of them are told of clients.
    announces: bool,
    routes: Vec<Rc<Matched>>,
}

impl View {
    fn new(
        snapshot: Arc<Snapshot>,
        metrics: &WorkerMetrics,
        parking: &Rc<upstream::parked::Parking>,
        index: usize,
        before: &[Rc<Upstream>],
    ) -> Self {
        let upstreams = snapshot.config.upstreams.iter().zip(&snapshot.groups);
        let upstreams: Vec<_> = upstreams
            .map(|(upstream, group)| {
                let metrics = metrics.upstream(&upstream.name);
                let before = before.iter().find(|before| *before.name == *upstream.name);
                let before = before.map(Rc::as_ref);
                let group = Arc::clone(group);
                Rc::new(Upstream::new(upstream, group, &metrics, parking, index, before))
            })
            .collect();
        let routes = Matched::all(&snapshot.config, &snapshot.chains, &upstreams, metrics);
        let announces = upstreams.iter().any(|upstream| upstream.proxy_protocol.is_some());
        Self { snapshot, upstreams, announces, routes }
    }
}

impl Worker {
    fn new(
        process: Arc<Process>,
        (log, recorder): (access_log::Writer, Option<record::Lane>),
        drain: drain::Watch,
        index: usize,
    ) -> io::Result<Self> {
        let metrics = process.admin.metrics.worker(index);
        let snapshot = process.snapshot.load_full();
        let watchdog = Watchdog::new(shortest(&snapshot.config));
        let upstream_parking = upstream::parked::Parking::new()?;
        Ok(Self {
            view: RefCell::new(Rc::new(View::new(
                snapshot,
                &metrics,
                &upstream_parking,
                index,
                &[],
            ))),
            past: RefCell::default(),
            doors: RefCell::default(),
            prepared: RefCell::default(),
            accepting: RefCell::default(),
            listeners: RefCell::default(),
            forward: Forward::new(metrics.upstream("forward")),
            leaving: Cell::new(false),
            draining: Cell::new(false),
            forced: Cell::new(false),
            connections: Cell::new(0),
            mirrors: Rc::default(),
            seats: RefCell::default(),
            last_gone: Notify::new(),
            process,
            metrics,
            log,
            recorder: recorder.map(Rc::new),
            watchdog,
            parking: Parking::new()?,
            upstream_parking,
            drain,
            index,
        })
    }

    /// Whether connections are to end with their next answer.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Whether connections are to end after what they are doing.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether connections are to end now.
    pub fn is_forced(&self) -> bool {
        self.forced.get()
    }

    /// Counts a connection until the guard is dropped.
    pub fn connection_opens(self: &Rc<Self>) -> ConnectionGuard {
        self.set_connections(self.connections.get() + 1);
        ConnectionGuard(Rc::clone(self))
    }

    fn set_connections(&self, open: usize) {
        self.connections.set(open);
        self.each_seat(|seat| seat.set_load(open));
    }

    fn each_seat(&self, tell: impl Fn(&Seat)) {
        self.seats.borrow().iter().filter_map(Weak::upgrade).for_each(|seat| tell(&seat));
    }

    /// The route of a request.
    ///
    /// # Errors
    /// Those of [`route::Table::find`].
    pub fn route(&self, listener: &Listener, head: &route::Head<'_>) -> Result<Rc<Matched>, Error> {
        self.routed(listener, |routes| routes.find(listener.index(), head))
    }

    /// The route of a connection of a tcp listener, by the server name where it has one.
    ///
    /// # Errors
    /// [`Kind::NoRoute`].
    pub fn route_tcp(
        &self,
        listener: &Listener,
        server_name: Option<&str>,
    ) -> Result<Rc<Matched>, Error> {
        self.routed(listener, |routes| routes.find_tcp(listener.index(), server_name))
    }

    /// Whether a route of this tcp listener goes by the server name.
    pub fn wants_server_name(&self, listener: &Listener) -> bool {
        self.view_of(listener).snapshot.routes.wants_server_name(listener.index())
    }

    /// Whether paths are put into their normal form before they are routed.
    pub fn normalises_paths(&self, listener: &Listener) -> bool {
        self.view_of(listener).snapshot.routes.normalises(listener.index())
    }

    /// What is done with every request of a listener.
    pub fn chain_of(&self, listener: &Listener) -> Option<Arc<Chain>> {
        self.view_of(listener).snapshot.chains.of_listener(listener.index()).cloned()
    }

    fn routed(
        &self,
        listener: &Listener,
        find: impl Fn(&route::Table) -> Result<usize, Kind>,
    ) -> Result<Rc<Matched>, Error> {
        let view = self.view_of(listener);
        let found = find(&view.snapshot.routes);
        found.map(|index| Rc::clone(&view.routes[index])).map_err(Error::new)
    }

    /// An upstream by its name, as connections of this listener have it.
    pub fn upstream_named(&self, listener: &Listener, name: &str) -> Option<Rc<Upstream>> {
        let view = self.view_of(listener);
        view.upstreams.iter().find(|upstream| *upstream.name == *name).cloned()
    }

    /// Names of fields that only we may write, by the configuration in force: also on connections
    /// that go by an earlier one, for servers go by this one already.
    pub fn guarded(&self, see: impl FnOnce(&[HeaderName])) {
        let view = self.view.borrow();
        // The same for all listeners.
        let listener = view.snapshot.config.listeners.first();
        see(listener.map_or(&[], |listener| &listener.guarded_fields));
    }

    /// Whether servers are told of clients: a connection that begins now needs its addresses.
    pub fn announces(&self) -> bool {
        self.view.borrow().announces
    }

    /// A place among the copies of requests, of which there are at most so many.
    pub fn mirror_begins(&self, most: usize) -> Option<Rc<()>> {
        // One is the worker's own.
        (Rc::strong_count(&self.mirrors) <= most).then(|| Rc::clone(&self.mirrors))
    }

    /// The configuration that connections of this listener go by.
    fn view_of(&self, listener: &Listener) -> Rc<View> {
        listener.parted().unwrap_or_else(|| Rc::clone(&self.view.borrow()))
    }

    /// Counts a tunnel while it runs.
    pub async fn report_tunnel(
        &self,
        begins_with: Engine,
        run: impl Future<Output = tunnel::Outcome>,
    ) -> tunnel::Outcome {
        let _open = self.metrics.tunnel(begins_with);
        run.await
    }

    async fn sweep(&self) {
        let reclaim = Reclaim::default();
        loop {
            tokio::time::sleep(SWEEP).await;
            self.each_seat(Seat::tick);
            reclaim.look(self.parking.parked() + self.upstream_parking.parked());
            let now = Instant::now();
            self.sweep_upstreams(now);
            self.forward.sweep(now);
        }
    }

    /// Follows the drain and tells the connections, which look at the flags when woken.
    async fn follow(&self) {
        let mut drain = self.drain.clone();
        drain.leaving().await;
        self.leaving.set(true);
        self.watchdog.wake_all();
        drain.draining().await;
        self.draining.set(true);
        self.watchdog.wake_all();
        self.parking.close();
        drain.forced().await;
        self.forced.set(true);
        self.watchdog.force();
        std::future::pending().await
    }
}

/// One open connection of a worker.
#[derive(Debug)]
pub struct ConnectionGuard(Rc<Worker>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let left = self.0.connections.get() - 1;
        self.0.set_connections(left);
        if left == 0 {
            self.0.last_gone.notify_one();
        }
    }
}

/// The shortest limit that the watchdog of a worker looks after.
fn shortest(config: &Config) -> Duration {
    let limits = config.listeners.iter().map(|listener| &listener.limits);
    limits
        .flat_map(|l| {
            let of_http = [l.head_timeout, l.idle_timeout, l.body_idle_timeout, l.response_timeout];
            of_http.into_iter().chain([l.tunnel_idle_timeout])
        })
        .min()
        .unwrap_or(Duration::from_secs(1))
}
