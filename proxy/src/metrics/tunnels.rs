//! What tunnels move, in a scrape: the sums of the registry, open tunnels included.
//!
//! Workers and programs count in each tunnel's own cells; the scrape reads those of the open
//! tunnels and adds what ended ones have left, so bytes are seen while they flow.

use std::fmt;

use prometheus_client::{encoding::DescriptorEncoder, registry::Unit};

use super::export::{counter, gauge};
use crate::{
    splice::{Engine, figures::PASSED},
    tunnel::{registry::Totals, view::Directions},
};

/// Implements: REQ-TUN-004, REQ-CTRL-005
pub(super) fn encode(out: &mut DescriptorEncoder<'_>, totals: &Totals) -> fmt::Result {
    let moved = by_direction(&totals.moved);
    let help = "Bytes through tunnels, by engine and direction";
    counter(out, "tunnel", help, Some(Unit::Bytes), |one| {
        Engine::ALL.iter().try_for_each(|engine| {
            moved.iter().try_for_each(|(direction, figures)| {
                let labels = [("engine", engine.name()), ("direction", *direction)];
                one(&labels, figures.bytes[*engine as usize])
            })
        })
    })?;
    let help = "Changes of the engine of a direction";
    counter(out, "tunnel_engine_changes", help, None, |one| {
        moved
            .iter()
            .try_for_each(|(direction, figures)| one(&[("direction", *direction)], figures.changes))
    })?;
    let help = "Messages that BPF programs passed to userspace, by reason";
    counter(out, "tunnel_messages_passed", help, None, |one| {
        PASSED.iter().enumerate().try_for_each(|(at, reason)| {
            moved.iter().try_for_each(|(direction, figures)| {
                one(&[("reason", *reason), ("direction", *direction)], figures.passed[at])
            })
        })
    })?;
    gauge(out, "tunnel_directions_open", "Directions of open tunnels, by engine now", |one| {
        Engine::ALL.iter().try_for_each(|engine| {
            by_direction(&totals.open).iter().try_for_each(|(direction, open)| {
                let labels = [("engine", engine.name()), ("direction", *direction)];
                one(&labels, open[*engine as usize] as i64)
            })
        })
    })
}

/// Both directions with the value of the label `direction`.
fn by_direction<T>(both: &Directions<T>) -> [(&'static str, &T); 2] {
    [("up", &both.to_upstream), ("down", &both.to_downstream)]
}
