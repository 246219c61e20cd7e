//! What the process knows of one server while it runs: the one place that workers read for
//! every request and that the control plane writes.
//!
//! It outlives a configuration: a server that a reload keeps (same upstream, same address)
//! keeps its state. Everything here is an atomic; whoever changes what a choice depends on
//! says so by `Group::changed` afterwards, so that workers need to look at one
//! number only while nothing changes.
//!
//! Implements: REQ-EDGE-002

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{
    choose::hash,
    health::{Checked, Condition},
    load::Gauge,
};
use crate::config::{Server, UpstreamServer};

/// Milliseconds since the process first asked, from 1: 0 is left for "never".
pub fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}

/// No weight was set while the process runs.
const AS_CONFIGURED: u32 = u32::MAX;

/// Whether a server drains, if that was set while the process runs.
const DRAIN_AS_CONFIGURED: u8 = 0;
const DRAIN_NO: u8 = 1;
const DRAIN_YES: u8 = 2;

/// What a server has chosen to speak, where it has the choice.
const SPEAKS_UNKNOWN: u8 = 0;
const SPEAKS_HTTP1: u8 = 1;
const SPEAKS_HTTP2: u8 = 2;

/// The state of one server, shared by all threads.
#[derive(Debug)]
pub struct ServerState {
    address: Server,
    /// What it is for a hash.
    id: u64,
    weight: AtomicU32,
    drain: AtomicU8,
    speaks: AtomicU8,
    /// When it came back, by [`now`]; 0: it has been here from the beginning.
    returned: AtomicU64,
    /// Open connections to it, of all workers.
    pub(super) open: AtomicUsize,
    /// Requests that wait for one of them, at all workers.
    pub(super) waiting: AtomicUsize,
    /// Whether it is well.
    pub condition: Condition,
    /// Its load, where that is counted.
    pub gauge: Gauge,
}

/// A server of an upstream: what is configured, and how it is.
#[derive(Debug, Clone)]
pub struct Member {
    /// As it is configured.
    pub spec: UpstreamServer,
    /// How it is.
    pub state: Arc<ServerState>,
}

/// How a server stands, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is asked.
    Up,
    /// Checks find it down.
    Down,
    /// Requests failed there.
    Ejected,
    /// It gets no new requests.
    Draining,
}

impl Standing {
    /// For labels and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        }
    }
}

impl ServerState {
    /// A server of which nothing is known yet.
    pub fn new(address: Server) -> Arc<Self> {
        Arc::new(Self {
            id: hash::of(address.to_string().as_bytes()),
            address,
            returned: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            condition: Condition::default(),
            gauge: Gauge::default(),
            weight: AtomicU32::new(AS_CONFIGURED),
            drain: AtomicU8::new(DRAIN_AS_CONFIGURED),
            speaks: AtomicU8::new(SPEAKS_UNKNOWN),
        })
    }

    /// Where it is.
    pub fn address(&self) -> &Server {
        &self.address
    }

    /// Whether it has chosen HTTP/1.1 on its last connection that left it the choice.
    pub(super) fn speaks_http1(&self) -> bool {
        self.speaks.load(Relaxed) == SPEAKS_HTTP1
    }

    /// It has chosen.
    pub(super) fn has_chosen(&self, http2: bool) {
        self.speaks.store(if http2 { SPEAKS_HTTP2 } else { SPEAKS_HTTP1 }, Relaxed);
    }

    /// What it is for a hash: of its address, the same in every process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Open connections to it, of all workers.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// It takes part again, or for the first time, and may be cold.
    pub(super) fn returns(&self, now: u64) {
        self.returned.store(now, Relaxed);
    }

    /// For how long it has taken part again, in milliseconds; `None`: from the beginning.
    pub fn back_for(&self, now: u64) -> Option<u64> {
        match self.returned.load(Relaxed) {
            0 => None,
            since => Some(now.saturating_sub(since)),
        }
    }

    /// A weight instead of the configured one, or the configured one again.
    pub(super) fn set_weight(&self, weight: Option<u32>) {
        self.weight.store(weight.unwrap_or(AS_CONFIGURED), Relaxed);
    }

    /// Whether it drains, instead of what is configured, or that again.
    pub(super) fn set_drain(&self, drain: Option<bool>) {
        let value = match drain {
            None => DRAIN_AS_CONFIGURED,
            Some(false) => DRAIN_NO,
            Some(true) => DRAIN_YES,
        };
        self.drain.store(value, Relaxed);
    }
}

impl Member {
    /// The weight in force.
    pub fn weight(&self) -> u32 {
        match self.state.weight.load(Relaxed) {
            AS_CONFIGURED => self.spec.weight,
            weight => weight,
        }
    }

    /// How it stands at this time.
    pub fn standing(&self, now: u64) -> Standing {
        let condition = &self.state.condition;
        if self.is_draining() {
            Standing::Draining
        } else if condition.checked() == Checked::Down {
            Standing::Down
        } else if condition.ejected_for(now).is_some() {
            Standing::Ejected
        } else {
            Standing::Up
        }
    }

    /// Whether it gets no new requests.
    pub fn is_draining(&self) -> bool {
        match self.state.drain.load(Relaxed) {
            DRAIN_AS_CONFIGURED => self.spec.drain,
            drain => drain == DRAIN_YES,
        }
    }
}
