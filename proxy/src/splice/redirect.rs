//! Engine `kernel`: what one of our sockets receives goes out on the other by `up_skb`.
//!
//! **Joining.** The lane holds nothing, and the socket's receive queue is empty: a segment
//! that was read in part would be delivered again. What arrives before the socket is in the
//! map waits for more; a nudge (SO_RCVLOWAT, which has the kernel look again) spares it that.
//!
//! **Beside it** the lane goes on reading: what the program passes (its budget is spent, or
//! something passed before is still here) comes to userspace in order. A write must not
//! overtake what the kernel has yet to send, so it waits until that is gone
//! ([`Redirect::poll_clear`]). `taken` tells the program when it may go on.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use proxy_ebpf::{Form, Protection, Route, SocketKey};
use tokio::{
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{
    anchor::Anchors,
    bypass::Direction,
    kernel::{Enrolled, Kernel, LaneSlot, RouteGuard, Set},
    meter::{Engine, Meter},
    socket,
    without::without,
};

/// Bytes that may be on their way in the kernel, per direction, beyond the receiver's send
/// buffer.
const BUDGET_BYTES: u32 = 1024 * 1024;

/// Wait between two looks at a backlog; the kernel has no event for its end.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// One direction in the kernel, from one own socket to the other.
#[derive(Debug)]
pub(crate) struct Redirect {
    kernel: Arc<Kernel>,
    slot: Arc<LaneSlot>,
    to: (SocketAddr, SocketAddr, SocketKey),
    /// The receiver's `write_seq` when nothing is on its way is this and what was moved and
    /// taken, modulo 2^32.
    k: u32,
    /// What had been moved when the receiver was last found clear.
    clear_at: Option<u64>,
    timer: Option<Pin<Box<Sleep>>>,
    _source: (Enrolled, RouteGuard),
}

impl Redirect {
    /// Puts a direction under the program. `None`: not now (the socket has unread bytes), or
    /// no place for it.
    pub(crate) fn join(
        anchors: &Anchors,
        direction: Direction,
        from: &TcpStream,
        to: &TcpStream,
        meter: &Meter,
    ) -> io::Result<Option<Self>> {
        let kernel = anchors.kernel();
        let (from_at, to_at) = direction.ends();
        let Some(slot) = meter.slot(kernel) else { return Ok(None) };
        // Both: the source's own queue has to outlive its leaving.
        let from_key = anchors.hold(from_at, from)?;
        let to_key = anchors.hold(to_at, to)?;
        let near = kernel.look(from.local_addr()?, from.peer_addr()?, 0, from_key)?.own;
        let to = (to.local_addr()?, to.peer_addr()?, to_key);
        let far = kernel.look(to.0, to.1, 0, to.2)?.own;
        let is_empty = near.copied_seq == near.rcv_nxt || without(Protection::Empty);
        if near.address == 0 || far.address == 0 || !is_empty {
            return Ok(None);
        }
        let k = far.write_seq.wrapping_sub(slot.moved_bytes() as u32);
        let k = k.wrapping_sub(slot.taken_bytes() as u32);
        let route = kernel.route(Route {
            target: to_key,
            receiver: far.address,
            sender: near.address,
            form: Form::Skb as u32,
            lane: slot.index(),
            k,
            budget_bytes: BUDGET_BYTES,
        })?;
        slot.set_open(true);
        let source = kernel.enroll(Set::Sources, from)?;
        socket::set_receive_low_water(from, 1)?;
        meter.show_kernel(Some(Engine::Kernel));
        let kernel = Arc::clone(kernel);
        let _source = (source, route);
        Ok(Some(Self { kernel, slot, to, k, clear_at: None, timer: None, _source }))
    }

    /// Bytes were written to the receiver.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        let owed = self.slot.passed_bytes() - self.slot.taken_bytes();
        self.slot.add_taken(bytes.min(owed as usize));
    }

    /// Whether bytes were passed to this process that it has not written on. With nothing
    /// held, they are between the program and the socket's reader: a worker thread brings
    /// them when the reader's memory allows.
    pub(crate) fn owes(&self) -> bool {
        self.slot.passed_bytes() != self.slot.taken_bytes()
    }

    /// After an end was read: ready at once if nothing is owed, otherwise after a moment, to
    /// read again.
    pub(crate) fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.owes() {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(LOOK_AGAIN)));
        std::task::ready!(timer.as_mut().poll(cx));
        self.timer = None;
        Poll::Ready(())
    }

    /// Ready when everything that was redirected has been sent, so that a write or the end
    /// may follow.
    pub(crate) fn poll_clear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let moved = self.slot.moved_bytes();
            if self.clear_at == Some(moved) {
                return Poll::Ready(Ok(()));
            }
            if let Some(timer) = &mut self.timer {
                std::task::ready!(timer.as_mut().poll(cx));
                self.timer = None;
            }
            let far = self.kernel.look(self.to.0, self.to.1, 0, self.to.2)?.own;
            let due = self.k.wrapping_add(moved as u32);
            let due = due.wrapping_add(self.slot.taken_bytes() as u32);
            // A socket that is gone sends nothing any more.
            if far.address == 0 || far.write_seq == due {
                self.clear_at = Some(moved);
            } else {
                self.timer = Some(Box::pin(sleep(LOOK_AGAIN)));
            }
        }
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        self.slot.set_open(false);
    }
}
