//! The live table of tunnels: who, where to, by which engine, how much, since when.
//!
//! Invariant: an entry is in the table exactly as long as its [`Ticket`] lives, and what it
//! has moved passes to the sums of ended tunnels in the same critical section. The lock is
//! taken once when a tunnel opens and once when it ends; everything that changes in
//! between is an atomic in the entry, written by the tunnel's worker and read by anybody,
//! so looking at the table wakes nobody.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use serde::Serialize;
use tokio::time::Instant;

use crate::splice::{Engine, Meter, figures::Figures};

use super::{
    view::{Directions, View},
    watch::Sample,
};

/// All tunnels of the process. Cheap to clone.
///
/// Implements: REQ-TUN-004
#[derive(Debug, Clone, Default)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    last_id: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    open: BTreeMap<u64, Arc<Entry>>,
    /// Sums over all tunnels that have ended.
    ended: Directions<Figures>,
}

/// What all tunnels since the start have moved, and what moves the open ones.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Open and ended tunnels.
    pub(crate) moved: Directions<Figures>,
    /// Open tunnels, by the engine of the direction in the order of [`Engine::ALL`].
    pub(crate) open: Directions<[u64; Engine::ALL.len()]>,
}

/// How a tunnel came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// 101 to `Upgrade: websocket` (RFC 6455).
    #[serde(rename = "websocket")]
    WebSocket,
    /// 101 to any other `Upgrade` (RFC 9110 7.8).
    Upgrade,
    /// 2xx to CONNECT (RFC 9110 9.3.6).
    Connect,
    /// A connection of a tcp listener.
    Tcp,
    /// A connection of a tcp listener that began with a TLS ClientHello, as far as anybody
    /// looked: its routes go by the server name.
    Tls,
}

impl Kind {
    /// Stable name, as in `/tunnels` and the access log.
    pub fn name(self) -> &'static str {
        match self {
            Kind::WebSocket => "websocket",
            Kind::Upgrade => "upgrade",
            Kind::Connect => "connect",
            Kind::Tcp => "tcp",
            Kind::Tls => "tls",
        }
    }
}

/// What is known of a tunnel when it opens.
#[derive(Debug, Clone)]
pub struct Info {
    /// How it came to be.
    pub kind: Kind,
    /// The client's address.
    pub client: SocketAddr,
    /// The server, as it was asked for or as it is configured.
    pub upstream: Arc<str>,
    /// The listener's name.
    pub listener: Arc<str>,
    /// Time between two lines about it in the log.
    pub log_interval: Duration,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) info: Info,
    pub(super) to_upstream: Meter,
    pub(super) to_downstream: Meter,
    pub(super) opened: Instant,
    /// What it had moved when it ended.
    last: OnceLock<Box<Directions<Figures>>>,
    /// For the rates; written by the one task that watches.
    pub(super) sample: Sample,
    /// Microseconds from `opened` to the last byte.
    last_activity: AtomicU64,
    /// Whether the kernel has the keys of its TLS: the client's side, the server's.
    keys: [AtomicBool; 2],
    /// Whether somebody wants it to end.
    end: AtomicBool,
    task: AtomicWaker,
}

/// A tunnel's place in the table; dropping it gives it up.
#[derive(Debug)]
pub struct Ticket {
    id: u64,
    entry: Arc<Entry>,
    registry: Registry,
}

impl Registry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a tunnel.
    pub fn open(&self, info: Info) -> Ticket {
        let id = self.shared.last_id.fetch_add(1, Relaxed) + 1;
        let opened = Instant::now();
        let entry = Arc::new(Entry {
            info,
            to_upstream: Meter::default(),
            to_downstream: Meter::default(),
            opened,
            last: OnceLock::new(),
            sample: Sample::default(),
            last_activity: AtomicU64::new(0),
            keys: Default::default(),
            end: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        self.lock().open.insert(id, entry.clone());
        Ticket { id, entry, registry: self.clone() }
    }

    /// All open tunnels, oldest first.
    pub fn snapshot(&self) -> Vec<View> {
        self.entries().into_iter().map(|(id, entry)| entry.view(id)).collect()
    }

    /// The open ones. Views are made of them after the lock is let go: a long table must not
    /// hold up workers.
    pub(super) fn entries(&self) -> Vec<(u64, Arc<Entry>)> {
        self.lock().open.iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    /// Sums over the tunnels that are open and those that have ended. A tunnel that ends
    /// meanwhile is in them once.
    pub(crate) fn totals(&self) -> Totals {
        let (ended, open) = {
            let table = self.lock();
            (table.ended, table.open.values().cloned().collect::<Vec<_>>())
        };
        let mut totals = Totals { moved: ended, ..Totals::default() };
        for entry in open {
            let now = entry.figures();
            // Once it has ended this is what counts, now and in every later sum.
            let moved = entry.last.get().map_or(now, |last| **last);
            totals.moved.to_upstream += moved.to_upstream;
            totals.moved.to_downstream += moved.to_downstream;
            totals.open.to_upstream[entry.to_upstream.standing().0 as usize] += 1;
            totals.open.to_downstream[entry.to_downstream.standing().0 as usize] += 1;
        }
        totals
    }

    /// Tells a tunnel to end. Whether there is one of that id.
    pub fn end(&self, id: u64) -> bool {
        let entry = self.lock().open.get(&id).cloned();
        entry.is_some_and(|entry| {
            entry.end.store(true, Release);
            entry.task.wake();
            true
        })
    }

    /// Open tunnels.
    pub fn len(&self) -> usize {
        self.lock().open.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Critical sections are calls into the map and sums: whole even if one panicked.
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Bytes handed on: to the server, to the client.
    pub(super) fn bytes(&self) -> [u64; 2] {
        [self.to_upstream.bytes(), self.to_downstream.bytes()]
    }

    /// The sides whose TLS is the kernel's.
    pub(super) fn ktls(&self) -> Vec<&'static str> {
        let sides = ["downstream", "upstream"].into_iter().zip(&self.keys);
        sides.filter(|(_, keys)| keys.load(Relaxed)).map(|(side, _)| side).collect()
    }

    fn figures(&self) -> Directions<Figures> {
        Directions {
            to_upstream: self.to_upstream.figures(),
            to_downstream: self.to_downstream.figures(),
        }
    }

    pub(super) fn idle(&self) -> Duration {
        let active = Duration::from_micros(self.last_activity.load(Relaxed));
        let userspace = self.opened.elapsed().saturating_sub(active);
        let kernel = [&self.to_upstream, &self.to_downstream].map(Meter::kernel_idle);
        kernel.into_iter().flatten().fold(userspace, Duration::min)
    }
}

impl Ticket {
    /// The tunnel's id in the table.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Bytes handed on so far: to the server, to the client.
    pub fn bytes(&self) -> (u64, u64) {
        (self.entry.to_upstream.bytes(), self.entry.to_downstream.bytes())
    }

    /// The engines that move the bytes now.
    pub fn engines(&self) -> Directions<Engine> {
        Directions {
            to_upstream: self.entry.to_upstream.standing().0,
            to_downstream: self.entry.to_downstream.standing().0,
        }
    }

    pub(super) fn to_upstream(&self) -> &Meter {
        &self.entry.to_upstream
    }

    pub(super) fn to_downstream(&self) -> &Meter {
        &self.entry.to_downstream
    }

    /// Whether the kernel has the keys of its TLS: the client's side, the server's.
    pub(super) fn has_keys(&self, keys: [bool; 2]) {
        for (cell, keys) in self.entry.keys.iter().zip(keys) {
            cell.store(keys, Relaxed);
        }
    }

    /// A byte has moved.
    pub(super) fn touch(&self) {
        let micros = self.entry.opened.elapsed().as_micros();
        self.entry.last_activity.store(micros.try_into().unwrap_or(u64::MAX), Relaxed);
    }

    /// Time since a byte moved.
    pub(super) fn idle(&self) -> Duration {
        self.entry.idle()
    }

    /// Whether somebody wants the tunnel to end.
    pub(super) fn is_to_end(&self) -> bool {
        self.entry.end.load(Acquire)
    }

    /// Has a task, instead of the last one, woken when somebody does.
    pub(super) fn register(&self, waker: &Waker) {
        self.entry.task.register(waker);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = self.registry.lock();
        if table.open.remove(&self.id).is_some() {
            let figures = **self.entry.last.get_or_init(|| Box::new(self.entry.figures()));
            table.ended.to_upstream += figures.to_upstream;
            table.ended.to_downstream += figures.to_downstream;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    fn info() -> Info {
        Info {
            kind: Kind::WebSocket,
            client: "192.0.2.1:4711".parse().unwrap(),
            upstream: "127.0.0.1:3000".into(),
            listener: "web".into(),
            log_interval: Duration::from_secs(600),
        }
    }

    #[test]
    fn an_entry_lives_as_long_as_its_ticket() {
        let registry = Registry::new();
        let first = registry.open(info());
        let second = registry.open(info());
        assert_ne!(first.id(), second.id());
        assert_eq!(
            registry.snapshot().iter().map(|view| view.id).collect::<Vec<_>>(),
            [first.id(), second.id()]
        );
        let id = first.id();
        drop(first);
        assert_eq!(registry.len(), 1);
        assert!(!registry.end(id));
        drop(second);
        assert!(registry.is_empty());
    }

    #[tokio::test]
    async fn an_order_to_end_is_kept_and_wakes() {
        let registry = Registry::new();
        let ticket = registry.open(info());
        let ended = std::future::poll_fn(|cx| {
            ticket.register(cx.waker());
            if ticket.is_to_end() { Poll::Ready(()) } else { Poll::Pending }
        });
        let (ended, ordered) = tokio::join!(ended, async { registry.end(ticket.id()) });
        assert_eq!((ended, ordered), ((), true));
        assert!(ticket.is_to_end());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_counts_from_the_last_byte() {
        let registry = Registry::new();
        let ticket = registry.open(info());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(registry.snapshot()[0].idle_seconds, 5.0);
        ticket.touch();
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(registry.snapshot()[0].idle_seconds, 2.0);
    }
}
