//! Client connections at rest: idle between two requests, or open and yet without a byte.
//!
//! Such a connection is a socket, its peer's address, a deadline and its places among the
//! open ones; the state of HTTP/1, its buffers and its task are gone, and made anew with the
//! next byte. A worker keeps them in one [`Lot`].
//!
//! Invariant: nothing of an exchange is left when a connection is parked, in neither
//! direction (`http1.rs` says how that is known), so that a new state is as good as the old.
//!
//! Implements: REQ-CTRL-003

use std::{
    cell::Cell,
    io::{ErrorKind, Read},
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
};

use bytes::{Bytes, BytesMut};
use tokio::{net::TcpStream, sync::Notify, time::Instant};

use super::{Arrival, Places, serve};
use crate::{
    listener::{Listener, slots::Slot},
    lot::Lot,
    metrics::ParkedConnection,
    proxy_protocol::Announced,
    worker::{ConnectionGuard, Worker},
};

/// What is read of a connection before it has its state again: a head, as a rule.
const FIRST_READ_BYTES: usize = 4 * 1024;

/// One connection at rest.
#[derive(Debug)]
pub struct Parked {
    socket: std::net::TcpStream,
    /// Whether it has carried a request.
    kept: bool,
    peer: SocketAddr,
    announced: Option<Rc<Announced>>,
    listener: Rc<Listener>,
    deadline: Option<Instant>,
    open: ParkedConnection,
    slot: Slot,
    guard: ConnectionGuard,
}

impl AsFd for Parked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The connections of one worker that rest.
#[derive(Debug)]
pub struct Parking {
    lot: Lot<Parked>,
    /// No deadline is earlier.
    earliest: Cell<Option<Instant>>,
    first: Notify,
}

impl Parking {
    /// None yet.
    ///
    /// # Errors
    /// As [`Lot::new`].
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { lot: Lot::new()?, earliest: Cell::new(None), first: Notify::new() })
    }

    /// How many are parked.
    pub fn parked(&self) -> usize {
        self.lot.len()
    }

    /// Ends all of them: nothing is expected of them, and no more will be.
    pub fn close(&self) {
        drop(self.lot.take_if(|_| true));
    }

    fn put(&self, parked: Parked) -> Result<(), Parked> {
        let (was_empty, deadline) = (self.lot.is_empty(), parked.deadline);
        self.lot.park(parked)?;
        if let Some(deadline) = deadline {
            let earliest = self.earliest.get().map_or(deadline, |first| first.min(deadline));
            self.earliest.set(Some(earliest));
        }
        if was_empty {
            self.first.notify_one();
        }
        Ok(())
    }

    fn expire(&self, now: Instant) {
        if self.earliest.get().is_none_or(|earliest| earliest > now) {
            return;
        }
        let mut earliest: Option<Instant> = None;
        let over = self.lot.take_if(|parked| {
            let Some(deadline) = parked.deadline else { return false };
            if deadline > now {
                earliest = Some(earliest.map_or(deadline, |first| first.min(deadline)));
            }
            deadline <= now
        });
        self.earliest.set(earliest);
        // Idle for too long: closed without an answer.
        drop(over);
    }
}

/// Parks a connection on which nothing is under way, `early` included as a rule: what hyper
/// had read already and not looked at makes it go on at once.
pub(super) fn park(worker: &Rc<Worker>, arrival: Arrival, early: Bytes) {
    if worker.is_draining() {
        return;
    }
    let Arrival { listener, stream, peer, announced, places, kept, deadline, .. } = arrival;
    // One with TLS has never rested.
    let Some(stream) = stream.into_plain() else { return };
    let socket = match stream.into_std() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::debug!(%peer, %error, "connection ended");
            return;
        }
    };
    let Places { slot, open, guard } = places;
    let open = open.parks();
    let parked = Parked { socket, kept, peer, announced, listener, deadline, open, slot, guard };
    if !early.is_empty() {
        return revive(worker, parked, early.into());
    }
    if let Err(parked) = worker.parking.put(parked) {
        // The kernel will not watch it there; then it does without.
        revive(worker, parked, BytesMut::new());
    }
}

/// A connection goes on: it has got its first bytes, `early`.
fn revive(worker: &Rc<Worker>, parked: Parked, early: BytesMut) {
    let Parked { socket, kept, peer, announced, listener, deadline, open, slot, guard } = parked;
    let Some(open) = open.returns() else { return };
    let stream = match TcpStream::from_std(socket) {
        Ok(stream) => stream.into(),
        Err(error) => {
            tracing::debug!(%peer, %error, "connection ended");
            return;
        }
    };
    let places = Places { slot, open, guard };
    let arrival = Arrival { listener, stream, peer, announced, places, early, kept, deadline };
    tokio::task::spawn_local(serve(Rc::clone(worker), arrival));
}

/// Looks after those that something comes for. Runs for the life of the worker.
pub async fn watch(worker: Rc<Worker>) {
    let mut buffer = vec![0; FIRST_READ_BYTES];
    let mut woken = Vec::new();
    // An error is the end of the runtime.
    while worker.parking.lot.ready(&mut woken).await.is_ok() {
        for parked in woken.drain(..) {
            wake(&worker, parked, &mut buffer);
        }
        tokio::task::yield_now().await;
    }
}

fn wake(worker: &Rc<Worker>, parked: Parked, buffer: &mut [u8]) {
    if worker.is_draining() {
        return;
    }
    let read = loop {
        match (&parked.socket).read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    match read {
        // The client is gone, as it may be between two requests.
        Ok(0) => {}
        Ok(read) => revive(worker, parked, BytesMut::from(&buffer[..read])),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            revive(worker, parked, BytesMut::new());
        }
        Err(error) => tracing::debug!(peer = %parked.peer, %error, "connection ended"),
    }
}

/// Ends those whose deadline passes. Runs for the life of the worker, and ticks only while
/// there are any.
pub async fn expire(worker: Rc<Worker>) {
    loop {
        if worker.parking.lot.is_empty() {
            worker.parking.first.notified().await;
        }
        tokio::time::sleep(worker.watchdog.tick()).await;
        worker.parking.expire(Instant::now());
    }
}
