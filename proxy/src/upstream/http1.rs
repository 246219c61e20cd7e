//! One connection to a server over HTTP/1: the end that sends a request, and the task that
//! drives it.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use tokio::time::Instant;

use super::{
    breaker::Open,
    carried::Carried,
    fast_open::Opening,
    pool::{Lease, ServerPool},
};
use crate::{
    body::BodyStream,
    error::Kind,
    splice::hop_bypass::HopBypass,
    transport::Transport,
    wire::{
        head::Bounds,
        upstream::{Shared, UpstreamIo},
    },
};

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

/// What a connection's task and its user tell each other.
#[derive(Debug)]
pub struct Link {
    /// Interim responses and faults of the wire.
    pub wire: Rc<Shared>,
    /// The server's address.
    pub address: SocketAddr,
    /// `None` once it has ended, or goes on as something else.
    life: RefCell<Option<Life>>,
    killed: Cell<bool>,
    returning: RefCell<Option<http1::SendRequest<BodyStream>>>,
    tunnel: RefCell<Option<(Transport, Bytes)>>,
    resting: Cell<bool>,
    ended: Cell<bool>,
    driver: RefCell<Option<Waker>>,
    user: RefCell<Option<Waker>>,
    pool: Weak<ServerPool>,
}

impl Link {
    fn wake_driver(&self) {
        if let Some(waker) = &*self.driver.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Asks the task to end HTTP on a connection that idles in the pool and to park the
    /// socket there.
    ///
    /// It does so only if hyper waits for a request (that is what a ready sender says: both
    /// directions are between two messages, for hyper leaves the last one in both at once),
    /// is blocked in a read before an answer (bytes would be an error), and has nothing left
    /// to write, which the wire knows. What else hyper keeps is of the answer before: whether
    /// the server wants to go on, without which the sender is not ready, and its version,
    /// which is 1.1 ([`Http1::retire`]).
    pub(super) fn rest(&self) {
        self.resting.set(true);
        self.wake_driver();
    }

    /// What it has behind it, to go along with the socket.
    pub(super) fn take_life(&self) -> Option<Life> {
        self.life.take()
    }

    /// Whether it has been open, or used, for as long as it may be.
    pub(super) fn is_spent(&self, age: Option<Duration>, requests: Option<u32>) -> bool {
        let life = self.life.borrow();
        life.as_ref().is_none_or(|life| life.is_spent(age, requests))
    }

    /// For how long it has been open.
    pub(super) fn age(&self, now: Instant) -> Duration {
        let life = self.life.borrow();
        life.as_ref().map_or(Duration::ZERO, |life| now.saturating_duration_since(life.born))
    }

    /// After a 101: the bare socket, and what the server sent behind its head. `None` if
    /// the connection ended otherwise.
    pub async fn tunnel(&self) -> Option<(Transport, Bytes)> {
        poll_fn(|cx| {
            if let Some(parts) = self.tunnel.borrow_mut().take() {
                return Poll::Ready(Some(parts));
            }
            if self.ended.get() {
                return Poll::Ready(None);
            }
            *self.user.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// A checked-out connection.
#[derive(Debug)]
pub struct Http1 {
    sender: Option<http1::SendRequest<BodyStream>>,
    link: Rc<Link>,
    reused: bool,
    retired: bool,
    carried: Option<Box<Carried>>,
    opening: Option<Opening>,
}

impl Http1 {
    /// Starts HTTP/1.1 on a fresh socket. `pool` is where it may go when it is done.
    pub(super) async fn start(
        stream: Transport,
        hop: HopBypass,
        address: SocketAddr,
        bounds: Bounds,
        preserve_header_case: bool,
        pool: Weak<ServerPool>,
        life: Life,
    ) -> hyper::Result<Self> {
        let wire = Rc::new(Shared::default());
        let link = Rc::new(Link {
            wire: Rc::clone(&wire),
            address,
            life: RefCell::new(Some(life)),
            killed: Cell::new(false),
            returning: RefCell::new(None),
            tunnel: RefCell::new(None),
            resting: Cell::new(false),
            ended: Cell::new(false),
            driver: RefCell::new(None),
            user: RefCell::new(None),
            pool,
        });
        let io = UpstreamIo::new(stream, hop, bounds, wire);
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(preserve_header_case)
            .max_headers(bounds.max_headers)
            .max_buf_size(buffer_bytes(bounds.max_bytes))
            .handshake(io)
            .await?;
        tokio::task::spawn_local(drive(connection, Rc::clone(&link)));
        let sender = Some(sender);
        Ok(Self { sender, link, reused: false, retired: false, carried: None, opening: None })
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

    /// It has carried a request before, though not in this life.
    pub(super) fn reused(mut self) -> Self {
        self.reused = true;
        self
    }

    /// Takes a kept one into use.
    pub(super) fn resume(sender: http1::SendRequest<BodyStream>, link: Rc<Link>) -> Self {
        let sender = Some(sender);
        Self { sender, link, reused: true, retired: false, carried: None, opening: None }
    }

    /// Whether it carried a request before, so that the server may have closed it meanwhile.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// What is known of its wire.
    pub fn link(&self) -> &Rc<Link> {
        &self.link
    }

    /// What has ended an exchange before the head of its answer was there.
    pub fn why(&self) -> Kind {
        let wire = &self.link.wire;
        match wire.fault() {
            Some(rule) => Kind::BadResponse(rule),
            None if wire.answered() => Kind::BadResponse("incomplete head"),
            None => Kind::UpstreamClosed,
        }
    }

    /// Counts the connection for its pool beyond the end of HTTP on it.
    pub fn lease(&mut self) -> Option<Lease> {
        let life = self.link.take_life();
        let carried = self.carried.take();
        self.link.pool.upgrade().map(|pool| Lease::take(pool, life).carry(carried))
    }

    /// Has the request that goes out on it count as under way for as long as it is checked out.
    pub fn carry(&mut self, carried: Option<Box<Carried>>) {
        self.carried = carried;
    }

    /// Sends a request. The future resolves with the final response head. `None` after
    /// [`Self::give_back`], which consumes the connection.
    ///
    /// # Errors
    /// As hyper's; the request comes back if not a byte of it was written.
    pub fn send(
        &mut self,
        request: Request<BodyStream>,
    ) -> Option<
        impl Future<Output = Result<Response<Incoming>, TrySendError<Request<BodyStream>>>>
        + 'static
        + use<>,
    > {
        if let Some(life) = &*self.link.life.borrow() {
            life.requests.set(life.requests.get().saturating_add(1));
        }
        self.link.wire.expect(request.method() == http::Method::HEAD);
        self.sender.as_mut().map(|sender| sender.try_send_request(request))
    }

    /// It carries no further exchange. For a server that speaks HTTP/1.0: to one that it
    /// kept open hyper would speak HTTP/1.0 too, and leave out a chunked body.
    pub fn retire(&mut self) {
        self.retired = true;
    }

    /// The exchange is complete, both ways: keep the connection for the next one.
    pub fn give_back(mut self) {
        if self.retired {
            return;
        }
        let (Some(sender), Some(pool)) = (self.sender.take(), self.link.pool.upgrade()) else {
            return;
        };
        if sender.is_ready() {
            pool.put(sender, Rc::clone(&self.link));
        } else if !sender.is_closed() {
            // hyper has not yet seen that it is idle; its task returns it then.
            *self.link.returning.borrow_mut() = Some(sender);
            self.link.wake_driver();
        }
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if self.sender.is_some() {
            self.link.killed.set(true);
            self.link.wake_driver();
        }
    }
}

/// hyper's buffers: room for a head and a good piece of a body.
pub fn buffer_bytes(max_head_bytes: usize) -> usize {
    max_head_bytes + 64 * 1024
}

type Driven = http1::Connection<UpstreamIo, BodyStream>;

/// How driving a connection ended.
enum End {
    /// It is to be closed.
    Killed,
    /// hyper has finished, with the connection or with HTTP on it.
    Done(hyper::Result<()>),
    /// It is idle, and is to be parked.
    AtRest,
}

async fn drive(mut connection: Driven, link: Rc<Link>) {
    match poll_fn(|cx| poll_drive(&mut connection, &link, cx)).await {
        End::Killed => {}
        End::Done(Ok(())) => {
            let parts = connection.into_parts();
            *link.tunnel.borrow_mut() = parts
                .io
                .into_tunnel()
                .map(|(stream, behind)| (stream, join(parts.read_buf, behind)));
        }
        End::Done(Err(error)) => {
            tracing::debug!(server = %link.address, %error, "upstream connection ended");
        }
        End::AtRest => {
            let parts = connection.into_parts();
            // Nothing has been read of what comes next.
            let whole = parts.io.into_tunnel().and_then(|(stream, behind)| {
                let nothing = parts.read_buf.is_empty() && behind.is_empty();
                stream.into_plain().filter(|_| nothing)
            });
            if let Some(pool) = link.pool.upgrade()
                && pool.park(&link, whole)
            {
                return;
            }
        }
    }
    // A tunnel that has not been taken yet keeps it.
    if link.tunnel.borrow().is_none() {
        link.life.take();
    }
    link.ended.set(true);
    if let Some(waker) = link.user.borrow_mut().take() {
        waker.wake();
    }
    if let Some(pool) = link.pool.upgrade() {
        pool.closed();
    }
}

fn poll_drive(connection: &mut Driven, link: &Rc<Link>, cx: &mut Context<'_>) -> Poll<End> {
    if link.killed.get() {
        return Poll::Ready(End::Killed);
    }
    {
        let mut driver = link.driver.borrow_mut();
        match &mut *driver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *driver = Some(cx.waker().clone()),
        }
    }
    let poll = connection.poll_without_shutdown(cx);
    if poll.is_pending()
        && link.returning.borrow().is_some()
        && let Some(sender) = link.returning.take()
    {
        if sender.is_ready() {
            if let Some(pool) = link.pool.upgrade() {
                pool.put(sender, Rc::clone(link));
            }
        } else if !sender.is_closed() {
            *link.returning.borrow_mut() = Some(sender);
        }
    }
    if link.resting.take()
        && poll.is_pending()
        && !link.wire.is_writing()
        && !link.wire.stays()
        && link.pool.upgrade().is_some_and(|pool| pool.is_idle(link))
    {
        return Poll::Ready(End::AtRest);
    }
    poll.map(End::Done)
}

/// Two runs of bytes as one, in order.
pub fn join(first: Bytes, second: Bytes) -> Bytes {
    if second.is_empty() {
        first
    } else if first.is_empty() {
        second
    } else {
        let mut both = BytesMut::with_capacity(first.len() + second.len());
        both.extend_from_slice(&first);
        both.extend_from_slice(&second);
        both.freeze()
    }
}
