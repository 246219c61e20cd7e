//! One connection that many requests share, and the tasks that drive it.
//!
//! hyper has two: one that reads and writes, which ends with the socket, and one that opens
//! streams, which ends when no more may be opened: the server has said GOAWAY, or we have
//! stopped. Streams that are open go on after the second has ended.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::{Rc, Weak},
    task::Waker,
    time::Duration,
};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Notify, time::Instant};

use super::{
    heard::{Greeting, Heard},
    stream::{Place, Stream},
};
use crate::{
    body::BodyStream,
    config::Http2,
    splice::hop_bypass::HopBypass,
    transport::Transport,
    upstream::{http1::Life, pool::ServerPool},
    wire::{head::Bounds, socket::Socket},
};

/// How much of a request's body is queued for one stream, beyond the chunk at hand.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Streams given up by clients that are remembered at once, so that what the server has sent on
/// them meanwhile is no error; h2 forgets them after a second.
const REMEMBERED_RESETS: usize = 1024;

/// A connection that is shared.
#[derive(Debug)]
pub struct Carrier {
    /// The server's address.
    pub(super) address: SocketAddr,
    /// Over TLS.
    pub(super) secure: bool,
    http2: Http2,
    /// `None` once it has ended.
    life: RefCell<Option<Life>>,
    /// `None`: no more streams are opened.
    sender: RefCell<Option<http2::SendRequest<BodyStream>>>,
    streams: Cell<usize>,
    /// What the server allows.
    allowed: Cell<usize>,
    /// When the last stream was opened or over.
    used: Cell<Instant>,
    /// When the server last said anything.
    pub(super) heard: Cell<Instant>,
    /// Whether it has said by which settings it goes.
    pub(super) greeting: Greeting,
    /// Whether it takes tunnels (RFC 8441 section 3). `None`: it has not said yet.
    extends: Cell<Option<bool>>,
    told: Notify,
    /// Whose request's body hyper has just asked for more of ([`Executor`]).
    pub(super) asked: RefCell<Option<Rc<Place>>>,
    /// Whose CONNECT hyper has just taken.
    pub(super) connecting: RefCell<Option<Rc<Place>>>,
    /// Whose CONNECT is being answered.
    answering: RefCell<Option<Rc<Place>>>,
    /// Whether hyper has handed out the task that reads and writes.
    driven: Cell<bool>,
    /// Of the task that opens streams.
    opener: RefCell<Option<Waker>>,
    pool: Weak<ServerPool>,
}

impl Carrier {
    /// Starts HTTP/2 on a fresh socket of `pool`. Does not wait for the server to say how many
    /// streams it allows: until it does, as many as on its last connection.
    ///
    /// # Errors
    /// As hyper's handshake.
    pub(in crate::upstream) async fn start(
        (stream, hop): (Transport, HopBypass),
        address: SocketAddr,
        http2: Http2,
        bounds: Bounds,
        pool: Weak<ServerPool>,
        life: Life,
        allowed: usize,
    ) -> hyper::Result<Rc<Self>> {
        let carrier = Rc::new(Self {
            address,
            secure: stream.is_tls(),
            http2,
            life: RefCell::new(Some(life)),
            sender: RefCell::new(None),
            streams: Cell::new(0),
            allowed: Cell::new(allowed),
            used: Cell::new(Instant::now()),
            heard: Cell::new(Instant::now()),
            greeting: Greeting::default(),
            extends: Cell::new(None),
            told: Notify::new(),
            asked: RefCell::new(None),
            connecting: RefCell::new(None),
            answering: RefCell::new(None),
            driven: Cell::new(false),
            opener: RefCell::new(None),
            pool,
        });
        let io = Heard::new(Socket::new(stream, hop), Rc::clone(&carrier));
        let mut builder = http2::Builder::new(Executor(Rc::clone(&carrier)));
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(http2.stream_window_bytes)
            .initial_connection_window_size(http2.connection_window_bytes())
            .initial_max_send_streams(allowed)
            .max_header_list_size(u32::try_from(bounds.max_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .keep_alive_interval(http2.keepalive_interval)
            .keep_alive_timeout(http2.keepalive_timeout);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        *carrier.sender.borrow_mut() = Some(sender);
        tokio::task::spawn_local(open_streams(connection, Rc::clone(&carrier)));
        Ok(carrier)
    }

    /// One more stream on it. `None`: there may be none.
    pub(in crate::upstream) fn open(self: &Rc<Self>, reused: bool) -> Option<Stream> {
        let sender = self.sender.borrow().clone()?;
        if sender.is_closed() || self.room() == 0 {
            return None;
        }
        if let Some(life) = &*self.life.borrow() {
            life.requests.set(life.requests.get().saturating_add(1));
        }
        self.streams.set(self.streams.get() + 1);
        self.used.set(Instant::now());
        Some(Stream::new(Place::new(Rc::clone(self)), sender, reused))
    }

    /// How many more streams there may be.
    fn room(&self) -> usize {
        self.allowed.get().min(self.http2.max_streams as usize).saturating_sub(self.streams.get())
    }

    /// Whether streams may be opened on it, now or when others are over.
    pub(in crate::upstream) fn is_open(&self) -> bool {
        self.sender.borrow().as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Whether the server takes tunnels, once it has said so. `None`: it says nothing more.
    pub(super) async fn extends(&self) -> Option<bool> {
        loop {
            let told = self.told.notified();
            if let Some(extends) = self.extends.get() {
                return Some(extends);
            }
            if !self.is_open() {
                return None;
            }
            told.await;
        }
    }

    /// Whether nothing is under way on it.
    pub(in crate::upstream) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// Since when there has been no change to that.
    pub(in crate::upstream) fn used(&self) -> Instant {
        self.used.get()
    }

    /// Whether it has been open, or used, for as long as it may be.
    pub(in crate::upstream) fn is_spent(
        &self,
        age: Option<Duration>,
        requests: Option<u32>,
    ) -> bool {
        self.life.borrow().as_ref().is_none_or(|life| life.is_spent(age, requests))
    }

    /// No more streams: it ends when the last one is over. From now on it counts for no limit of
    /// connections, because a stream can last for hours, and nobody else would be served.
    pub(in crate::upstream) fn stop(&self) {
        drop(self.sender.take());
        self.told.notify_waiters();
        if self.life.take().is_some()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.closed();
        }
    }

    /// A request got no answer in time. If the server has said nothing at all since that was
    /// sent, it may be gone: others are not to wait for it as well.
    pub(super) fn doubt(&self, sent: Instant) {
        if self.heard.get() < sent {
            self.stop();
        }
    }

    /// A stream is over.
    pub(super) fn closed(self: &Rc<Self>) {
        self.streams.set(self.streams.get().saturating_sub(1));
        self.used.set(Instant::now());
        if let Some(pool) = self.pool.upgrade() {
            pool.stream_over(self);
        }
    }
}

/// hyper's end that opens streams.
type Opening = http2::Connection<TokioIo<Heard>, BodyStream, Executor>;

/// Opens the streams that are asked for, until no more may be.
async fn open_streams(mut connection: Opening, carrier: Rc<Carrier>) {
    let ended = poll_fn(|cx| {
        *carrier.opener.borrow_mut() = Some(cx.waker().clone());
        let poll = Pin::new(&mut connection).poll(cx);
        let now = connection.current_max_send_streams();
        let before = carrier.allowed.replace(now);
        if now != before
            && let Some(pool) = carrier.pool.upgrade()
        {
            pool.streams_allowed(now);
        }
        if carrier.greeting.is_whole() {
            // Its settings are in force: hyper's other task wakes this one behind them.
            carrier.extends.set(Some(connection.is_extended_connect_protocol_enabled()));
            carrier.told.notify_waiters();
        }
        poll
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(server = %carrier.address, %error, "no more streams to a server");
    }
    carrier.stop();
    if let Some(pool) = carrier.pool.upgrade() {
        pool.forget(&carrier);
    }
}

/// Runs hyper's tasks on the worker. The first is the one that reads and writes: with it the
/// connection ends, and after each of its turns the server may have said something about
/// streams.
///
/// The others are of one stream each: what sends the rest of a request's body, what waits for the
/// answer, and what sends on a tunnel. hyper asks for the first of the body just before it hands
/// out the task for the rest (or that for the answer, where there is no rest); so it is known
/// whose it is. One that waits for the server to take more asks for nothing, and would not see
/// that nobody wants the answer any more: it is dropped then, and with it the stream is reset.
///
/// Of CONNECT hyper asks whether it has a body ([`super::stream::Connecting`]) before it hands out
/// the task that waits for the answer, and that task hands out the one which sends.
#[derive(Debug, Clone)]
struct Executor(Rc<Carrier>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        let answered = self.0.answering.borrow().clone();
        if !self.0.driven.replace(true) {
            self.drive(future);
        } else if let Some(place) = answered {
            let sending = place.sending().clone();
            // While it sends there is no room for another stream.
            sending.begin(async move {
                let _place = place;
                future.await;
            });
        } else if let Some(place) = self.0.connecting.take() {
            self.connect(future, place);
        } else if let Some(place) = self.0.asked.take() {
            self.send(future, place);
        } else {
            tokio::task::spawn_local(future);
        }
    }
}

impl Executor {
    /// Reads and writes.
    fn drive(&self, future: impl Future<Output = ()> + 'static) {
        let end = End(Rc::clone(&self.0));
        tokio::task::spawn_local(async move {
            let end = end;
            // Inside, so that the socket is closed before its place is free.
            let mut future = std::pin::pin!(future);
            poll_fn(|cx| {
                let poll = future.as_mut().poll(cx);
                if let Some(waker) = end.0.opener.borrow_mut().take() {
                    waker.wake();
                }
                poll
            })
            .await;
        });
    }

    /// Sends the body of a request, or waits for its answer.
    fn send(&self, future: impl Future<Output = ()> + 'static, place: Rc<Place>) {
        let carrier = Rc::clone(&self.0);
        // Boxed: a future moved into an async block is in it twice.
        let mut future = Box::pin(future);
        tokio::task::spawn_local(poll_fn(move |cx| {
            let poll = future.as_mut().poll(cx);
            // What asks now is known already.
            carrier.asked.take();
            if poll.is_pending() { place.poll_cut(cx) } else { poll }
        }));
    }

    /// Waits for the answer to CONNECT.
    fn connect(&self, future: impl Future<Output = ()> + 'static, place: Rc<Place>) {
        let carrier = Rc::clone(&self.0);
        let mut future = Box::pin(future);
        tokio::task::spawn_local(poll_fn(move |cx| {
            *carrier.answering.borrow_mut() = Some(Rc::clone(&place));
            let poll = future.as_mut().poll(cx);
            carrier.answering.take();
            poll
        }));
    }
}

/// The end of the socket.
struct End(Rc<Carrier>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.stop();
        if let Some(pool) = self.0.pool.upgrade() {
            pool.forget(&self.0);
        }
    }
}
