//! After 101 or 2xx: both connections are ours, and bytes go through opaque.
//!
//! On the path: `connection.rs` has sent the answer and owns both connections; it makes a
//! [`Handover`] of them, with every byte that was already read, and calls [`run`]. From
//! there two lanes of `splice` carry the bytes, `relay.rs` watches over them, and
//! `registry.rs` lets others see and end the tunnel.
//!
//! Invariants (SPLICE.md, "Law"):
//! - Byte for byte: what was read before the hand-over goes first, then what is read.
//! - FIN travels behind the last byte, and half-close stays half-close: each direction ends
//!   by itself.
//! - An end that one side did not mean to be clean is not clean for the other. A reset is
//!   passed on as a reset, behind the bytes that had come before it; a tunnel that *we* end
//!   (idle, drain, by hand) is reset on both sides, because a FIN would say that all had
//!   been sent. Before a reset, what the kernel still holds for the peer gets
//!   [`RESET_LINGER`] or [`FORCED_LINGER`] to arrive.
//! - Memory is bounded per direction by one buffer or one pipe, and the kernel's socket
//!   buffers; a stalled reader stops its sender.
//!
//! An HTTP/2 stream at either end keeps to this as far as hyper's `Upgraded` lets it: see
//! `h2.rs`.

use std::{fmt, future::Future, io, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::Either;

use crate::{
    config::SpliceMode,
    error::Side,
    splice::{Endpoint, Ktls, SocketEnd, Why, hop_bypass::HopBypass, kernel::Kernel, socket},
    transport::Transport,
    watchdog::Watched,
};

use relay::Relay;

pub mod h2;
pub mod registry;
mod relay;
mod tap;
#[cfg(test)]
mod tests;
pub mod view;
pub mod watch;

pub use registry::{Registry, Ticket};
pub use tap::Tap;

/// How long bytes that one side sent before its reset may take to reach the other, before
/// that is reset too. A reset discards what is queued; a direct connection would have had
/// those bytes in the receiver's kernel already. Long enough for a few retransmissions.
pub const RESET_LINGER: Duration = Duration::from_secs(5);

/// The same for a tunnel that we end. Below the one second that a drain leaves after it has
/// lost patience.
pub const FORCED_LINGER: Duration = Duration::from_millis(500);

/// The client's side of a tunnel.
#[derive(Debug)]
pub enum Downstream {
    /// The connection itself, and its local bypass where it had come to that.
    Tcp(Transport, HopBypass),
    /// One stream of an HTTP/2 connection (RFC 9113 8.5). Bytes are copied.
    H2(h2::Stream),
}

/// The server's side of a tunnel.
#[derive(Debug)]
pub enum Upstream {
    /// A connection of its own.
    Socket(Transport),
    /// One stream of an HTTP/2 connection (RFC 8441). Bytes are copied.
    H2(h2::Stream),
}

impl Upstream {
    /// Whether the bytes of the tunnel are those of a socket.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Socket(transport) if !transport.is_tls())
    }
}

impl<T: Into<Transport>> From<T> for Upstream {
    fn from(transport: T) -> Self {
        Self::Socket(transport.into())
    }
}

/// Both connections, and what had been read from them.
#[derive(Debug)]
pub struct Handover {
    /// The client.
    pub downstream: Downstream,
    /// Already read from the client: due to the server before anything else.
    pub downstream_early: Bytes,
    /// The server.
    pub upstream: Upstream,
    /// Already read from the server: due to the client before anything else.
    pub upstream_early: Bytes,
    /// Who is told of the bytes, if anybody. Boxed: few tunnels have it.
    pub tap: Option<Box<Tap>>,
}

/// How a tunnel is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which engine.
    pub mode: SpliceMode,
    /// What of TLS the kernel takes over.
    pub ktls: Ktls,
    /// The kernel tier, where it is to be had and wanted.
    pub kernel: Option<Arc<Kernel>>,
    /// Whether applications' sockets may be enrolled: the client's, the server's.
    pub local_bypass: [bool; 2],
    /// Without a byte in either direction for so long, the tunnel is ended.
    pub idle_timeout: Duration,
}

/// What became of a tunnel.
#[derive(Debug)]
pub struct Outcome {
    /// Bytes handed to the server's socket, early ones included.
    pub upstream_bytes: u64,
    /// Bytes handed to the client's socket or stream, early ones included.
    pub downstream_bytes: u64,
    /// The engines that moved the last of them.
    pub engines: view::Directions<crate::splice::Engine>,
    /// Why it ended.
    pub end: End,
}

/// Why a tunnel ended.
#[derive(Debug)]
pub enum End {
    /// Both sides said that they had sent everything, and everything was passed on.
    Finished,
    /// The client reset its connection or stream.
    ClientReset,
    /// The server reset its connection.
    UpstreamReset,
    /// No byte in either direction for the idle timeout.
    IdleTimeout,
    /// A drain ran out of patience.
    Drained,
    /// By hand: DELETE on `/tunnels/ID`.
    Deleted,
    /// A connection failed otherwise (no route, keepalive without an answer).
    Error(Side, io::Error),
}

impl End {
    /// Short stable name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            End::Finished => "finished",
            End::ClientReset => "client_reset",
            End::UpstreamReset => "upstream_reset",
            End::IdleTimeout => "idle_timeout",
            End::Drained => "drained",
            End::Deleted => "deleted",
            End::Error(Side::Downstream, _) => "downstream_error",
            End::Error(Side::Upstream, _) => "upstream_error",
            End::Error(Side::Internal, _) => "internal_error",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let End::Error(_, error) = self {
            write!(f, ": {error}")?;
        }
        Ok(())
    }
}

/// Carries a tunnel to its end. Both connections are closed and the ticket's entry is
/// out of the registry when this resolves, and also when it is dropped before. `watched` is the
/// tunnel's alone from now on.
///
/// Not `async fn`: its state would hold the arguments a second time.
///
/// Implements: REQ-TUN-001, REQ-TUN-002, REQ-TUN-005
pub fn run(
    handover: Handover,
    settings: Settings,
    ticket: registry::Ticket,
    watched: Rc<Watched>,
) -> impl Future<Output = Outcome> {
    let Handover { downstream, downstream_early, upstream, upstream_early, tap } = handover;
    let early = relay::Early { to_upstream: downstream_early, to_downstream: upstream_early };
    match downstream {
        Downstream::Tcp(downstream, hop) => {
            let mut settings = settings;
            let mut downstream = SocketEnd::new(downstream);
            if hop.is_on() {
                // What bypasses TCP on this one connection goes on doing so, and comes by a
                // queue that splice(2) does not look into.
                settings.mode = SpliceMode::Copy;
                settings.kernel = None;
                settings.ktls = Ktls::none(Why::Tls);
                downstream.keep(hop);
            }
            Either::Left(between(downstream, upstream, early, settings, (ticket, tap), watched))
        }
        Downstream::H2(stream) => {
            Either::Right(between(stream, upstream, early, settings, (ticket, tap), watched))
        }
    }
}

fn between<D: Endpoint>(
    downstream: D,
    upstream: Upstream,
    early: relay::Early,
    settings: Settings,
    (ticket, tap): (registry::Ticket, Option<Box<Tap>>),
    watched: Rc<Watched>,
) -> impl Future<Output = Outcome> {
    match upstream {
        Upstream::Socket(upstream) => {
            let upstream = SocketEnd::new(upstream);
            // The kernel has keys where that lets splice(2) move the bytes.
            let ktls = match &tap {
                None => downstream.suits(settings.ktls).and(upstream.suits(settings.ktls)),
                Some(_) => Err(Why::Tls),
            };
            let ktls = ktls.map(|()| settings.ktls);
            downstream.ask(ktls);
            upstream.ask(ktls);
            let relay = Relay::new(downstream, upstream, early, settings, (ticket, tap), watched);
            Either::Left(carry(relay))
        }
        Upstream::H2(upstream) => {
            let relay = Relay::new(downstream, upstream, early, settings, (ticket, tap), watched);
            Either::Right(carry(relay))
        }
    }
}

fn carry<D: Endpoint, U: Endpoint>(mut relay: Relay<D, U>) -> impl Future<Output = Outcome> {
    let close_with = |relay: &Relay<D, U>, reset| {
        for end in relay.ends().into_iter().flatten() {
            socket::reset_on_close(end.stream(), reset);
        }
    };
    // A clean end has to be earned: dropped or killed on the way, the peers see a reset.
    close_with(&relay, true);
    relay.ends().into_iter().flatten().for_each(|end| socket::inline_urgent(end.stream()));
    async move {
        let end = relay.run().await;
        // Finished: the kernel goes on delivering after close. It would answer a close with
        // unread bytes by a reset, but both ends have been read.
        close_with(&relay, !matches!(end, End::Finished));
        let ticket = relay.ticket();
        let (upstream_bytes, downstream_bytes) = ticket.bytes();
        Outcome { upstream_bytes, downstream_bytes, engines: ticket.engines(), end }
    }
}
