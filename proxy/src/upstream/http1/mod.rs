//! A connection to a server over HTTP/1.1, which carries one exchange at a time.
//!
//! There is no task behind it. Whoever waits for the answer sends the request and reads the head,
//! whoever passes the answer on reads its body; only where a server answers before it has the
//! whole request does a task of its own send the rest. So an exchange costs neither a spawn nor a
//! message between tasks, and what nobody asks for is not read.
//!
//! Implements: REQ-CORE-001.F-002, REQ-CORE-001.F-003

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    rc::{Rc, Weak},
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use tokio::{net::TcpStream, time::Instant};

use super::{
    breaker::Open,
    carried::Carried,
    fast_open::Opening,
    pool::{Lease, ServerPool},
};
use crate::{
    body::BodyStream, error::Kind, splice::hop_bypass::HopBypass, transport::Transport,
    wire::head::Bounds,
};

mod body;
mod outgoing;
mod sending;
#[cfg(test)]
mod tests;
mod wire;

pub use body::Body;
use outgoing::Failed;
pub use sending::Sending;
use wire::Wire;

/// How long the end of a request may take that has been answered already.
const REST_TIMEOUT: Duration = Duration::from_secs(30);

/// An interim response head, with its empty line.
#[derive(Debug, Clone)]
pub struct Interim {
    /// 100 to 199, not 101.
    pub status: u16,
    /// As the server sent it.
    pub head: Bytes,
}

/// What an open connection has behind it. Goes along when it is parked, and when it becomes a
/// tunnel.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) born: Instant,
    pub(super) requests: Cell<u32>,
    _open: Open,
}

impl Life {
    /// One that has just been made.
    pub(super) fn new(open: Open) -> Self {
        Self { born: Instant::now(), requests: Cell::new(0), _open: open }
    }

    /// Whether it has been open, or used, for as long as it may be.
    pub(super) fn is_spent(&self, age: Option<Duration>, requests: Option<u32>) -> bool {
        requests.is_some_and(|most| self.requests.get() >= most)
            || age.is_some_and(|most| self.born.elapsed() >= most)
    }
}

/// A connection, as those know it who see to a part of an exchange.
#[derive(Debug)]
pub struct Link {
    wire: RefCell<Wire>,
    address: SocketAddr,
    /// `None` once it has ended, or goes on as something else.
    life: RefCell<Option<Life>>,
    pool: Weak<ServerPool>,
    /// Whether it is one of the open ones of its pool.
    counts: Cell<bool>,
    /// Whether a task of its own sends the rest of a request.
    sending: Cell<bool>,
    /// That task.
    rest: RefCell<Option<Waker>>,
    /// Who reads the answer meanwhile.
    reader: RefCell<Option<Waker>>,
    /// The answer has been read to its end: the task is to give the connection back.
    returns: Cell<bool>,
}

impl Link {
    /// The next interim head.
    pub fn next_interim(&self) -> Option<Interim> {
        self.wire.borrow_mut().next_interim()
    }

    /// The rule that the server broke.
    pub fn fault(&self) -> Option<&'static str> {
        self.wire.borrow().fault()
    }

    /// Whether it is as a connection has to be between two exchanges: open, and nothing has come.
    pub(super) fn is_quiet(&self) -> bool {
        self.wire.borrow_mut().is_quiet()
    }

    /// Whether it has been open, or used, for as long as it may be.
    pub(super) fn is_spent(&self, age: Option<Duration>, requests: Option<u32>) -> bool {
        let life = self.life.borrow();
        life.as_ref().is_none_or(|life| life.is_spent(age, requests))
    }

    /// How many requests it has carried, while it is open.
    fn requests(&self) -> Option<u32> {
        self.life.borrow().as_ref().map(|life| life.requests.get())
    }

    /// For how long it has been open.
    pub(super) fn age(&self, now: Instant) -> Duration {
        let life = self.life.borrow();
        life.as_ref().map_or(Duration::ZERO, |life| now.saturating_duration_since(life.born))
    }

    /// Makes of an idle connection what can be parked, which counts as open still. `None`: it is
    /// more than a socket, and stays as it is.
    pub(super) fn take_for_parking(&self) -> Option<(TcpStream, SocketAddr, Life)> {
        let stream = self.wire.borrow_mut().take_plain()?;
        let life = self.life.take()?;
        self.counts.set(false);
        Some((stream, self.address, life))
    }

    /// Closes it at once.
    fn end(&self) {
        let body = self.wire.borrow_mut().close();
        drop(body);
        self.life.take();
        self.returns.set(false);
        // The socket is gone, and with it whoever waited for it there.
        for waker in [self.rest.take(), self.reader.take()].into_iter().flatten() {
            waker.wake();
        }
        self.leaves();
    }

    /// It is none of the open ones any more.
    fn leaves(&self) {
        if self.counts.replace(false)
            && let Some(pool) = self.pool.upgrade()
        {
            pool.closed();
        }
    }

    /// Sends what is left of a request whose answer has begun.
    async fn send_rest(self: Rc<Self>) {
        let sent = poll_fn(|cx| {
            *self.rest.borrow_mut() = Some(cx.waker().clone());
            self.wire.borrow_mut().poll_send(cx)
        });
        match sent.await {
            Ok(()) => {}
            // The answer may go on: many servers refuse so, and then read no more.
            Err(Failed::Socket(_)) => {
                let body = self.wire.borrow_mut().out.abandon();
                drop(body);
            }
            Err(Failed::Body(_) | Failed::Length) => self.end(),
        }
        self.sending.set(false);
        self.rest.take();
        self.reader.take();
        if self.returns.take() {
            self.give_back();
        }
    }

    /// Between two exchanges: into the pool, if it is of use there.
    fn give_back(self: Rc<Self>) {
        match self.pool.upgrade() {
            Some(pool) if self.wire.borrow().is_free() => pool.put(self),
            _ => self.end(),
        }
    }

    /// The answer was over before the server had the whole request, all of which is here.
    fn returns_when_sent(self: Rc<Self>) {
        self.returns.set(true);
        let request = self.requests();
        // Not one that keeps it open: it may be given back, and let go of, long before.
        let link = Rc::downgrade(&self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(REST_TIMEOUT).await;
            let Some(link) = link.upgrade() else { return };
            // Not of a later request, which has its own time.
            if link.returns.get() && link.requests() == request {
                link.end();
            }
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.leaves();
    }
}

/// A checked-out connection.
#[derive(Debug)]
pub struct Http1 {
    /// `None`: it has been given back.
    link: Option<Rc<Link>>,
    reused: bool,
    carried: Option<Box<Carried>>,
    opening: Option<Opening>,
}

impl Http1 {
    /// A fresh connection, or one that was parked. `pool` is where it counts as open, and where it
    /// may go when it is done.
    pub(super) fn new(
        stream: Transport,
        hop: HopBypass,
        address: SocketAddr,
        bounds: Bounds,
        keeps_case: bool,
        pool: Weak<ServerPool>,
        life: Life,
    ) -> Self {
        let link = Rc::new(Link {
            wire: RefCell::new(Wire::new(stream, hop, bounds, keeps_case)),
            address,
            life: RefCell::new(Some(life)),
            pool,
            counts: Cell::new(true),
            sending: Cell::new(false),
            rest: RefCell::new(None),
            reader: RefCell::new(None),
            returns: Cell::new(false),
        });
        Self { link: Some(link), reused: false, carried: None, opening: None }
    }

    /// Takes a kept one into use. `None`: it has ended, or something has come on it.
    pub(super) fn resume(link: Rc<Link>, keeps_case: bool) -> Option<Self> {
        link.wire.borrow_mut().keep_case(keeps_case);
        let resumed = Self { link: Some(link), reused: true, carried: None, opening: None };
        resumed.link.as_ref().is_some_and(|link| link.is_quiet()).then_some(resumed)
    }

    /// It has carried a request before, though not in this life.
    pub(super) fn reused(mut self) -> Self {
        self.reused = true;
        self
    }

    /// The first request goes out with its first segment.
    pub(super) fn opens_with_request(&mut self, opening: Opening) {
        self.opening = Some(opening);
    }

    /// How it opens, if its first request went out with its first segment.
    pub fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }

    /// The server has answered.
    pub fn answered(&mut self) {
        self.opening = None;
    }

    /// Whether it carried a request before, so that the server may have closed it meanwhile.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.link.as_ref().map_or(SocketAddr::from(([0; 4], 0)), |link| link.address)
    }

    /// The connection. `None`: it has been given back.
    pub fn link(&self) -> Option<&Rc<Link>> {
        self.link.as_ref()
    }

    /// What has ended an exchange before the head of its answer was there.
    pub fn why(&self) -> Kind {
        let Some(link) = &self.link else { return Kind::UpstreamClosed };
        let wire = link.wire.borrow();
        match wire.fault() {
            Some(rule) => Kind::BadResponse(rule),
            None if wire.is_answered() => Kind::BadResponse("incomplete head"),
            None => Kind::UpstreamClosed,
        }
    }

    /// Has the request that goes out on it count as under way for as long as it is checked out.
    pub fn carry(&mut self, carried: Option<Box<Carried>>) {
        self.carried = carried;
    }

    /// Sends a request. The future resolves with the final response head.
    ///
    /// # Errors
    /// Of the future: as it says; the request comes back if not a byte of it was written.
    pub fn send(&mut self, request: Request<BodyStream>) -> Option<Sending> {
        let link = Rc::clone(self.link.as_ref()?);
        if let Some(life) = &*link.life.borrow() {
            life.requests.set(life.requests.get().saturating_add(1));
        }
        Some(Sending::new(link, request, self.reused))
    }

    /// It carries no further exchange.
    pub fn retire(&mut self) {
        if let Some(link) = &self.link {
            link.wire.borrow_mut().retire();
        }
    }

    /// The exchange is complete, both ways: keep the connection for the next one.
    pub fn give_back(mut self) {
        let Some(link) = self.link.take() else { return };
        if link.sending.get() && link.wire.borrow().is_answered_whole() {
            link.returns_when_sent();
        } else {
            link.give_back();
        }
    }

    /// After a 101: the connection without HTTP, what the server sent behind its head, and what
    /// counts it as open from here on. `None` if it has ended.
    pub fn into_tunnel(mut self) -> Option<(Transport, Bytes, Option<Lease>)> {
        let link = self.link.take()?;
        let carried = self.carried.take();
        let pool = link.pool.upgrade();
        let lease = pool.map(|pool| Lease::take(pool, link.life.take()).carry(carried));
        let taken = link.wire.borrow_mut().take_tunnel();
        link.end();
        let (transport, early) = taken?;
        Some((transport, early, lease))
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.end();
        }
    }
}
