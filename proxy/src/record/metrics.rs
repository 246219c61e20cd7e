//! What the recorder counts.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::event::Why;

/// Why bytes of bodies are not in their record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Counters of the recorder.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Records that have begun.
    pub(super) exchanges: Counter,
    /// Exchanges that were to be recorded and found no memory for it.
    pub(super) unrecorded: Counter,
    /// By reason, in the order of [`Why::ALL`].
    missing: [Counter; Why::ALL.len()],
    missing_family: Family<Reason, Counter>,
    /// Bytes that were written, as they are stored.
    pub(super) written: Counter,
    /// Writes, syncs and new segments that failed.
    pub(super) failures: Counter,
    /// 1 while the disk takes nothing.
    pub(super) failing: Gauge<i64, AtomicI64>,
    /// Segments that were removed because of the cap.
    pub(super) removed: Counter,
    /// Lines that the server took that they are sent to.
    pub(super) ship_sent: Counter,
    /// Lines that it refused for good.
    pub(super) ship_refused: Counter,
    /// Segments that were removed before all of them was sent.
    pub(super) ship_lost: Counter,
    /// Set at each batch: bytes that waited for it.
    pub(super) queued: Gauge<u64, AtomicU64>,
}

impl Default for Counters {
    fn default() -> Self {
        let missing_family = Family::<Reason, Counter>::default();
        let of = |why: Why| missing_family.get_or_create_owned(&Reason { reason: why.name() });
        Self {
            exchanges: Counter::default(),
            unrecorded: Counter::default(),
            missing: Why::ALL.map(of),
            missing_family,
            written: Counter::default(),
            failures: Counter::default(),
            failing: Gauge::default(),
            removed: Counter::default(),
            ship_sent: Counter::default(),
            ship_refused: Counter::default(),
            ship_lost: Counter::default(),
            queued: Gauge::default(),
        }
    }
}

impl Counters {
    pub(super) fn missing(&self, why: Why, bytes: u64) {
        self.missing[why as usize].inc_by(bytes);
    }

    /// Of all reasons.
    #[cfg(test)]
    pub(super) fn missing_bytes(&self) -> u64 {
        self.missing.iter().map(Counter::get).sum()
    }

    /// Gives all of them their names.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("record_exchanges", "Exchanges whose record has begun", &self.exchanges),
            (
                "record_exchanges_unrecorded",
                "Exchanges that were to be recorded and found no memory for it",
                &self.unrecorded,
            ),
            (
                "record_failures",
                "Writes, syncs and openings of segments that failed",
                &self.failures,
            ),
            (
                "record_segments_removed",
                "Segments that were removed to stay below the cap",
                &self.removed,
            ),
            (
                "record_lines_shipped",
                "Lines that the server of [record.ship] took",
                &self.ship_sent,
            ),
            (
                "record_lines_refused",
                "Lines that the server of [record.ship] refused for good",
                &self.ship_refused,
            ),
            (
                "record_segments_unshipped",
                "Segments that were removed before all of them was sent",
                &self.ship_lost,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        let bytes = || Unit::Bytes;
        let help = "Body bytes that are missing in records, by reason";
        registry.register_with_unit("record_missing", help, bytes(), self.missing_family.clone());
        let help = "Bytes of segments that were written";
        registry.register_with_unit("record_written", help, bytes(), self.written.clone());
        let help = "Bytes that waited to be written when a batch began";
        registry.register_with_unit("record_queued", help, bytes(), self.queued.clone());
        let help = "1 while nothing can be written";
        registry.register("record_failing", help, self.failing.clone());
    }
}
