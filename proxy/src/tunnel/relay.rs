//! Watches over the two lanes of a tunnel, decides why it ends, and lets what is still on
//! its way arrive.
//!
//! One task polls everything: both lanes, a failure of either end that no lane is in a
//! position to see (a reset while both wait for the other side), the idle timer, drain and
//! DELETE. Invariant: what is reported as the end is what happened first; a peer that is
//! reset has been given every byte that the other had sent before, up to a deadline.

use std::{
    future::{Future, poll_fn},
    io, mem,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    drain,
    error::Side,
    splice::{
        Endpoint, Fault, Lane,
        tier::{Parts, Tier},
    },
};

use super::{End, FORCED_LINGER, RESET_LINGER, Settings, registry::Ticket};

/// A timer cannot be set beyond this; `Duration::MAX` as idle timeout means never.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What had been read before the tunnel began.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) to_upstream: Bytes,
    pub(super) to_downstream: Bytes,
}

/// Runs until the tunnel has ended. The caller closes, with a reset unless it is `Finished`.
pub(super) async fn run<D: Endpoint, U: Endpoint>(
    downstream: &D,
    upstream: &U,
    early: Early,
    settings: Settings,
    ticket: &Ticket,
    drain: &mut drain::Watch,
) -> End {
    let splicable = downstream.tcp().is_some() && upstream.tcp().is_some();
    let lane = |early, meter| Lane::new(settings.mode, splicable, early, meter);
    let relay = Relay {
        to_upstream: lane(early.to_upstream, ticket.to_upstream()),
        to_downstream: lane(early.to_downstream, ticket.to_downstream()),
        downstream,
        upstream,
        ticket,
        idle_timeout: settings.idle_timeout.min(NEVER),
        tier: tier(downstream, upstream, &settings, ticket),
    };
    relay.run(drain).await
}

struct Relay<'a, D, U> {
    downstream: &'a D,
    upstream: &'a U,
    to_upstream: Lane,
    to_downstream: Lane,
    ticket: &'a Ticket,
    idle_timeout: Duration,
    tier: Option<Box<Tier>>,
}

/// What the kernel can do for this tunnel, where there is anything.
fn tier<D: Endpoint, U: Endpoint>(
    downstream: &D,
    upstream: &U,
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

/// An end that came from outside the connections.
enum Order {
    Drained,
    Deleted,
}

impl<D: Endpoint, U: Endpoint> Relay<'_, D, U> {
    async fn run(mut self, drain: &mut drain::Watch) -> End {
        let ticket = self.ticket;
        let mut order = pin!(async {
            tokio::select! {
                () = drain.forced() => Order::Drained,
                () = ticket.ended() => Order::Deleted,
            }
        });
        let end = self.carry(order.as_mut()).await;
        match &end {
            End::Finished => {}
            End::ClientReset | End::UpstreamReset | End::Error(..) => {
                let broken = match end {
                    End::ClientReset | End::Error(Side::Downstream, _) => Side::Downstream,
                    _ => Side::Upstream,
                };
                // An order that comes meanwhile cuts the lingering short; the end stays
                // what it was.
                tokio::select! {
                    _ = timeout(RESET_LINGER, self.deliver_rest(broken)) => {}
                    _ = order => {}
                }
            }
            End::IdleTimeout | End::Drained | End::Deleted => {
                // Bytes that a lane holds are given up: they wait for a peer that may never
                // read. Those in the kernel's queues are perhaps already on the wire.
                let _ = timeout(FORCED_LINGER, async {
                    tokio::join!(self.downstream.delivered(), self.upstream.delivered());
                })
                .await;
            }
        }
        end
    }

    /// Moves bytes until something ends that.
    async fn carry(&mut self, mut order: Pin<&mut impl Future<Output = Order>>) -> End {
        let mut client_failed = pin!(self.downstream.failed());
        let mut server_failed = pin!(self.upstream.failed());
        let mut timer = pin!(sleep(self.idle_timeout));
        let mut queue = 0;
        let mut moved = 0;
        poll_fn(|cx| {
            self.with_tier(|tier, parts| tier.before(cx, parts));
            let mut fault = None;
            let lane = self
                .to_upstream
                .poll(cx, self.downstream, self.upstream, self.ticket.to_upstream())
                .map_err(|fault| at(fault, Side::Downstream, Side::Upstream));
            if let Poll::Ready(Err(failed)) = lane {
                fault = Some(failed);
            } else {
                // Not after a fault: a write that failed has used up the news of a reset,
                // and a read behind it would find a clean end that is none.
                let lane = self
                    .to_downstream
                    .poll(cx, self.upstream, self.downstream, self.ticket.to_downstream())
                    .map_err(|fault| at(fault, Side::Upstream, Side::Downstream));
                if let Poll::Ready(Err(failed)) = lane {
                    fault = Some(failed);
                }
            }
            let (up, down) = self.ticket.bytes();
            if up + down != moved {
                moved = up + down;
                self.ticket.touch();
            }
            if let Some((side, error)) = fault {
                return Poll::Ready(end_of(side, error));
            }
            if self.to_upstream.is_done() && self.to_downstream.is_done() {
                return Poll::Ready(End::Finished);
            }
            self.with_tier(|tier, parts| tier.after(cx, parts));
            if let Poll::Ready(error) = client_failed.as_mut().poll(cx) {
                return Poll::Ready(end_of(Side::Downstream, error));
            }
            if let Poll::Ready(error) = server_failed.as_mut().poll(cx) {
                return Poll::Ready(end_of(Side::Upstream, error));
            }
            if let Poll::Ready(order) = order.as_mut().poll(cx) {
                return Poll::Ready(match order {
                    Order::Drained => End::Drained,
                    Order::Deleted => End::Deleted,
                });
            }
            // No byte sets the timer: when it fires it is set to where the last one puts it.
            while timer.as_mut().poll(cx).is_ready() {
                let mut left = self.idle_timeout.saturating_sub(self.ticket.idle());
                if left.is_zero() {
                    // A slow reader still empties our kernel's queue: that is life, too.
                    let before =
                        mem::replace(&mut queue, self.downstream.queued() + self.upstream.queued());
                    if queue == before {
                        return Poll::Ready(End::IdleTimeout);
                    }
                    left = self.idle_timeout;
                }
                timer.as_mut().reset(Instant::now() + left);
            }
            Poll::Pending
        })
        .await
    }

    /// Lets the kernel's side of the tunnel take a step.
    fn with_tier(&mut self, step: impl FnOnce(&mut Tier, &mut Parts<'_>)) {
        let Some(tier) = &mut self.tier else { return };
        let (Some(downstream), Some(upstream)) = (self.downstream.tcp(), self.upstream.tcp())
        else {
            return;
        };
        let mut parts = Parts {
            sockets: [downstream, upstream],
            lanes: [&mut self.to_upstream, &mut self.to_downstream],
            meters: [self.ticket.to_upstream(), self.ticket.to_downstream()],
        };
        step(tier, &mut parts);
    }

    /// One side is broken: passes on what it had sent before, and waits until the other's
    /// kernel has it.
    async fn deliver_rest(&mut self, broken: Side) {
        let (lane, meter) = match broken {
            Side::Downstream => (&mut self.to_upstream, self.ticket.to_upstream()),
            _ => (&mut self.to_downstream, self.ticket.to_downstream()),
        };
        // What follows the last byte is a reset, not a FIN.
        lane.conceal_end();
        let (downstream, upstream) = (self.downstream, self.upstream);
        let _ = poll_fn(|cx| match broken {
            Side::Downstream => lane.poll(cx, downstream, upstream, meter),
            _ => lane.poll(cx, upstream, downstream, meter),
        })
        .await;
        // What the kernel was given to send is not in the receiver's queue before it has.
        let _ = poll_fn(|cx| lane.poll_clear(cx)).await;
        match broken {
            Side::Downstream => upstream.delivered().await,
            _ => downstream.delivered().await,
        }
    }
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
