//! Engine `kernel`: what one of our sockets receives goes out on the other by `up_skb`.
//!
//! **Joining.** The lane holds nothing, and the socket's receive queue is empty: a segment
//! that was read in part would be delivered again. What arrives before the socket is in the
//! map waits for more; a nudge (SO_RCVLOWAT, which has the kernel look again) spares it that.
//!
//! **For good.** A socket that has joined stays until its tunnel ends; a direction that is to go
//! by userspace is paused, and the program passes all of it. The kernel cannot let a socket go
//! while bytes come: what arrives just when its program is taken away is dropped
//! (`sk_psock_verdict_recv` without a program), and what the psock still holds is read without
//! counting for TCP (`tcp_bpf_recvmsg` leaves `copied_seq` as it is), after which TCP's queue is
//! never found again ("recvmsg seq # bug"; both seen on 6.18 or in its source).
//!
//! **Beside it** the lane goes on reading: what the program passes (its budget is spent, or
//! something passed before is still here) comes to userspace in order. A write must not
//! overtake what the kernel has yet to send, so it waits until that is gone
//! ([`Redirect::poll_clear`]). `taken` tells the program when it may go on.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use proxy_ebpf::{Form, Protection, Route, SocketAddress, hop::End};
use tokio::net::TcpStream;

use super::{
    anchor::{self, Anchors},
    bypass::Direction,
    kernel::{Enrolled, Kernel, LaneSlot, RouteGuard, Set},
    look_again::LookAgain,
    meter::{Cause, Engine, Meter},
    socket,
    without::without,
};

/// Longest wait between two looks at a backlog.
const LONGEST_WAIT: Duration = Duration::from_millis(32);

/// What a direction is meant to carry in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Whatever comes.
    All,
    /// Small messages. More is refused early, which tells that it is more.
    Messages,
}

impl Load {
    /// Bytes that may be on their way in the kernel, per direction, beyond the receiver's send
    /// buffer.
    fn budget_bytes(self) -> u32 {
        match self {
            Load::All => 1024 * 1024,
            Load::Messages => 64 * 1024,
        }
    }
}

/// One direction in the kernel, from one own socket to the other.
#[derive(Debug)]
pub(crate) struct Redirect {
    kernel: Arc<Kernel>,
    slot: Arc<LaneSlot>,
    /// The receiver's `write_seq` when nothing is on its way is this and what was moved and
    /// taken, modulo 2^32.
    k: u32,
    /// What had been moved when the receiver was last found clear.
    clear_at: Option<u64>,
    again: LookAgain,
    /// What had been passed when it was last let go on.
    passed: u64,
    paused: bool,
    /// Address of the socket that receives.
    source: SocketAddress,
    _source: Enrolled,
    /// Last: as long as the program may run for the socket it counts.
    _route: RouteGuard,
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
        load: Load,
    ) -> io::Result<Option<Self>> {
        let kernel = anchors.kernel();
        let (from_at, to_at) = direction.ends();
        let Some(slot) = meter.slot(kernel) else { return Ok(None) };
        // Both: the source's own queue has to outlive its leaving.
        let from_key = anchors.hold(from_at, from)?;
        let to_key = anchors.hold(to_at, to)?;
        if load == Load::All {
            anchor::widen(to)?;
        }
        let near = kernel.look(from.local_addr()?, from.peer_addr()?, 0, from_key)?.own;
        let far = kernel.look(to.local_addr()?, to.peer_addr()?, 0, to_key)?.own;
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
            budget_bytes: load.budget_bytes(),
        })?;
        slot.set_open(true);
        let source = kernel.enroll(Set::Sources, from)?;
        socket::set_receive_low_water(from, 1)?;
        meter.show_kernel(
            Some(Engine::Kernel),
            match load {
                Load::All => Cause::Asked,
                Load::Messages => Cause::Stream,
            },
        );
        Ok(Some(Self {
            kernel: Arc::clone(kernel),
            passed: slot.passed_bytes(),
            slot,
            k,
            clear_at: None,
            again: LookAgain::new(LONGEST_WAIT),
            paused: false,
            source: near.address,
            _source: source,
            _route: route,
        }))
    }

    /// Messages moved so far.
    pub(crate) fn messages(&self) -> u64 {
        self.slot.moved_messages()
    }

    /// Whether the program has passed bytes to this process since it was last let go on.
    pub(crate) fn has_passed(&self) -> bool {
        self.slot.passed_bytes() != self.passed
    }

    /// Has everything passed from now on.
    pub(crate) fn pause(&mut self, meter: &Meter, cause: Cause) {
        self.slot.set_open(false);
        self.paused = true;
        meter.show_kernel(None, cause);
    }

    /// Lets the program redirect again, as soon as nothing that it passed is under way.
    pub(crate) fn go_on(&mut self, meter: &Meter) {
        self.passed = self.slot.passed_bytes();
        self.paused = false;
        self.slot.set_open(true);
        meter.show_kernel(Some(Engine::Kernel), Cause::Stream);
    }

    /// Whether it has been paused.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
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

    /// Whether the kernel has lost bytes of this direction: the end of it is no clean one.
    pub(crate) fn has_lost(&self) -> bool {
        self.kernel.has_lost(self.source)
    }

    /// After an end was read: ready at once if nothing is owed, otherwise after a moment, to
    /// read again.
    pub(crate) fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.owes() {
            return Poll::Ready(());
        }
        self.again.poll(cx)
    }

    /// Ready when everything that was redirected has been sent, so that a write or the end
    /// may follow.
    pub(crate) fn poll_clear(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
    ) -> Poll<io::Result<()>> {
        loop {
            let moved = self.slot.moved_bytes();
            if self.clear_at == Some(moved) {
                return Poll::Ready(Ok(()));
            }
            if self.again.is_waiting() {
                ready!(self.again.poll(cx));
            }
            let far = match (to.local_addr(), to.peer_addr()) {
                (Ok(own), Ok(peer)) => self.kernel.look(own, peer, 0, 0)?.own,
                // It is connected no longer.
                _ => End::default(),
            };
            let due = self.k.wrapping_add(moved as u32);
            let due = due.wrapping_add(self.slot.taken_bytes() as u32);
            // A socket that is gone sends nothing any more.
            if far.address == 0 || far.write_seq == due {
                self.clear_at = Some(moved);
                self.again.found();
            } else {
                ready!(self.again.poll(cx));
            }
        }
    }
}

/// What becomes of a stream with a hole in it: who reads it must not take its end for a clean one.
pub(super) fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel had no memory, and bytes were lost")
}

impl Drop for Redirect {
    fn drop(&mut self) {
        self.slot.set_open(false);
    }
}
