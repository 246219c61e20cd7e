//! Local bypass of inspected connections, in a scrape.

use std::fmt;

use prometheus_client::{encoding::DescriptorEncoder, registry::Unit};

use super::export::{counter, gauge};
use crate::splice::hop_bypass::{Figures, Side};

const SIDES: [(Side, &str); 2] = [(Side::Downstream, "downstream"), (Side::Upstream, "upstream")];

/// Implements: REQ-CTRL-005
pub(super) fn encode(out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Open connections of inspected HTTP that bypass TCP";
    gauge(out, "hop_bypass_open", help, |one| {
        SIDES.iter().try_for_each(|(side, name)| one(&[("side", *name)], Figures::of(*side).open()))
    })?;
    let help = "Connections of inspected HTTP that have come to bypass TCP";
    counter(out, "hop_bypass_connections", help, None, |one| {
        SIDES
            .iter()
            .try_for_each(|(side, name)| one(&[("side", *name)], Figures::of(*side).opened()))
    })?;
    let help = "Bytes of inspected HTTP past TCP";
    counter(out, "hop_bypass", help, Some(Unit::Bytes), |one| {
        SIDES.iter().try_for_each(|(side, name)| {
            let [received, sent] = Figures::of(*side).bytes();
            one(&[("side", *name), ("direction", "received")], received)?;
            one(&[("side", *name), ("direction", "sent")], sent)
        })
    })
}
