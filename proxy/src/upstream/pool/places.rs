//! Places of connections among the open ones, and who waits for one: values that give back
//! what they hold, whichever way things end.

use std::{rc::Rc, sync::atomic::Ordering::Relaxed};

use super::ServerPool;
use crate::upstream::{carried::Carried, http1::Life};

/// A connection that has left HTTP and counts all the same, until this is dropped.
#[derive(Debug)]
pub struct Lease {
    pool: Rc<ServerPool>,
    _life: Option<Life>,
    carried: Option<Box<Carried>>,
}

impl Lease {
    pub(in crate::upstream) fn take(pool: Rc<ServerPool>, life: Option<Life>) -> Self {
        pool.open.set(pool.open.get() + 1);
        Self { pool, _life: life, carried: None }
    }

    /// Has what is done on the connection count as under way.
    pub fn carry(mut self, carried: Option<Box<Carried>>) -> Self {
        self.carried = carried;
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.closed();
    }
}

/// One of the open connections, from before it is made.
pub(super) struct Place(Option<Rc<ServerPool>>);

impl Place {
    pub(super) fn take(pool: &Rc<ServerPool>) -> Self {
        pool.open.set(pool.open.get() + 1);
        Self(Some(Rc::clone(pool)))
    }

    /// From now on the connection itself gives it back.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.closed();
        }
    }
}

/// Somebody waits for a connection to end, until this is dropped.
pub(super) struct Waiting(Rc<ServerPool>);

impl Waiting {
    pub(super) fn begin(pool: &Rc<ServerPool>) -> Self {
        pool.waiting.set(pool.waiting.get() + 1);
        pool.state.waiting.fetch_add(1, Relaxed);
        Self(Rc::clone(pool))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        self.0.state.waiting.fetch_sub(1, Relaxed);
    }
}
