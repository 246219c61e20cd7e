//! `[listener.tls]`: which certificates a listener shows, and to whom it speaks.
//!
//! The files are read together with the settings, so that `check` and a reload find what is
//! wrong in them; what they held goes along with the configuration (`tls/live.rs`).

use std::sync::Arc;

use crate::tls::Tls;

mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use read::from_flags;
pub(super) use read::read;
pub(super) use write::write;

/// TLS of a listener, as it was read.
#[derive(Debug)]
pub(crate) struct DraftTls {
    pub(crate) tls: Arc<Tls>,
    /// Each with its place.
    pub(crate) warnings: Vec<String>,
}
