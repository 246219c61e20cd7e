//! Idle connections to servers at rest: of each there is a socket and its place among the
//! open ones; HTTP/1 begins anew when a request takes it.
//!
//! Invariant: nothing of an exchange is left when a connection is parked
//! (`Wire::is_free` in `http1/wire.rs` says how that is known). A server may end one at any
//! time and may send nothing: whatever comes ends it here.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    rc::{Rc, Weak},
    time::Duration,
};

use tokio::{net::TcpStream, time::Instant};

use super::{
    http1::{Http1, Life},
    pool::{Making, ServerPool},
};
use crate::{
    lot::{Key, Lot},
    metrics::ParkedUpstream,
    splice::hop_bypass::{HopBypass, Side},
};

/// One connection at rest.
#[derive(Debug)]
struct Parked {
    socket: std::net::TcpStream,
    address: SocketAddr,
    place: Place,
    life: Life,
    _counted: ParkedUpstream,
}

impl AsFd for Parked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One of the open connections of a pool.
#[derive(Debug)]
struct Place(Option<Weak<ServerPool>>);

impl Place {
    /// From now on the connection itself gives it back.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take().and_then(|pool| pool.upgrade()) {
            pool.closed();
        }
    }
}

/// The connections of one worker that rest.
#[derive(Debug)]
pub struct Parking(Lot<Parked>);

/// One of them, as its pool knows it: the connection ends with this.
#[derive(Debug)]
pub(super) struct Spot {
    parking: Rc<Parking>,
    key: Key,
    born: Instant,
}

impl Parking {
    /// None yet.
    ///
    /// # Errors
    /// As [`Lot::new`].
    pub fn new() -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self(Lot::new()?)))
    }

    /// How many are parked.
    pub fn parked(&self) -> usize {
        self.0.len()
    }

    /// Takes in a connection that counts as open for `pool`. `None`: it is closed, and
    /// counts still.
    pub(super) fn park(
        self: &Rc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        pool: &Rc<ServerPool>,
        life: Life,
    ) -> Option<Spot> {
        let born = life.born;
        let parked = Parked {
            socket: stream.into_std().ok()?,
            address,
            life,
            place: Place(Some(Rc::downgrade(pool))),
            _counted: pool.metrics().parked(),
        };
        match self.0.park(parked) {
            Ok(key) => Some(Spot { parking: Rc::clone(self), key, born }),
            Err(Parked { place, .. }) => {
                place.keep();
                None
            }
        }
    }

    /// Ends those that something comes on. Runs for the life of the worker.
    pub async fn watch(self: Rc<Self>) {
        let mut ended = Vec::new();
        // An error is the end of the runtime.
        while self.0.ready(&mut ended).await.is_ok() {
            for Parked { address, .. } in ended.drain(..) {
                tracing::debug!(server = %address, "idle upstream connection ended");
            }
        }
    }
}

impl Spot {
    /// Whether the server has left it open.
    pub(super) fn is_open(&self) -> bool {
        self.parking.0.holds(self.key)
    }

    /// For how long it has been open.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }

    /// Begins HTTP on it again. `None` if it is of no use any more.
    pub(super) fn resume(self, pool: &Rc<ServerPool>, making: &Making<'_>) -> Option<Http1> {
        let Parked { socket, address, place, life, .. } = self.parking.0.take(self.key)?;
        match socket.peek(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Ended, or with bytes that nobody asked for, and its event is on its way.
            _ => return None,
        }
        let stream = TcpStream::from_std(socket).ok()?.into();
        let Making { bounds, preserve_header_case, kernel, .. } = *making;
        let (pool, hop) = (Rc::downgrade(pool), HopBypass::new(kernel, Side::Upstream));
        place.keep();
        let connection = Http1::new(stream, hop, address, bounds, preserve_header_case, pool, life);
        Some(connection.reused())
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        drop(self.parking.0.take(self.key));
    }
}
