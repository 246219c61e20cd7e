//! One door as one worker sees it, and the listener behind it, which every connection keeps
//! that came by it.
//!
//! After a reload new connections have the new settings. An open one keeps its limits and the
//! way its headers are written, which hyper was told when it began; but where its requests go,
//! and whom a forward listener serves, is asked anew for each of them
//! ([`Listener::follow`]). A connection whose listener is gone goes on by the configuration
//! that had it, and ends with its next answer ([`Listener::part`]).
//!
//! Invariant: a listener that has parted never follows again, so that a connection is not
//! served by one that has the same name and is another.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, OwnedFd},
    rc::{Rc, Weak},
    sync::Arc,
};

use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
};

use super::slots::Slots;
use crate::{
    config::{self, Protocol},
    metrics::ListenerMetrics,
    worker::View,
};

/// One listener as one worker sees it.
#[derive(Debug)]
pub struct Listener {
    /// Name, shared.
    pub name: Arc<str>,
    /// Settings, of when this was made.
    pub config: config::Listener,
    /// Counters of this worker.
    pub metrics: ListenerMetrics,
    /// Turns for what handshakes of TLS compute, where those are limited.
    pub handshakes: Option<Semaphore>,
    /// The door that its connections came by.
    pub door: u64,
    /// In the configuration in force.
    index: Cell<usize>,
    /// What is spoken, and with whom, in the configuration in force.
    protocol: RefCell<Rc<Protocol>>,
    leaving: Cell<bool>,
    /// The last configuration that had it, once it is gone.
    parted: RefCell<Option<Rc<View>>>,
}

impl Listener {
    /// The listener `index` of a configuration.
    pub fn new(
        config: &config::Listener,
        index: usize,
        door: u64,
        metrics: ListenerMetrics,
    ) -> Rc<Self> {
        let most = config.tls.as_ref().and_then(|tls| tls.settings.max_handshakes);
        Rc::new(Self {
            name: config.name.as_str().into(),
            config: config.clone(),
            metrics,
            handshakes: most.map(Semaphore::new),
            door,
            index: Cell::new(index),
            protocol: RefCell::new(Rc::new(config.protocol.clone())),
            leaving: Cell::new(false),
            parted: RefCell::new(None),
        })
    }

    /// Its place in the configuration that is in force for it.
    pub fn index(&self) -> usize {
        self.index.get()
    }

    /// What is spoken, and with whom, for the next request.
    pub fn protocol(&self) -> Rc<Protocol> {
        Rc::clone(&self.protocol.borrow())
    }

    /// Whether its connections are to end with their next answer.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// The configuration that its connections go by, where that is not the one in force.
    pub fn parted(&self) -> Option<Rc<View>> {
        self.parted.borrow().clone()
    }

    /// Another configuration is in force, and has it as `index`. `stays`: under the same
    /// address.
    pub fn follow(&self, config: &config::Listener, index: usize, stays: bool) {
        if self.parted.borrow().is_some() {
            return;
        }
        self.index.set(index);
        let before = self.protocol();
        if *before != config.protocol {
            self.protocol.replace(Rc::new(config.protocol.clone()));
        }
        if !stays {
            self.leaving.set(true);
        }
    }

    /// Another configuration is in force, and has it no more: `last` is the one that had.
    pub fn part(&self, last: &Rc<View>) {
        self.leaving.set(true);
        self.parted.borrow_mut().get_or_insert_with(|| Rc::clone(last));
    }
}

/// One address with this worker's sockets.
#[derive(Debug)]
pub struct Door {
    /// The same for all workers, and never used again.
    pub id: u64,
    /// Open connections over all workers.
    pub slots: Arc<Slots>,
    /// Those that are accepted from, each with its seat.
    sockets: RefCell<Vec<(Weak<TcpListener>, Option<usize>)>>,
    listener: RefCell<Rc<Listener>>,
    closed: Cell<bool>,
    closes: Notify,
}

impl Door {
    /// A door that leads to `listener`.
    pub fn new(id: u64, slots: Arc<Slots>, listener: Rc<Listener>) -> Rc<Self> {
        Rc::new(Self {
            id,
            slots,
            sockets: RefCell::default(),
            listener: RefCell::new(listener),
            closed: Cell::new(false),
            closes: Notify::new(),
        })
    }

    /// One more socket is accepted from.
    pub fn has(&self, socket: &Rc<TcpListener>, seat: Option<usize>) {
        self.sockets.borrow_mut().push((Rc::downgrade(socket), seat));
    }

    /// Copies of the sockets, each with its seat.
    ///
    /// # Errors
    /// As dup(2).
    pub fn lend(&self) -> io::Result<Vec<(OwnedFd, Option<usize>)>> {
        let sockets = self.sockets.borrow();
        let open = sockets.iter().filter_map(|(socket, seat)| Some((socket.upgrade()?, *seat)));
        open.map(|(socket, seat)| Ok((socket.as_fd().try_clone_to_owned()?, seat))).collect()
    }

    /// What a connection that comes now belongs to.
    pub fn listener(&self) -> Rc<Listener> {
        Rc::clone(&self.listener.borrow())
    }

    /// Leads to another one from now on.
    pub fn leads_to(&self, listener: Rc<Listener>) {
        self.listener.replace(listener);
    }

    /// No more connections.
    pub fn close(&self) {
        self.closed.set(true);
        self.closes.notify_waiters();
    }

    /// Resolves when it is closed.
    pub async fn closed(&self) {
        loop {
            // Registered before the look, so that a close in between is not missed.
            let mut closes = std::pin::pin!(self.closes.notified());
            closes.as_mut().enable();
            if self.closed.get() {
                return;
            }
            closes.await;
        }
    }
}
