//! One HTTP/2 stream as the downstream end of a tunnel (RFC 9113 8.5).
//!
//! hyper gives an `Upgraded` that reads and writes, and a task of its own that sends what
//! was written. Two things are missing, and made up for here:
//!
//! - A client's RST_STREAM with CANCEL (what browsers and curl send when they give up)
//!   reads as a clean end. The sending task knows better, so it is asked at every end.
//! - Dropping an `Upgraded` sends END_STREAM, which says that all had been sent. Only
//!   aborting the sending task leaves the stream open, and then h2 resets it (CANCEL; RFC
//!   9113 would have CONNECT_ERROR, which hyper has no way to say). The task is started by
//!   the connection's executor: [`Executor`] remembers it for the [`Cancel`] that the
//!   request asked for. A [`Stream`] without one ends as hyper does it.
//!
//! Bytes in flight towards the client: what hyper queues, at most three writes of one copy
//! buffer each, and h2's flow-control window.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use hyper::{
    rt::{Read, ReadBuf, Write},
    upgrade::Upgraded,
};
use tokio::task::{AbortHandle, spawn_local, yield_now};

use crate::splice::{Endpoint, TcpEnd, Why};

tokio::task_local! {
    /// The [`Cancel`] that the request of this stream's task has asked for.
    static ASKED: RefCell<Option<Cancel>>;
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
            Ok(asked) => {
                let sender = spawn_local(task).abort_handle();
                if let Some(cancel) = asked {
                    cancel.0.replace(Some(sender));
                }
            }
        }
    }
}

/// Lets a stream end by RST_STREAM.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Rc<RefCell<Option<AbortHandle>>>);

impl Cancel {
    /// To be called within the future that answers the CONNECT (hyper makes that future in
    /// the connection's task, and polls it in the stream's). `None` elsewhere, or if the
    /// connection does not run on [`Executor`].
    pub fn of_this_request() -> Option<Self> {
        ASKED.try_with(|asked| asked.borrow_mut().get_or_insert_default().clone()).ok()
    }

    fn now(&self) {
        if let Some(sender) = self.0.take() {
            sender.abort();
        }
    }
}

/// An upgraded stream that both lanes share. Dropped before both sides have said that they
/// had finished, it is reset.
#[derive(Debug)]
pub struct Stream {
    io: RefCell<Upgraded>,
    cancel: Option<Cancel>,
    end_seen: Cell<bool>,
    end_said: Cell<bool>,
}

impl From<Upgraded> for Stream {
    fn from(io: Upgraded) -> Self {
        Self::new(io, None)
    }
}

impl Stream {
    /// A stream that `cancel` can reset.
    pub fn new(io: Upgraded, cancel: Option<Cancel>) -> Self {
        Self {
            io: RefCell::new(io),
            cancel,
            end_seen: Cell::new(false),
            end_said: Cell::new(false),
        }
    }

    /// Borrowed for the length of one poll only.
    fn with<T>(&self, call: impl FnOnce(Pin<&mut Upgraded>) -> T) -> T {
        call(Pin::new(&mut *self.io.borrow_mut()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(cancel) = &self.cancel
            && !(self.end_seen.get() && self.end_said.get())
        {
            cancel.now();
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

    /// hyper tells only those who read or write.
    fn poll_failed(&self, _: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
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
        Some(Why::H2Downstream)
    }
}
