//! Connections over HTTP/2: each carries as many requests as it may, and another one is made
//! only when all have so many.
//!
//! Requests that come while one is being made wait for it, as many as it will have room for, and
//! what became of it is told to all of them.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
};

use tokio::time::{Instant, timeout_at};

use super::{Admitted, Making, Place, ServerPool};
use crate::{
    config::Http2,
    error::{Error, Kind},
    splice::hop_bypass::{HopBypass, Side},
    transport::Transport,
    upstream::{
        connection::Connection,
        http1::Life,
        http2::{Carrier, Stream},
    },
};

/// The connections that are shared, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Those on which streams may be opened, the oldest first.
    carriers: RefCell<Vec<Rc<Carrier>>>,
    /// Under way.
    opening: Cell<usize>,
    /// Requests that wait for one of those.
    awaiting: Cell<usize>,
    /// How many have failed, and the last one why.
    failures: Cell<(u64, Option<Kind>)>,
    /// How many streams the server allowed when it last said so.
    allowed: Cell<Option<usize>>,
}

impl Shared {
    /// What a connection has room for on which the server has said nothing yet.
    fn allowed(&self, http2: &Http2) -> usize {
        let most = http2.max_streams as usize;
        // One that allows none for a while says otherwise in time.
        self.allowed.get().map_or(most, |allowed| allowed.clamp(1, most))
    }

    /// No more streams on any of them.
    pub(super) fn stop(&self) {
        self.carriers.take().iter().for_each(|carrier| carrier.stop());
    }

    /// Ends one that has nothing to do. Whether there was one.
    pub(super) fn stop_idle(&self) -> bool {
        let idle = self.carriers.borrow().iter().find(|carrier| carrier.is_idle()).cloned();
        idle.inspect(|carrier| carrier.stop()).is_some()
    }
}

/// A connection that is being made, and that others may wait for.
struct Opening<'a>(&'a ServerPool);

impl<'a> Opening<'a> {
    fn begin(pool: &'a ServerPool) -> Self {
        pool.shared.opening.set(pool.shared.opening.get() + 1);
        Self(pool)
    }

    fn failed(&self, error: &Error) {
        let (failures, _) = self.0.shared.failures.get();
        self.0.shared.failures.set((failures + 1, Some(error.kind)));
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.shared.opening.set(self.0.shared.opening.get() - 1);
        // Made, failed or given up: each looks for itself.
        self.0.freed.notify_waiters();
    }
}

/// A request that waits for one, until this is dropped.
struct Awaiting<'a>(&'a Cell<usize>);

impl<'a> Awaiting<'a> {
    fn begin(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// As it is checked out: boxed, so that connections of HTTP/1 are not as large.
fn of_stream(stream: Stream) -> Connection {
    Connection::Http2(Box::new(stream))
}

impl ServerPool {
    /// A stream of a connection that has room for one. Never waits.
    pub(super) fn try_stream(self: &Rc<Self>) -> Option<Connection> {
        let stream = self.open_stream(true)?;
        self.metrics.reused();
        Some(of_stream(stream))
    }

    fn open_stream(&self, reused: bool) -> Option<Stream> {
        // Apart: a connection that stops tells the pool.
        let carriers = self.shared.carriers.borrow();
        carriers.iter().find_map(|carrier| {
            if carrier.is_spent(self.settings.max_age, self.settings.max_requests) {
                carrier.stop();
            }
            carrier.open(reused)
        })
    }

    /// A stream of a connection that is made for it, or that another has made, or left.
    pub(super) async fn acquire_stream(
        self: &Rc<Self>,
        making: Making<'_>,
        http2: Http2,
        deadline: Instant,
    ) -> Result<Connection, Error> {
        loop {
            let freed = self.freed.notified();
            if let Some(kept) = self.try_acquire(&making) {
                return Ok(kept);
            }
            if self.is_to_be_http1(&making) {
                // It has turned out so while this one waited.
                return self.acquire_own(making, deadline).await;
            }
            let opening = self.shared.opening.get();
            let claimed = opening + self.shared.awaiting.get();
            if claimed < opening * self.shared.allowed(&http2) {
                let (failures, _) = self.shared.failures.get();
                let awaiting = Awaiting::begin(&self.shared.awaiting);
                if timeout_at(deadline, freed).await.is_err() {
                    return Err(Error::new(Kind::ConnectTimeout).retry_safe());
                }
                drop(awaiting);
                match self.shared.failures.get() {
                    (now, Some(kind)) if now != failures => {
                        // Another one may have been made meanwhile.
                        return self
                            .try_acquire(&making)
                            .ok_or(Error::new(kind).retry_safe().known());
                    }
                    _ => continue,
                }
            }
            if self.is_full() {
                if timeout_at(deadline, freed).await.is_err() {
                    return Err(Error::new(Kind::PoolExhausted).retry_safe());
                }
                continue;
            }
            let life = match self.admit(deadline, || self.try_acquire(&making)).await? {
                Admitted::May(open) => Life::new(open),
                Admitted::Kept(connection) => return Ok(connection),
            };
            if self.is_full() {
                // Others came first while this one waited.
                continue;
            }
            return self.open_carrier(making, deadline, life).await;
        }
    }

    /// One more connection, and the first stream on it, if it is one for streams.
    async fn open_carrier(
        self: &Rc<Self>,
        making: Making<'_>,
        deadline: Instant,
        life: Life,
    ) -> Result<Connection, Error> {
        let opening = Opening::begin(self);
        let place = Place::take(self);
        let made = self.make(making, deadline, life).await;
        let connection = made.inspect_err(|error| opening.failed(error))?;
        // From now on its task gives the place back.
        place.keep();
        Ok(connection)
    }

    /// Begins HTTP/2 on a new connection, and opens the first stream on it.
    pub(super) async fn share(
        self: &Rc<Self>,
        making: Making<'_>,
        stream: Transport,
        address: SocketAddr,
        http2: Http2,
        life: Life,
    ) -> Result<Connection, Error> {
        let (pool, allowed) = (Rc::downgrade(self), self.shared.allowed(&http2));
        let (bounds, start) = (making.bounds, Carrier::start);
        let hop = HopBypass::new(making.kernel, Side::Upstream);
        let started = start((stream, hop), address, http2, bounds, pool, life, allowed).await;
        let carrier = started.map_err(|error| Error::because(Kind::Connect, error).retry_safe())?;
        let stream = carrier.open(false).ok_or(Error::new(Kind::Connect).retry_safe());
        match self.retired.get() {
            true => carrier.stop(),
            false => self.shared.carriers.borrow_mut().push(carrier),
        }
        stream.map(of_stream)
    }

    /// A stream is over, and has made room for another.
    pub(in crate::upstream) fn stream_over(&self, carrier: &Carrier) {
        // Wanted elsewhere, it takes nothing new: one that is always busy would keep others for
        // ever from having one.
        if self.is_wanted_elsewhere() || carrier.is_idle() && self.settings.max_idle == 0 {
            carrier.stop();
        }
        self.freed.notify_one();
    }

    /// The server has said how many streams it allows.
    pub(in crate::upstream) fn streams_allowed(&self, now: usize) {
        self.shared.allowed.set(Some(now));
        self.freed.notify_waiters();
    }

    /// No more streams are opened on this one.
    pub(in crate::upstream) fn forget(&self, carrier: &Rc<Carrier>) {
        self.shared.carriers.borrow_mut().retain(|other| !Rc::ptr_eq(other, carrier));
        self.freed.notify_one();
    }

    /// Ends connections that have been idle for too long, are too old, or too many.
    pub(super) fn sweep_shared(&self, now: Instant, wanted: bool) {
        let mut carriers = self.shared.carriers.borrow_mut();
        let mut idle = 0;
        for carrier in carriers.iter().rev() {
            let is_over = carrier.is_idle() && {
                idle += 1;
                idle > self.settings.max_idle
                    || now.saturating_duration_since(carrier.used()) >= self.settings.idle_timeout
            };
            if is_over || wanted || carrier.is_spent(self.settings.max_age, None) {
                carrier.stop();
            }
        }
        carriers.retain(|carrier| carrier.is_open());
    }
}
