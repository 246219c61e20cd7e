//! Room for what userspace writes to an application that local bypass has filled.
//!
//! What bypasses TCP counts as memory of the receiver, beside TCP's own input and within the
//! same limit. A segment that comes while it is over the limit is dropped, although the
//! receiver had announced room for it, and TCP sends it again after a time that doubles with
//! each try: a reader that comes back would wait up to as long again (seen on 6.18). So the first bytes that go the slow way behind others that did not wait until their
//! receiver has read enough of those. While they are on their way nothing bypasses, so there
//! is room from then on, and TCP sees to itself.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use proxy_ebpf::{Protection, SocketAddress};
use tokio::net::TcpStream;

use super::{
    kernel::{Kernel, LaneSlot},
    look_again::LookAgain,
    redirect::lost,
    without::without,
};

/// Longest wait between two looks at a receiver that does not read: what one that comes back
/// waits at most, for bytes behind those that it finds.
const LONGEST_WAIT: Duration = Duration::from_millis(128);

/// Whether the receiver of a direction that bypasses has room.
#[derive(Debug)]
pub(crate) struct Room {
    kernel: Arc<Kernel>,
    slot: Arc<LaneSlot>,
    /// Address of the application's socket.
    receiver: SocketAddress,
    /// Messages that had bypassed when it was last found to have some.
    found_at: u64,
    again: LookAgain,
}

/// What is to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Bytes,
    /// A segment without bytes is dropped like any other while the receiver is over its limit.
    End,
}

impl Room {
    pub(super) fn new(kernel: Arc<Kernel>, slot: Arc<LaneSlot>, receiver: SocketAddress) -> Self {
        let found_at = slot.moved_messages();
        Self { kernel, slot, receiver, found_at, again: LookAgain::new(LONGEST_WAIT) }
    }

    /// Ready when `what` may follow by TCP. `to` is our socket.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
        what: What,
    ) -> Poll<io::Result<()>> {
        loop {
            // What is still on its way may be lost after this.
            if what == What::End && self.kernel.needs_pass() && self.kernel.has_lost(self.receiver)
            {
                return Poll::Ready(Err(lost()));
            }
            let moved = self.slot.moved_messages();
            if self.found_at == moved || without(Protection::Room) {
                return Poll::Ready(Ok(()));
            }
            if self.again.is_waiting() {
                ready!(self.again.poll(cx));
            }
            let has_room = match (to.local_addr(), to.peer_addr()) {
                (Ok(own), Ok(peer)) => {
                    let report = self.kernel.look(own, peer, 0, 0)?;
                    let limit = match what {
                        // What TCP has announced is within the other half.
                        What::Bytes => report.peer_receive_limit / 2,
                        What::End => report.peer_receive_limit,
                    };
                    // An application that is gone has 0 of 0.
                    report.peer_receive_memory <= limit
                }
                // It is connected no longer.
                _ => true,
            };
            if has_room {
                self.found_at = moved;
                self.again.found();
            } else {
                ready!(self.again.poll(cx));
            }
        }
    }
}
