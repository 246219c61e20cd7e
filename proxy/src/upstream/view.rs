//! Upstreams and their servers as `/upstreams` shows them.

use serde::Serialize;

use super::{
    directory::{Directory, Group},
    state::{Member, now},
};
use crate::config::{Balance, Choice};

/// One upstream.
#[derive(Debug, Serialize)]
pub struct UpstreamView {
    name: String,
    balance: &'static str,
    servers: Vec<ServerView>,
}

/// One server.
#[derive(Debug, Serialize)]
struct ServerView {
    address: String,
    /// `up`, or `draining`.
    state: &'static str,
    /// In force.
    weight: u32,
    configured_weight: u32,
    backup: bool,
    draining: bool,
    /// Requests under way, where the rule goes by them.
    in_flight: Option<usize>,
    /// Expected time to the head of an answer, where the rule goes by it.
    latency_ms: Option<f64>,
}

impl Directory {
    /// All upstreams, by name.
    pub fn view(&self) -> Vec<UpstreamView> {
        self.groups().iter().map(|group| view(group)).collect()
    }
}

fn view(group: &Group) -> UpstreamView {
    let config = group.config();
    let servers = group.roster().iter().map(|member| server(member, &config.choice)).collect();
    UpstreamView { name: group.name().to_owned(), balance: config.choice.balance.name(), servers }
}

fn server(member: &Member, choice: &Choice) -> ServerView {
    let (state, draining) = (&member.state, member.is_draining());
    let by_latency = choice.balance == Balance::PeakEwma;
    ServerView {
        address: state.address().to_string(),
        state: if draining { "draining" } else { "up" },
        weight: member.weight(),
        configured_weight: member.spec.weight,
        backup: member.spec.backup,
        draining,
        in_flight: choice.counts_load().then(|| state.gauge.in_flight()),
        latency_ms: by_latency.then(|| (state.gauge.latency(now()) * 1000.0).round() / 1000.0),
    }
}
