//! hyper's HTTP/2 server, for clients that begin with its preface (RFC 9113 section 3.4).

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{Request, Response, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, ReadBuf};

use super::Client;
use crate::{
    body::BodyStream,
    relay,
    transport::Transport,
    tunnel,
    watchdog::{Wait, Watched},
    wire::{cancels::Cancels, socket::Socket},
};

/// How much of a request's body may have come that its server has not taken yet. The window of
/// a connection is so much for each of its streams and one more, so that those whose server does
/// not read hold up no other.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;

/// How much of an answer is queued for one stream, beyond the chunk at hand.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Streams that were reset before hyper had a look at them: with more of them waiting the
/// connection ends (ENHANCE_YOUR_CALM). `resets.rs` counts those that it has looked at.
const PENDING_RESETS: usize = 20;

/// Streams that were reset for what was wrong with them: with more the connection ends
/// (ENHANCE_YOUR_CALM).
const MALFORMED_STREAMS: usize = 128;

/// Serves a connection to its end.
pub(super) async fn serve(client: Rc<Client>, stream: Transport, early: Bytes) {
    let limits = client.limits().clone();
    let service = service_fn(|request: Request<Incoming>| {
        let client = Rc::clone(&client);
        let watched = client.worker.watchdog.watch();
        *client.next_stream.borrow_mut() = Some(Rc::clone(&watched));
        // hyper moves it three times before it is polled, which is kilobytes each; and it is gone
        // when the answer begins, where it would be part of the stream's task to its end.
        Box::pin(async move {
            Ok::<Response<BodyStream>, Infallible>(relay::http2(client, watched, request).await)
        })
    });
    let streams = u32::try_from(limits.max_streams).unwrap_or(u32::MAX);
    let socket = Socket::new(stream, client.hop_bypass());
    let io = TokioIo::new(Rewound { early, socket, cancels: Cancels::of_client() });
    let mut connection = http2::Builder::new(Streams(Rc::clone(&client)))
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size((streams + 1) * STREAM_WINDOW_BYTES)
        // WebSockets (RFC 8441 section 3).
        .enable_connect_protocol()
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(MALFORMED_STREAMS)
        // A client that is gone without a word is noticed while it owes nothing.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(io, service);
    client.watched.wait(Wait::Head, limits.idle_timeout);
    let mut closing = false;
    poll_fn(|cx| {
        client.watched.register(cx);
        if client.worker.is_forced() {
            return Poll::Ready(());
        }
        if client.resets.is_attack() {
            let early = "requests are taken back as fast as they come";
            tracing::warn!(peer = %client.peer, "connection ended: {early}");
            return Poll::Ready(());
        }
        let idle = client.watched.expired() == Some(Wait::Head) && client.in_flight.get() == 0;
        if idle && closing {
            // Told to go, it has nothing to do and does not go: it may not even read.
            return Poll::Ready(());
        }
        if idle || client.is_leaving() && !closing {
            closing = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if idle {
            client.watched.clear();
            client.watched.wait(Wait::Head, limits.body_idle_timeout);
        }
        Pin::new(&mut connection).poll(cx).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(peer = %client.peer, %error, "connection ended");
            }
        })
    })
    .await;
}

/// Runs hyper's HTTP/2 streams on this worker, as [`tunnel::h2::Executor`] does, each with
/// its deadline.
#[derive(Debug, Clone)]
struct Streams(Rc<Client>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        // hyper calls the service and this one right after the other. What it runs besides
        // (the writing end of a tunnel) has no watch.
        let watched = self.0.next_stream.take();
        tunnel::h2::Executor.execute(Stream { future, watched });
    }
}

pin_project! {
    /// The task of a stream.
    struct Stream<F> {
        #[pin]
        future: F,
        watched: Option<Rc<Watched>>,
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(watched) = this.watched else { return Poll::Pending };
        watched.register(cx);
        // Not dealt with by the exchange: hyper waits for the client to open its
        // window and does not ask for the body. Dropping the stream resets it.
        match watched.expired() {
            Some(Wait::Response | Wait::Deadline) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

/// A socket whose first bytes have been read already, and what hyper does not tell of its resets.
#[derive(Debug)]
struct Rewound {
    early: Bytes,
    socket: Socket,
    cancels: Cancels,
}

impl AsyncRead for Rewound {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.early.is_empty() {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        } else {
            let n = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early.split_to(n));
        }
        this.cancels.came(&mut buf.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Rewound {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
