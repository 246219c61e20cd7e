//! hyper's HTTP/1 server over the wrapped socket.
//!
//! When a connection has been idle for a while, hyper is made to let go of the socket. That
//! nothing is lost by it three parties have to say: the books of the exchanges, the wire
//! below hyper, which sees the messages of both directions end, and hyper itself. It has no
//! question for that, but a behaviour: told to shut down gracefully it ends at once only if
//! it is between two messages and has no byte unread (`has_initial_read_write_state`), and
//! only after the last byte of its own has gone out; the wire sees to it that the socket
//! stays open meanwhile. What else hyper keeps is of the request before (its version, whether
//! it wants to go on, header maps to use again), and the next head sets it anew.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};

use super::{Client, Cut, Intercepting, Next, bounds, linger::linger, run_tunnel};
use crate::{
    body::BodyStream,
    error::Kind,
    relay,
    splice::hop_bypass::{HopBypass, Side},
    transport::Transport,
    tunnel,
    watchdog::Wait,
    wire::downstream::{DownstreamIo, Shared},
};

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// hyper has finished, with the connection or with HTTP on it.
    Done,
    /// It is to be cut off.
    Cut,
    /// It is idle, and hyper has let go of it.
    AtRest,
}

/// What has become of a connection.
pub(super) enum Served {
    /// It has ended, and so has the tunnel that it was.
    Over,
    /// It has been idle for a while: the socket, and what was read of it and not looked at,
    /// which is nothing.
    AtRest(Transport, Bytes),
    /// What comes next is to be taken apart; with what was read of that.
    Intercept(Box<Intercepting>, Transport, Bytes),
}

/// Serves a connection to its end, or to the end of the tunnel that it becomes, or until it
/// is something else.
pub(super) async fn serve(
    client: Rc<Client>,
    wire: Rc<Shared>,
    stream: Transport,
    early: BytesMut,
) -> Served {
    let bounds = bounds(client.limits());
    let mut io = DownstreamIo::new(stream, client.hop_bypass(), bounds, Rc::clone(&wire));
    if client.listener.config.preserve_header_case {
        io.keeps_case();
    }
    io.begins_with(early);
    let service = service_fn(|request: Request<Incoming>| {
        let client = Rc::clone(&client);
        async move { Ok::<Response<BodyStream>, Infallible>(relay::http1(client, request).await) }
    });
    let mut connection = http1::Builder::new()
        .max_headers(bounds.max_headers)
        .max_buf_size(buffer_bytes(bounds.max_bytes))
        .serve_connection(io, service);
    let (mut closing, mut resting, mut failed) = (false, false, false);
    let end = poll_fn(|cx| {
        client.watched.register(cx);
        loop {
            if client.worker.is_forced() {
                if client.in_flight.get() > 0 || wire.is_writing() {
                    client.cut();
                }
                return Poll::Ready(End::Cut);
            }
            if !closing && client.worker.is_draining() {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            let poll = Pin::new(&mut connection).poll(cx);
            if client.cut.get().is_some() {
                return Poll::Ready(End::Cut);
            }
            if let Poll::Ready(ended) = poll {
                if let Err(error) = &ended {
                    failed = true;
                    tracing::debug!(peer = %client.peer, %error, "connection ended");
                }
                return Poll::Ready(if resting { End::AtRest } else { End::Done });
            }
            if resting {
                // hyper knows better; it closes the connection with its next answer.
                tracing::debug!(peer = %client.peer, "not idle after all");
                resting = false;
                wire.parts(false);
            }
            match client.on_expiry() {
                Expiry::None if client.may_rest(&wire) => {
                    resting = true;
                    wire.parts(true);
                    Pin::new(&mut connection).graceful_shutdown();
                }
                Expiry::None => return Poll::Pending,
                Expiry::Again => {}
                Expiry::Close => return Poll::Ready(End::Cut),
            }
        }
    })
    .await;
    let parts = connection.into_parts();
    let (stream, hop, held) = parts.io.into_tunnel();
    let next = client.next.borrow_mut().take();
    match next {
        Some(Next::Tunnel(handover)) => {
            let early = join(parts.read_buf, held);
            run_tunnel(&client, *handover, tunnel::Downstream::Tcp(stream, hop), early).await;
            return Served::Over;
        }
        Some(Next::Intercept(what)) => {
            return Served::Intercept(what, stream, join(parts.read_buf, held));
        }
        None => {}
    }
    if end == End::AtRest {
        return Served::AtRest(stream, join(parts.read_buf, held));
    }
    if client.cut.get() == Some(Cut::Reset) {
        // Without it the client would take the end of the connection for the body's.
        let _ = socket2::SockRef::from(stream.tcp()).set_linger(Some(Duration::ZERO));
        drop(stream);
    } else if end == End::Done && (client.unread.get() || wire.has_fault()) {
        linger(&client.worker, stream).await;
    } else if client.cut.get().is_none() && !failed {
        stream.farewell();
    } else {
        // Over TLS, too, the client sees that something is missing.
        drop(stream);
    }
    // Only now: the socket leaves its bypass closed.
    drop(hop);
    Served::Over
}

/// What to do about a passed deadline.
enum Expiry {
    None,
    /// Something was decided that hyper has to see.
    Again,
    Close,
}

impl Client {
    /// Local bypass of its connection, as far as its listener has it.
    pub(super) fn hop_bypass(&self) -> HopBypass {
        let config = &self.listener.config;
        // What is taken apart has to come by the socket.
        let kernel = self.worker.process.kernel.as_ref();
        let kernel = kernel.filter(|_| config.local_bypass && config.intercept.is_none());
        HopBypass::new(kernel, Side::Downstream)
    }

    /// Whether it has been idle for a while, and nothing is under way on it.
    fn may_rest(&self, wire: &Shared) -> bool {
        if !self.watched.take_rest() {
            return false;
        }
        let idle = self.in_flight.get() == 0;
        if idle && wire.is_writing() {
            // The end of the last answer is on its way still.
            self.watched.rest();
        }
        idle && wire.is_at_rest()
            && !wire.has_fault()
            && !self.unread.get()
            && self.cut.get().is_none()
            && self.next.borrow().is_none()
            && !self.worker.is_draining()
    }

    fn on_expiry(&self) -> Expiry {
        let Some(wait) = self.watched.expired() else {
            return Expiry::None;
        };
        let limits = self.limits();
        match (wait, self.in_flight.get(), self.wire.as_ref()) {
            // The end of the last answer is on its way still: a slow reader is not idle,
            // as long as it reads.
            (Wait::Head, 0, Some(wire)) if wire.is_writing() => {
                self.watched.forgive();
                self.watched.wait_on(Wait::Response, limits.body_idle_timeout);
                self.watched.wait(Wait::Head, limits.idle_timeout);
                Expiry::None
            }
            (Wait::Response, 0, Some(wire)) => {
                self.watched.forgive();
                if !wire.is_writing() {
                    return Expiry::None;
                }
                self.cut();
                Expiry::Close
            }
            (Wait::Head, 0, Some(wire)) if wire.has_partial_head() => {
                self.watched.forgive();
                wire.impose(Kind::HeadTimeout);
                Expiry::Again
            }
            // Idle, or a browser's spare connection: no answer is expected, none is sent.
            (Wait::Head, 0, _) => Expiry::Close,
            // A pipelined head is incomplete while an answer goes out: not its turn yet.
            (Wait::Head, ..) => {
                self.watched.forgive();
                Expiry::None
            }
            // Only calls of gRPC have one, and those come over HTTP/2.
            (Wait::Deadline, ..) => Expiry::None,
            // Before the head of the answer the relay answers for itself.
            _ if !self.answering.get() => Expiry::None,
            (Wait::Request | Wait::Response, ..) => {
                self.cut();
                Expiry::Close
            }
        }
    }
}

/// hyper's buffers: room for a head and a good piece of a body.
fn buffer_bytes(max_head_bytes: usize) -> usize {
    max_head_bytes + 64 * 1024
}

/// Two runs of bytes as one, in order.
fn join(first: Bytes, second: Bytes) -> Bytes {
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
