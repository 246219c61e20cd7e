//! Where clients arrive: sockets of all workers on one address through SO_REUSEPORT, the
//! choice between them, and the loop that accepts on each.
//!
//! Invariant: an error of accept(2) never ends the loop, and never makes it spin.

use std::{rc::Rc, sync::Arc};

use crate::{config, metrics::ListenerMetrics};

pub mod accept;
pub mod bind;
pub mod slots;
pub mod steer;

/// One listener as one worker sees it.
#[derive(Debug)]
pub struct Listener {
    /// Index in the configuration.
    pub index: usize,
    /// Name, shared.
    pub name: Arc<str>,
    /// Settings.
    pub config: config::Listener,
    /// Counters of this worker.
    pub metrics: ListenerMetrics,
    /// Open connections over all workers.
    pub slots: Arc<slots::Slots>,
    /// This worker's say in who gets a connection, where that is asked.
    pub seat: Option<Rc<steer::Seat>>,
}
