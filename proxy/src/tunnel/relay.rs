//! Watches over the two lanes of a tunnel, decides why it ends, and lets what is still on
//! its way arrive.
//!
//! One task polls everything: both lanes, a failure of either end that no lane is in a
//! position to see (a reset while both wait for the other side), the idle deadline, drain and
//! DELETE. Invariant: what is reported as the end is what happened first; a peer that is
//! reset has been given every byte that the other had sent before, up to a deadline.
//!
//! Thousands of tunnels are idle at a time, and one in use is polled for each message. So
//! there is no timer, no future and no lock of its own for any of this: the deadline is a cell
//! of the worker's watchdog, orders are flags, and wakers are registered when they change.

use std::{
    future::{Future as _, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use proxy_ebpf::Protection;
use tokio::time::timeout;

use crate::{
    config::SpliceMode,
    error::Side,
    record,
    splice::{
        Endpoint, Fault, Lane, Meter, TcpEnd, Why,
        tier::{Parts, Tier},
        without::without,
    },
    watchdog::{Wait, Watched},
};

use super::{
    End, FORCED_LINGER, RESET_LINGER, Settings,
    registry::Ticket,
    tap::{Tap, Tapped},
};

/// What had been read before the tunnel began.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) to_upstream: Bytes,
    pub(super) to_downstream: Bytes,
}

/// A tunnel and its two ends. They go in this order: first what the kernel does, then the
/// connections, and the table shows the tunnel until both are closed.
pub(super) struct Relay<D, U> {
    tier: Option<Box<Tier>>,
    to_upstream: Lane,
    to_downstream: Lane,
    downstream: D,
    upstream: U,
    watched: Rc<Watched>,
    idle_timeout: Duration,
    /// Bytes in our kernel's queues when the idle timeout last passed.
    queued: usize,
    ticket: Ticket,
    tap: Option<Box<Tap>>,
    mode: SpliceMode,
    /// Whether the kernel is about to be given keys.
    may_yet_splice: bool,
}

/// What the kernel can do for this tunnel, where there is anything.
fn tier(
    downstream: &impl Endpoint,
    upstream: &impl Endpoint,
    settings: &Settings,
    ticket: &Ticket,
) -> Option<Box<Tier>> {
    let kernel = settings.kernel.clone()?;
    let sockets = [downstream.tcp()?, upstream.tcp()?];
    let meters = [ticket.to_upstream(), ticket.to_downstream()];
    Tier::new(kernel, settings.mode, sockets, settings.local_bypass, meters).unwrap_or_else(
        |error| {
            tracing::debug!(%error, "the kernel tier of a tunnel");
            None
        },
    )
}

impl<D: Endpoint, U: Endpoint> Relay<D, U> {
    pub(super) fn new(
        downstream: D,
        upstream: U,
        early: Early,
        settings: Settings,
        (ticket, tap): (Ticket, Option<Box<Tap>>),
        watched: Rc<Watched>,
    ) -> Self {
        let recorded = tap.as_ref().map(|_| Why::Recorded);
        let must_copy = recorded.or(downstream.must_copy()).or(upstream.must_copy());
        if let Some(tap) = &tap {
            tap.pass(record::Side::Request, &early.to_upstream);
            tap.pass(record::Side::Response, &early.to_downstream);
        }
        let may_yet_splice = downstream.may_yet_splice() || upstream.may_yet_splice();
        let lane = |early, meter| Lane::new(settings.mode, must_copy, early, meter);
        watched.clear();
        watched.unregister();
        watched.wait(Wait::Head, settings.idle_timeout);
        Self {
            to_upstream: lane(early.to_upstream, ticket.to_upstream()),
            to_downstream: lane(early.to_downstream, ticket.to_downstream()),
            tier: match &tap {
                None => tier(&downstream, &upstream, &settings, &ticket),
                Some(_) => None,
            },
            downstream,
            upstream,
            ticket,
            watched,
            idle_timeout: settings.idle_timeout,
            queued: 0,
            tap,
            mode: settings.mode,
            may_yet_splice,
        }
    }

    pub(super) fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    pub(super) fn ends(&self) -> [Option<&TcpEnd>; 2] {
        [self.downstream.socket(), self.upstream.socket()]
    }

    /// Runs until the tunnel has ended. The caller closes, with a reset unless it is
    /// `Finished`.
    pub(super) async fn run(&mut self) -> End {
        let end = poll_fn(|cx| self.poll_carry(cx)).await;
        if !matches!(end, End::Finished) {
            // Boxed: what an end needs is not kept by every idle tunnel.
            Box::pin(self.linger(&end)).await;
        }
        end
    }

    /// Moves bytes until something ends that.
    fn poll_carry(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.register(cx);
        self.with_tier(|tier, parts| tier.before(cx, parts));
        let fault = self.poll_lanes(cx);
        if self.may_yet_splice {
            self.settle(cx);
        }
        let moved = [self.to_upstream.take_moved(), self.to_downstream.take_moved()];
        if moved != [0; 2] {
            self.ticket.touch();
        }
        if let Some((side, error)) = fault {
            return Poll::Ready(end_of(side, error));
        }
        let done = [self.to_upstream.is_done(), self.to_downstream.is_done()];
        if done == [true; 2] || done != [false; 2] && without(Protection::HalfClose) {
            return Poll::Ready(End::Finished);
        }
        self.with_tier(|tier, parts| tier.after(moved, parts));
        if let Poll::Ready(error) = self.downstream.poll_failed(cx) {
            return Poll::Ready(end_of(Side::Downstream, error));
        }
        if let Poll::Ready(error) = self.upstream.poll_failed(cx) {
            return Poll::Ready(end_of(Side::Upstream, error));
        }
        if let Some(end) = self.ordered() {
            return Poll::Ready(end);
        }
        match self.watched.expired() {
            Some(_) if self.is_idle() => Poll::Ready(End::IdleTimeout),
            _ => Poll::Pending,
        }
    }

    /// Has this task woken by everything that is not a byte.
    fn register(&mut self, cx: &Context<'_>) {
        if !self.watched.is_registered(cx) {
            self.watched.register(cx);
            self.ticket.register(cx.waker());
            for end in self.ends().into_iter().flatten() {
                end.waker_changed();
            }
        }
    }

    /// A turn of both lanes.
    fn poll_lanes(&mut self, cx: &mut Context<'_>) -> Option<(Side, io::Error)> {
        let Self { downstream, upstream, to_upstream, to_downstream, ticket, tap, .. } = self;
        let lane = match tap.as_deref() {
            None => to_upstream.poll(cx, downstream, upstream, ticket.to_upstream()),
            Some(tap) => {
                let from = Tapped { end: downstream, tap, side: record::Side::Request };
                to_upstream.poll(cx, &from, upstream, ticket.to_upstream())
            }
        };
        if let Poll::Ready(Err(fault)) = lane {
            // The other lane is left alone: a write that failed has used up the news of a
            // reset, and a read behind it would find a clean end that is none.
            return Some(at(fault, Side::Downstream, Side::Upstream));
        }
        let lane = match tap.as_deref() {
            None => to_downstream.poll(cx, upstream, downstream, ticket.to_downstream()),
            Some(tap) => {
                let from = Tapped { end: upstream, tap, side: record::Side::Response };
                to_downstream.poll(cx, &from, downstream, ticket.to_downstream())
            }
        };
        if let Poll::Ready(Err(fault)) = lane {
            return Some(at(fault, Side::Upstream, Side::Downstream));
        }
        None
    }

    /// Whether the kernel has keys is seen here, and the lanes told.
    #[cold]
    fn settle(&mut self, cx: &mut Context<'_>) {
        let Self { downstream, upstream, ticket, .. } = self;
        self.may_yet_splice = downstream.may_yet_splice() || upstream.may_yet_splice();
        ticket.has_keys([downstream.is_tls_in_kernel(), upstream.is_tls_in_kernel()]);
        if self.may_yet_splice {
            return;
        }
        let must_copy = downstream.must_copy().or(upstream.must_copy());
        self.to_upstream.settle(self.mode, must_copy, ticket.to_upstream());
        self.to_downstream.settle(self.mode, must_copy, ticket.to_downstream());
        // A lane may hold what would wait for the next event.
        cx.waker().wake_by_ref();
    }

    /// An end that came from outside the connections.
    fn ordered(&self) -> Option<End> {
        if self.watched.is_forced() {
            Some(End::Drained)
        } else if self.ticket.is_to_end() {
            Some(End::Deleted)
        } else {
            None
        }
    }

    /// After the deadline has passed: whether nothing has moved since it was set. No byte sets
    /// it; it is set anew to where the last one puts it.
    fn is_idle(&mut self) -> bool {
        let mut left = self.idle_timeout.saturating_sub(self.ticket.idle());
        if left.is_zero() {
            // A slow reader still empties our kernel's queue: that is life, too.
            let queued = self.downstream.queued() + self.upstream.queued();
            if std::mem::replace(&mut self.queued, queued) == queued {
                return true;
            }
            left = self.idle_timeout;
        }
        self.watched.forgive();
        self.watched.wait(Wait::Head, left);
        false
    }

    /// Lets the kernel's side of the tunnel take a step.
    fn with_tier(&mut self, step: impl FnOnce(&mut Tier, &mut Parts<'_>)) {
        let Some(tier) = &mut self.tier else { return };
        let Some(downstream) = self.downstream.tcp() else { return };
        let Some(upstream) = self.upstream.tcp() else { return };
        let mut parts = Parts {
            sockets: [downstream, upstream],
            lanes: [&mut self.to_upstream, &mut self.to_downstream],
            meters: [self.ticket.to_upstream(), self.ticket.to_downstream()],
        };
        step(tier, &mut parts);
    }

    /// What is still done for the peers of a tunnel that has not finished.
    async fn linger(&mut self, end: &End) {
        let broken = match end {
            End::Finished => return,
            _ if without(Protection::Linger) => return,
            End::ClientReset | End::Error(Side::Downstream, _) => Side::Downstream,
            End::UpstreamReset | End::Error(..) => Side::Upstream,
            End::IdleTimeout | End::Drained | End::Deleted => {
                // Bytes that a lane holds are given up: they wait for a peer that may never
                // read. Those in the kernel's queues are perhaps already on the wire.
                let _ = timeout(FORCED_LINGER, async {
                    tokio::join!(self.downstream.delivered(), self.upstream.delivered());
                })
                .await;
                return;
            }
        };
        let Self { downstream, upstream, to_upstream, to_downstream, ticket, watched, tap, .. } =
            self;
        let (downstream, upstream) = (&*downstream, &*upstream);
        let rest = async {
            match broken {
                Side::Downstream => {
                    let meter = ticket.to_upstream();
                    match tap.as_deref() {
                        None => deliver_rest(to_upstream, downstream, upstream, meter).await,
                        Some(tap) => {
                            let from = Tapped { end: downstream, tap, side: record::Side::Request };
                            deliver_rest(to_upstream, &from, upstream, meter).await;
                        }
                    }
                }
                _ => {
                    let meter = ticket.to_downstream();
                    match tap.as_deref() {
                        None => deliver_rest(to_downstream, upstream, downstream, meter).await,
                        Some(tap) => {
                            let from = Tapped { end: upstream, tap, side: record::Side::Response };
                            deliver_rest(to_downstream, &from, downstream, meter).await;
                        }
                    }
                }
            }
        };
        let mut rest = pin!(timeout(RESET_LINGER, rest));
        // An order that comes meanwhile cuts the lingering short; the end stays what it was.
        poll_fn(|cx| {
            watched.register(cx);
            ticket.register(cx.waker());
            match watched.is_forced() || ticket.is_to_end() {
                true => Poll::Ready(()),
                false => rest.as_mut().poll(cx).map(drop),
            }
        })
        .await;
    }
}

/// `from` is broken: passes on what it had sent before, and waits until the other end's kernel
/// has it.
async fn deliver_rest<F: Endpoint, T: Endpoint>(lane: &mut Lane, from: &F, to: &T, meter: &Meter) {
    // What follows the last byte is a reset, not a FIN.
    lane.conceal_end();
    let _ = poll_fn(|cx| {
        for end in [from.socket(), to.socket()].into_iter().flatten() {
            end.waker_changed();
        }
        lane.poll(cx, from, to, meter)
    })
    .await;
    // What the kernel was given to send is not in the receiver's queue before it has.
    let _ = poll_fn(|cx| lane.poll_clear(cx, to)).await;
    to.delivered().await;
}

/// Which side a lane's fault is on.
fn at(fault: Fault, from: Side, to: Side) -> (Side, io::Error) {
    match fault {
        Fault::From(error) => (from, error),
        Fault::To(error) => (to, error),
    }
}

/// What an error of one side says about the tunnel.
fn end_of(side: Side, error: io::Error) -> End {
    use io::ErrorKind::*;
    // EPIPE: a reset that was noticed by writing. ENOTCONN: by shutting down. An HTTP/2
    // stream has no errno; whatever fails it fails that one stream.
    let reset = matches!(
        error.kind(),
        ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected | Other | UnexpectedEof
    );
    match side {
        Side::Downstream if reset => End::ClientReset,
        Side::Upstream if reset => End::UpstreamReset,
        side => End::Error(side, error),
    }
}
