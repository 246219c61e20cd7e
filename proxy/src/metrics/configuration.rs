//! What became of the configurations that were to come into force.
//!
//! The first is that of the start, which is no reload; its time is the first of the
//! timestamps, so that a rule that asks how old the configuration is has an answer from the
//! beginning.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use super::export::counter;

/// Counts of reloads. Written by the control plane alone.
#[derive(Debug)]
pub struct Configuration {
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Unix time in milliseconds.
    in_force_since: AtomicU64,
    last_failed: AtomicBool,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            in_force_since: AtomicU64::new(now()),
            last_failed: AtomicBool::new(false),
        }
    }
}

impl Configuration {
    /// Another configuration is in force.
    pub fn reloaded(&self) {
        self.succeeded.fetch_add(1, Relaxed);
        self.in_force_since.store(now(), Relaxed);
        self.last_failed.store(false, Relaxed);
    }

    /// A configuration was refused, the one before is in force.
    pub fn refused(&self) {
        self.failed.fetch_add(1, Relaxed);
        self.last_failed.store(true, Relaxed);
    }

    pub(super) fn encode(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        counter(out, "config_reloads", "Reloads of the configuration, by result", None, |one| {
            one(&[("result", "success")], self.succeeded.load(Relaxed))?;
            one(&[("result", "failure")], self.failed.load(Relaxed))
        })?;
        let since = self.in_force_since.load(Relaxed) as f64 / 1e3;
        let help = "When the configuration in force came into it, in seconds since 1970-01-01 UTC";
        let name = "config_last_reload_success_timestamp";
        let gauge = out.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(since).encode(gauge)?;
        let last = i64::from(!self.last_failed.load(Relaxed));
        let help = "1; 0 while the last reload is one that was refused";
        let gauge =
            out.encode_descriptor("config_last_reload_successful", help, None, MetricType::Gauge)?;
        ConstGauge::new(last).encode(gauge)
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
