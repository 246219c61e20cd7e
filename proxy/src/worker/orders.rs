//! What the control plane asks of a worker while it serves: sockets to take in, and a
//! configuration to go by.
//!
//! In two steps, so that a change is made by all workers or by none: what can fail
//! ([`Order::Prepare`]) comes first, and only when all have done it [`Order::Apply`], which
//! cannot. A worker does as it is told between two turns of its connections and waits for
//! nobody.
//!
//! Implements: REQ-CTRL-005

use std::{io, net::TcpListener, os::fd::OwnedFd, rc::Rc, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::{Snapshot, Worker};
use crate::listener::{slots::Slots, steer::Seat};

/// One worker's share of a door.
#[derive(Debug)]
pub struct Share {
    /// Number of the door.
    pub door: u64,
    /// Open connections over all workers.
    pub slots: Arc<Slots>,
    /// This worker's sockets, each with its seat where the worker of a connection is chosen by
    /// a program.
    pub sockets: Vec<(TcpListener, Option<Seat>)>,
}

/// A configuration to go by.
#[derive(Debug, Clone)]
pub struct Change {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// The door of each of its listeners. One that was open before stays, one that has been
    /// prepared opens, and one that is not here closes.
    pub doors: Vec<u64>,
}

/// What a worker is asked.
#[derive(Debug)]
pub enum Order {
    /// Take these sockets in, and accept nothing on them yet.
    Prepare(Vec<Share>, oneshot::Sender<io::Result<()>>),
    /// Give up what has been prepared.
    Forget,
    /// Lend the listening sockets.
    Lend(oneshot::Sender<io::Result<Vec<Lent>>>),
    /// Go by this from now on. Answered when closed doors are closed.
    Apply(Change, oneshot::Sender<()>),
}

/// A copy of a listening socket.
#[derive(Debug)]
pub struct Lent {
    /// Number of its door.
    pub door: u64,
    /// Its seat there, where it has one.
    pub seat: Option<usize>,
    /// The copy.
    pub socket: OwnedFd,
}

/// Where orders are sent to.
pub type Orders = mpsc::UnboundedSender<Order>;

/// A share whose sockets the runtime knows.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) door: u64,
    pub(super) slots: Arc<Slots>,
    pub(super) sockets: Vec<(tokio::net::TcpListener, Option<Rc<Seat>>)>,
}

impl Worker {
    /// Does as it is told, until there is nobody left to tell it.
    pub(super) async fn obey(self: &Rc<Self>, orders: &mut mpsc::UnboundedReceiver<Order>) {
        while let Some(order) = orders.recv().await {
            // Who does not wait for the answer any more has given up.
            match order {
                Order::Prepare(shares, done) => drop(done.send(self.prepare(shares))),
                Order::Lend(lent) => drop(lent.send(self.lend())),
                Order::Forget => self.prepared.borrow_mut().clear(),
                Order::Apply(change, done) => {
                    self.apply(change);
                    self.closed_doors().await;
                    let _ = done.send(());
                }
            }
        }
    }

    /// Copies of all its listening sockets.
    fn lend(&self) -> io::Result<Vec<Lent>> {
        let mut lent = Vec::new();
        for door in &*self.doors.borrow() {
            let sockets = door.lend()?.into_iter();
            lent.extend(sockets.map(|(socket, seat)| Lent { door: door.id, seat, socket }));
        }
        Ok(lent)
    }

    /// Registers sockets with the runtime.
    ///
    /// # Errors
    /// As epoll_ctl(2); then none of them is kept.
    pub(super) fn prepare(&self, shares: Vec<Share>) -> io::Result<()> {
        let prepare = |Share { door, slots, sockets }| {
            let register = |(socket, seat): (TcpListener, Option<Seat>)| {
                Ok((tokio::net::TcpListener::from_std(socket)?, seat.map(Rc::new)))
            };
            let sockets = sockets.into_iter().map(register).collect::<io::Result<_>>()?;
            Ok(Prepared { door, slots, sockets })
        };
        let prepared = shares.into_iter().map(prepare).collect::<io::Result<Vec<_>>>()?;
        self.prepared.borrow_mut().extend(prepared);
        Ok(())
    }
}
