//! hyper's HTTP/1 server over the wrapped socket.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use tokio::net::TcpStream;

use super::{Client, Cut, bounds, linger::linger, run_tunnel};
use crate::{
    body::BodyStream,
    error::Kind,
    relay,
    splice::hop_bypass::{HopBypass, Side},
    tunnel,
    upstream::connection::{buffer_bytes, join},
    watchdog::Wait,
    wire::downstream::{DownstreamIo, Shared},
};

/// Serves a connection to its end, or to the end of the tunnel that it becomes.
pub(super) async fn serve(
    client: Rc<Client>,
    wire: Rc<Shared>,
    stream: TcpStream,
    early: BytesMut,
) {
    let bounds = bounds(client.limits());
    let kernel = client.worker.process.kernel.as_ref();
    let kernel = kernel.filter(|_| client.listener.config.local_bypass);
    let hop = HopBypass::new(kernel, Side::Downstream);
    let io = DownstreamIo::new(stream, hop, early, bounds, Rc::clone(&wire));
    let service = service_fn(|request: Request<Incoming>| {
        let client = Rc::clone(&client);
        async move { Ok::<Response<BodyStream>, Infallible>(relay::http1(client, request).await) }
    });
    let mut connection = http1::Builder::new()
        .preserve_header_case(client.listener.config.preserve_header_case)
        .max_headers(bounds.max_headers)
        .max_buf_size(buffer_bytes(bounds.max_bytes))
        .serve_connection(io, service);
    let mut closing = false;
    let ended = poll_fn(|cx| {
        client.watched.register(cx);
        loop {
            if client.worker.is_forced() {
                if client.in_flight.get() > 0 || wire.is_writing() {
                    client.cut();
                }
                return Poll::Ready(false);
            }
            if !closing && client.worker.is_draining() {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            let poll = Pin::new(&mut connection).poll(cx);
            if client.cut.get().is_some() {
                return Poll::Ready(false);
            }
            if let Poll::Ready(ended) = poll {
                if let Err(error) = &ended {
                    tracing::debug!(peer = %client.peer, %error, "connection ended");
                }
                return Poll::Ready(true);
            }
            match client.on_expiry() {
                Expiry::None => return Poll::Pending,
                Expiry::Again => {}
                Expiry::Close => return Poll::Ready(false),
            }
        }
    })
    .await;
    let parts = connection.into_parts();
    let (stream, hop, held) = parts.io.into_tunnel();
    let handover = client.handover.borrow_mut().take();
    if let Some(handover) = handover {
        let early = join(parts.read_buf, held);
        return run_tunnel(&client, handover, tunnel::Downstream::Tcp(stream, hop), early).await;
    }
    if client.cut.get() == Some(Cut::Reset) {
        // Without it the client would take the end of the connection for the body's.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    } else if ended && (client.unread.get() || wire.has_fault()) {
        linger(&client.worker, stream).await;
    }
}

/// What to do about a passed deadline.
enum Expiry {
    None,
    /// Something was decided that hyper has to see.
    Again,
    Close,
}

impl Client {
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
            // Before the head of the answer the relay answers for itself.
            _ if !self.answering.get() => Expiry::None,
            (Wait::Request | Wait::Response, ..) => {
                self.cut();
                Expiry::Close
            }
        }
    }
}
