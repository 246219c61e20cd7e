//! One HTTP/2 stream as an end of a tunnel: the client's (RFC 9113 8.5, RFC 8441) or the
//! server's (RFC 8441).
//!
//! hyper gives an `Upgraded` that reads and writes, and a task of its own that sends what
//! was written. Three things are missing, and made up for here by knowing that task
//! ([`Sending`]):
//!
//! - A peer's RST_STREAM with CANCEL (what browsers and curl send when they give up)
//!   reads as a clean end. The sending task knows better, so it is asked at every end; behind
//!   our own there is none, and what comes is read for what it is (`wire/cancels.rs`).
//! - Nobody who neither reads nor writes is told of a RST_STREAM. The sending task ends by it,
//!   and its end is.
//! - Dropping an `Upgraded` sends END_STREAM, which says that all had been sent. Only
//!   aborting the sending task leaves the stream open, and then h2 resets it (CANCEL; RFC
//!   9113 would have CONNECT_ERROR, which hyper has no way to say).
//!
//! The task is started by the connection's executor. That of clients' connections is
//! [`Executor`], which remembers it for the [`Sending`] that the request asked for; that of
//! servers' is `upstream/http2/carrier.rs`. A [`Stream`] without one ends as hyper does it.
//!
//! Bytes in flight towards the peer: what hyper queues, at most three writes of one copy
//! buffer each, and h2's flow-control window.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use hyper::{
    rt::{Read, ReadBuf, Write},
    upgrade::Upgraded,
};
use tokio::task::{AbortHandle, spawn_local, yield_now};

use crate::splice::{Endpoint, TcpEnd, Why};

tokio::task_local! {
    /// The [`Sending`] that the request of this stream's task has asked for.
    static ASKED: RefCell<Option<Sending>>;
}

/// Starts hyper's tasks on the worker's `LocalSet`. For `hyper::server::conn::http2`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Executor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        // A stream's task starts one more only if its request was a CONNECT that was
        // granted: the one that sends on it.
        match ASKED.try_with(|asked| asked.borrow().clone()) {
            Err(_) => {
                spawn_local(ASKED.scope(RefCell::default(), task));
            }
            Ok(Some(sending)) => sending.begin(task),
            Ok(None) => {
                spawn_local(task);
            }
        }
    }
}

/// The task that sends on a stream: by it the stream ends with RST_STREAM, and its own end may
/// be one by the peer.
#[derive(Debug, Clone, Default)]
pub struct Sending(Rc<State>);

#[derive(Debug, Default)]
struct State {
    task: RefCell<Option<AbortHandle>>,
    ended: Cell<bool>,
    tunnel: RefCell<Option<Waker>>,
}

impl Sending {
    /// To be called within the future that answers the CONNECT (hyper makes that future in
    /// the connection's task, and polls it in the stream's). `None` elsewhere, or if the
    /// connection does not run on [`Executor`].
    pub fn of_this_request() -> Option<Self> {
        ASKED.try_with(|asked| asked.borrow_mut().get_or_insert_default().clone()).ok()
    }

    /// Starts the task.
    pub fn begin(&self, task: impl Future<Output = ()> + 'static) {
        let state = Rc::clone(&self.0);
        let task = async move {
            task.await;
            state.ended.set(true);
            if let Some(waker) = state.tunnel.take() {
                waker.wake();
            }
        };
        self.0.task.replace(Some(spawn_local(task).abort_handle()));
    }

    /// Ends it, and thereby the stream.
    fn abort(&self) {
        if let Some(task) = self.0.task.take() {
            task.abort();
        }
    }

    /// Resolves when it has ended by itself.
    fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        if self.0.ended.get() {
            return Poll::Ready(());
        }
        let mut tunnel = self.0.tunnel.borrow_mut();
        match &mut *tunnel {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *tunnel = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// An upgraded stream that both lanes share. Dropped before both sides have said that they
/// had finished, it is reset.
#[derive(Debug)]
pub struct Stream {
    io: RefCell<Upgraded>,
    sending: Option<Sending>,
    why: Why,
    end_seen: Cell<bool>,
    end_said: Cell<bool>,
}

impl Stream {
    /// A client's stream, which `sending` can reset.
    pub fn of_client(io: Upgraded, sending: Option<Sending>) -> Self {
        Self::new(io, sending, Why::H2Downstream)
    }

    /// A stream to a server, which `sending` can reset.
    pub fn to_server(io: Upgraded, sending: Sending) -> Self {
        Self::new(io, Some(sending), Why::H2Upstream)
    }

    fn new(io: Upgraded, sending: Option<Sending>, why: Why) -> Self {
        let (end_seen, end_said) = (Cell::new(false), Cell::new(false));
        Self { io: RefCell::new(io), sending, why, end_seen, end_said }
    }

    /// Borrowed for the length of one poll only.
    fn with<T>(&self, call: impl FnOnce(Pin<&mut Upgraded>) -> T) -> T {
        call(Pin::new(&mut *self.io.borrow_mut()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(sending) = &self.sending
            && !(self.end_seen.get() && self.end_said.get())
        {
            sending.abort();
        }
    }
}

impl Endpoint for Stream {
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(room);
        ready!(self.with(|io| io.poll_read(cx, buffer.unfilled())))?;
        let n = buffer.filled().len();
        if n > 0 {
            return Poll::Ready(Ok(n));
        }
        if !self.end_seen.replace(true) {
            // The task that sends on this stream was woken by the same RST_STREAM, perhaps
            // after us: let it run, then ask it.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.with(|io| io.poll_flush(cx)) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(0)),
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|io| io.poll_write(cx, bytes))
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Not waited for: hyper reports "pending" until the queue is sent, and END_STREAM
        // follows it without us.
        self.end_said.set(true);
        match self.with(|io| io.poll_shutdown(cx)) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// hyper tells only those who read or write; what sends ends before it was told to.
    fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(sending) = &self.sending else { return Poll::Pending };
        if self.end_said.get() {
            return Poll::Pending;
        }
        sending.poll_ended(cx).map(|()| io::ErrorKind::ConnectionReset.into())
    }

    fn queued(&self) -> usize {
        0
    }

    async fn delivered(&self) {
        // The sending task takes from its queue what the client's window allows, and h2
        // sends what it has taken before it resets. Ready: there is room in the queue
        // again; one more turn for what was put there last.
        if poll_fn(|cx| self.with(|io| io.poll_flush(cx))).await.is_ok() {
            yield_now().await;
        }
    }

    fn tcp(&self) -> Option<&TcpEnd> {
        None
    }

    fn socket(&self) -> Option<&TcpEnd> {
        None
    }

    fn must_copy(&self) -> Option<Why> {
        Some(self.why)
    }
}
