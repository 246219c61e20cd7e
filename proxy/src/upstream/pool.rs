//! Connections to one server, kept by one worker, in two layers: what is there without
//! waiting, and what has to be made. Tunnels of tcp listeners take theirs here as well, so
//! that they count.
//!
//! Invariant: an idle connection in the pool has carried whole exchanges only. One that the server
//! closes leaves at the next sweep or when it would be used, or, parked with the others of the
//! worker, by itself; one on which bytes came goes in the same way.
//!
//! Implements: REQ-CTRL-001

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use http::HeaderValue;
use tokio::{sync::Notify, time::Instant};

use super::{
    breaker::Open,
    connection::Connection,
    directory::Group,
    health::eject::Passive,
    http1::{Http1, Life, Link},
    parked::{Parking, Spot},
    state::ServerState,
    tls::Inside,
};
use crate::{
    config::Server,
    error::{Error, Kind},
    metrics::UpstreamMetrics,
    transport::Transport,
};

mod dial;
mod either;
mod places;
mod prewarm;
mod settings;
mod shared;

pub use places::Lease;
use places::{Place, Waiting};
pub use settings::{Making, Secure, Settings};
use shared::Shared;

/// For how long a connection idles before it is parked, which makes it cost a little to take
/// it into use again.
const PARK_AFTER: Duration = Duration::from_millis(500);

/// Connections of one pool that are parked in one sweep (`watchdog.rs` says why).
const PARK_AT_ONCE: usize = 256;

/// What came of asking for another connection.
enum Admitted {
    /// There may be one.
    May(Open),
    /// There is one already.
    Kept(Connection),
}

struct Idle {
    kept: Kept,
    since: Instant,
}

enum Kept {
    Ready(Rc<Link>),
    Parked(Spot),
}

impl Kept {
    fn age(&self, now: Instant) -> Duration {
        match self {
            Self::Ready(link) => link.age(now),
            Self::Parked(spot) => spot.age(now),
        }
    }

    fn is_open(&self) -> bool {
        match self {
            Self::Ready(link) => link.is_quiet(),
            Self::Parked(spot) => spot.is_open(),
        }
    }
}

/// The connections of one worker to one server.
pub struct ServerPool {
    state: Arc<ServerState>,
    host: HeaderValue,
    settings: Settings,
    secure: Option<Secure>,
    metrics: UpstreamMetrics,
    parking: Rc<Parking>,
    passive: Option<Rc<Passive>>,
    group: Arc<Group>,
    warming: Cell<usize>,
    /// Requests of this worker that wait for a connection to end, at whichever worker.
    waiting: Cell<usize>,
    idle: RefCell<VecDeque<Idle>>,
    /// Over HTTP/2.
    shared: Shared,
    open: Cell<usize>,
    freed: Notify,
    /// Nothing is kept any more.
    retired: Cell<bool>,
}

impl std::fmt::Debug for ServerPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerPool")
            .field("server", self.server())
            .field("open", &self.open)
            .finish()
    }
}

impl ServerPool {
    /// An empty pool of a server that is `named` so, whose idle connections rest in `parking`.
    pub fn new(
        named: &Server,
        state: Arc<ServerState>,
        settings: Settings,
        metrics: UpstreamMetrics,
        parking: Rc<Parking>,
        passive: Option<Rc<Passive>>,
        group: Arc<Group>,
    ) -> Self {
        // A server's name that cannot stand in a field was refused with the configuration.
        let host = HeaderValue::from_str(&named.to_string());
        Self {
            state,
            host: host.unwrap_or(HeaderValue::from_static("")),
            settings,
            secure: None,
            metrics,
            parking,
            passive,
            group,
            warming: Cell::new(0),
            waiting: Cell::new(0),
            idle: RefCell::default(),
            shared: Shared::default(),
            open: Cell::new(0),
            freed: Notify::new(),
            retired: Cell::new(false),
        }
    }

    /// The same over TLS, where that is asked for.
    pub fn secured(mut self, secure: Option<Secure>) -> Self {
        self.secure = secure;
        self
    }

    /// The server it leads to.
    pub fn server(&self) -> &Server {
        self.state.address()
    }

    /// Its limits.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What all threads know of that server.
    pub fn state(&self) -> &Arc<ServerState> {
        &self.state
    }

    /// What takes note of how requests end there, where anybody asks.
    pub fn passive(&self) -> Option<&Passive> {
        self.passive.as_deref()
    }

    /// Its name and port, as `Host` has them.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Counters of the upstream.
    pub fn metrics(&self) -> &UpstreamMetrics {
        &self.metrics
    }

    /// Whether nothing is open and nothing kept.
    pub fn is_unused(&self) -> bool {
        self.open.get() == 0
    }

    /// A kept connection, the one used last. Never waits.
    pub fn try_acquire(self: &Rc<Self>, making: &Making<'_>) -> Option<Connection> {
        if making.announcement.is_some() {
            return None;
        }
        if self.settings.http2.is_some() && !self.is_for_http1(making) {
            let stream = self.try_stream();
            if stream.is_some() || !self.settings.either {
                return stream;
            }
        }
        loop {
            let Idle { kept, .. } = self.idle.borrow_mut().pop_back()?;
            let connection = match kept {
                Kept::Ready(link) => Http1::resume(link, making.preserve_header_case),
                Kept::Parked(spot) => spot.resume(self, making),
            };
            if connection.is_some() {
                self.metrics.reused();
                return connection.map(Connection::Http1);
            }
        }
    }

    /// A fresh connection, or one that another exchange gives back meanwhile.
    ///
    /// # Errors
    /// [`Kind::ConnectTimeout`] or [`Kind::PoolExhausted`] after `making.timeout`, or as
    /// [`super::connect::connect`]. All are safe to retry elsewhere.
    pub async fn acquire_slow(self: &Rc<Self>, making: Making<'_>) -> Result<Connection, Error> {
        let deadline = Instant::now() + making.timeout;
        match self.settings.http2 {
            Some(http2) if !self.is_to_be_http1(&making) => {
                self.acquire_stream(making, http2, deadline).await
            }
            _ => self.acquire_own(making, deadline).await,
        }
    }

    /// A connection without HTTP on it, which counts until its lease is dropped. An idle one
    /// of the pool makes room for it. The server has been sent `announcement` first.
    ///
    /// # Errors
    /// As [`Self::acquire_slow`]. All are safe to retry elsewhere.
    pub async fn connect(
        self: &Rc<Self>,
        timeout: Duration,
        announcement: Option<&[u8]>,
    ) -> Result<(Transport, SocketAddr, Lease), Error> {
        let deadline = Instant::now() + timeout;
        while self.is_full() {
            let freed = self.freed.notified();
            // Dropped it is closed, and that frees the place.
            if self.idle.borrow_mut().pop_front().is_none() && self.shared.stop_idle() {
                continue;
            }
            if tokio::time::timeout_at(deadline, freed).await.is_err() {
                return Err(Error::new(Kind::PoolExhausted).retry_safe());
            }
        }
        let make_room = || {
            if self.idle.borrow_mut().pop_front().is_none() {
                self.shared.stop_idle();
            }
            None
        };
        let Admitted::May(open) = self.admit(deadline, make_room).await? else {
            return Err(Error::new(Kind::PoolExhausted).retry_safe());
        };
        let lease = Lease::take(Rc::clone(self), Some(Life::new(open)));
        let (stream, address) = self.dial(deadline, None, announcement, Inside::Anything).await?;
        Ok((stream, address, lease))
    }

    /// Waits until there may be another connection, over all workers, or until `instead` has
    /// one that exists.
    async fn admit(
        self: &Rc<Self>,
        deadline: Instant,
        instead: impl Fn() -> Option<Connection>,
    ) -> Result<Admitted, Error> {
        let mut waiting = None;
        loop {
            let (here, anywhere) = (self.freed.notified(), self.group.until_freed());
            let error = match self.open_another() {
                Ok(open) => return Ok(Admitted::May(open)),
                Err(error) if error.kind != Kind::PoolExhausted => return Err(error),
                Err(error) => error,
            };
            if let Some(connection) = instead() {
                return Ok(Admitted::Kept(connection));
            }
            // From now on other workers let go of what they do not use.
            waiting.get_or_insert_with(|| Waiting::begin(self));
            let freed = async {
                tokio::select! {
                    () = here => {}
                    () = anywhere => {}
                }
            };
            if tokio::time::timeout_at(deadline, freed).await.is_err() {
                return Err(error);
            }
        }
    }

    /// Whether this worker has as many as it may.
    fn is_full(&self) -> bool {
        self.settings.max_open.is_some_and(|max| self.open.get() >= max)
    }

    fn open_another(&self) -> Result<Open, Error> {
        let Settings { max_open_everywhere, max_open_of_all, .. } = self.settings;
        Open::take(&self.group, &self.state, max_open_everywhere, max_open_of_all)
    }

    /// Keeps a connection for the next exchange. One that is not kept is closed, and that frees
    /// its place.
    pub(super) fn put(&self, link: Rc<Link>) {
        let spent = link.is_spent(self.settings.max_age, self.settings.max_requests);
        if spent || self.retired.get() || self.is_wanted_elsewhere() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.settings.max_idle {
            // The oldest goes.
            idle.pop_front();
        }
        if self.settings.max_idle > 0 {
            idle.push_back(Idle { kept: Kept::Ready(link), since: Instant::now() });
        }
        self.freed.notify_one();
    }

    /// There is no place for it any more in the configuration, or the server is gone: what is idle
    /// ends, and what is under way when it is over. A tunnel may hold the pool for days.
    pub fn retire(&self) {
        self.retired.set(true);
        drop(self.idle.take());
        self.shared.stop();
    }

    /// A connection of this pool has ended.
    pub(super) fn closed(&self) {
        self.open.set(self.open.get().saturating_sub(1));
        self.freed.notify_one();
    }

    /// Ends connections that have been idle for too long, and forgets dead ones. Those that
    /// have been idle for a while are to be parked.
    pub fn sweep(self: &Rc<Self>, now: Instant) {
        let Settings { idle_timeout, max_age, .. } = self.settings;
        let wanted = self.is_wanted_elsewhere();
        self.sweep_shared(now, wanted);
        self.idle.borrow_mut().retain(|idle| {
            let is_fresh = max_age.is_none_or(|most| idle.kept.age(now) < most);
            let in_time = now.duration_since(idle.since) < idle_timeout;
            idle.kept.is_open() && in_time && is_fresh && !wanted
        });
        let mut left = PARK_AT_ONCE;
        self.idle.borrow_mut().retain_mut(|idle| {
            let rests = now.duration_since(idle.since) >= PARK_AFTER && left > 0;
            let taken = match &idle.kept {
                Kept::Ready(link) if rests => link.take_for_parking(),
                _ => None,
            };
            let Some((stream, address, life)) = taken else { return true };
            left -= 1;
            match self.parking.park(stream, address, self, life) {
                Some(spot) => idle.kept = Kept::Parked(spot),
                None => {
                    self.closed();
                    return false;
                }
            }
            true
        });
    }

    /// Whether somebody at another worker waits for a connection to end.
    fn is_wanted_elsewhere(&self) -> bool {
        self.settings.max_open_everywhere.is_some()
            && self.waiting.get() == 0
            && self.state.waiting.load(Relaxed) > 0
    }
}

impl Drop for ServerPool {
    /// Idle connections end with their pool; those that are shared have tasks that hold them.
    fn drop(&mut self) {
        self.shared.stop();
    }
}
