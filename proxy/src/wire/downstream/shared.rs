//! What a client's socket and the code of its connection tell each other.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::BytesMut;

use crate::{
    error::Kind,
    watchdog::Watched,
    wire::{spelling::Spelling, trailers::Tail},
};

/// What the socket and the connection's code tell each other. Lives on one thread.
#[derive(Debug)]
pub struct Shared {
    pub(super) watched: Rc<Watched>,
    pub(super) head_timeout: Duration,
    pub(super) body_idle_timeout: Duration,
    pub(super) fault: Cell<Option<(u64, Kind)>>,
    pub(super) body_fault: Cell<Option<Kind>>,
    pub(super) imposed: Cell<Option<Kind>>,
    pub(super) may_tunnel: Cell<u64>,
    pub(super) for_server: Cell<u64>,
    /// The last request whose answer left the connection to HTTP.
    pub(super) resumed: Cell<u64>,
    pub(super) partial: Cell<bool>,
    pub(super) in_body: Cell<bool>,
    pub(super) between: Cell<bool>,
    pub(super) writing: Cell<bool>,
    pub(super) parting: Cell<bool>,
    pub(super) inject: RefCell<BytesMut>,
    /// Trailers of the answer that goes out.
    pub trailers: Tail,
    /// How the names in heads that have passed were written, by the number of the head.
    pub(super) spelled: RefCell<VecDeque<(u64, Spelling)>>,
    /// How those of the next head that goes out are.
    pub(super) spell: RefCell<Option<Spelling>>,
    pub(super) waker: RefCell<Option<Waker>>,
}

impl Shared {
    /// For one connection.
    pub fn new(
        watched: Rc<Watched>,
        head_timeout: Duration,
        body_idle_timeout: Duration,
    ) -> Rc<Self> {
        Rc::new(Self {
            watched,
            head_timeout,
            body_idle_timeout,
            fault: Cell::new(None),
            body_fault: Cell::new(None),
            imposed: Cell::new(None),
            may_tunnel: Cell::new(0),
            for_server: Cell::new(0),
            resumed: Cell::new(0),
            partial: Cell::new(false),
            in_body: Cell::new(false),
            between: Cell::new(false),
            writing: Cell::new(false),
            parting: Cell::new(false),
            inject: RefCell::new(BytesMut::new()),
            trailers: Tail::default(),
            spelled: RefCell::default(),
            spell: RefCell::default(),
            waker: RefCell::new(None),
        })
    }

    /// The fault for which request number `head` (from 1) stands in, if it does.
    pub fn fault_of(&self, head: u64) -> Option<Kind> {
        self.fault.get().and_then(|(number, kind)| (number == head).then_some(kind))
    }

    /// Why the body being read ended in an error, where its framing was at fault.
    pub fn body_fault(&self) -> Option<Kind> {
        self.body_fault.get()
    }

    /// Whether anything was refused; then the rest of the input is of no interest.
    pub fn has_fault(&self) -> bool {
        self.fault.get().is_some() || self.body_fault.get().is_some()
    }

    /// Whether the target of request number `head` (from 1) is the server itself.
    pub fn is_for_server(&self, head: u64) -> bool {
        self.for_server.get() == head
    }

    /// Whether request number `head` (from 1) asks properly for a tunnel.
    pub fn may_tunnel(&self, head: u64) -> bool {
        self.may_tunnel.get() == head
    }

    /// The answer to request number `head` (from 1) was an ordinary one: what follows is
    /// HTTP. Numbered, because most answers find nothing held, and must not let go what a
    /// later request will hold.
    pub fn resume_http(&self, head: u64) {
        self.resumed.set(head);
        self.wake();
    }

    /// How the names in request number `head` (from 1) were written, where that is kept.
    pub fn spelling_of(&self, head: u64) -> Option<Spelling> {
        let mut spelled = self.spelled.borrow_mut();
        while spelled.front().is_some_and(|(number, _)| *number < head) {
            spelled.pop_front();
        }
        spelled.pop_front_if(|(number, _)| *number == head).map(|(_, spelling)| spelling)
    }

    /// Has the names in the head that goes out next written so. Resolves when what was written
    /// before it has been taken, so that it is known where that head begins.
    pub fn poll_spell(&self, spelling: &Spelling, cx: &Context<'_>) -> Poll<()> {
        if self.is_writing() {
            self.park(cx);
            return Poll::Pending;
        }
        *self.spell.borrow_mut() = Some(spelling.clone());
        Poll::Ready(())
    }

    /// Whether the beginning of a head has come, and not yet its end.
    pub fn has_partial_head(&self) -> bool {
        self.partial.get()
    }

    /// Whether the end of a request's body has yet to come.
    pub fn is_in_body(&self) -> bool {
        self.in_body.get()
    }

    /// Whether the last byte that came was the end of a request, hyper has asked for more,
    /// and everything written before has been taken: nothing is under way on this wire.
    pub fn is_at_rest(&self) -> bool {
        self.between.get() && !self.writing.get() && self.inject.borrow().is_empty()
    }

    /// hyper is to let go of the socket: when it next ends the connection, the socket stays
    /// open, for [`into_tunnel`](super::DownstreamIo::into_tunnel).
    pub fn parts(&self, parting: bool) {
        self.parting.set(parting);
    }

    /// Whether there are bytes that the client has yet to take.
    pub fn is_writing(&self) -> bool {
        self.writing.get()
    }

    /// Refuses the head that is being waited for (a timeout).
    pub fn impose(&self, kind: Kind) {
        self.imposed.set(Some(kind));
        self.wake();
    }

    /// Queues an interim response. It goes out at the next point between two messages.
    pub fn inject(&self, head: &[u8]) {
        self.inject.borrow_mut().extend_from_slice(head);
        self.wake();
    }

    /// Resolves when everything injected has been written: the final head may follow.
    pub fn poll_injected(&self, cx: &Context<'_>) -> Poll<()> {
        if self.inject.borrow().is_empty() {
            return Poll::Ready(());
        }
        // hyper flushes after it has polled the service, in the same turn; whoever has
        // written the last of it wakes us.
        self.park(cx);
        Poll::Pending
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn park(&self, cx: &Context<'_>) {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
    }
}
