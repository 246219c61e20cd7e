//! What a request under way holds of its upstream's counts, for as long as its connection is
//! checked out.
//!
//! Boxed, and only where something is counted: a connection is moved about with every answer,
//! and most upstreams count nothing.

use super::{breaker::Permit, load::Load};

/// Counted until this is dropped.
#[derive(Debug)]
pub struct Carried {
    _load: Option<Load>,
    _permit: Option<Permit>,
}

impl Carried {
    /// `None`: nothing is counted.
    pub fn of(load: Option<Load>, permit: Option<Permit>) -> Option<Box<Self>> {
        (load.is_some() || permit.is_some())
            .then(|| Box::new(Self { _load: load, _permit: permit }))
    }
}
