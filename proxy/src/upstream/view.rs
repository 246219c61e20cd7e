//! Upstreams and their servers as `/upstreams` shows them.

use serde::Serialize;

use super::{
    directory::{Directory, Group},
    state::{Member, now},
};
use crate::config::{Balance, Upstream};

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
    /// As it is configured, where that is a name that was resolved.
    name: Option<String>,
    /// `up`, `down` (checks), `ejected` (requests) or `draining`.
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
    /// Failures of requests in a row, where they are counted.
    errors: Option<u32>,
    /// How often it has been ejected, and for how long it is yet.
    ejections: u64,
    ejected_for_ms: Option<u64>,
    checks: Option<ChecksView>,
}

/// What checks have found, where there are any.
#[derive(Debug, Serialize)]
struct ChecksView {
    passed: u64,
    failed: u64,
    /// What the last one found, if it was a bad one.
    finding: Option<String>,
}

impl Directory {
    /// All upstreams, by name.
    pub fn view(&self) -> Vec<UpstreamView> {
        self.groups().iter().map(|group| view(group)).collect()
    }
}

fn view(group: &Group) -> UpstreamView {
    let config = group.config();
    let servers = group.roster().iter().map(|member| server(member, &config)).collect();
    UpstreamView { name: group.name().to_owned(), balance: config.choice.balance.name(), servers }
}

fn server(member: &Member, config: &Upstream) -> ServerView {
    let (state, choice, now) = (&member.state, &config.choice, now());
    let condition = &state.condition;
    let checks = || {
        let [passed, failed] = condition.checks();
        ChecksView { passed, failed, finding: condition.finding() }
    };
    let by_latency = choice.balance == Balance::PeakEwma;
    ServerView {
        address: state.address().to_string(),
        name: (member.spec.address != *state.address()).then(|| member.spec.to_string()),
        state: member.standing(now).name(),
        weight: member.weight(),
        configured_weight: member.spec.weight,
        backup: member.spec.backup,
        draining: member.is_draining(),
        in_flight: choice.counts_load().then(|| state.gauge.in_flight()),
        latency_ms: by_latency.then(|| (state.gauge.latency(now) * 1000.0).round() / 1000.0),
        errors: config.ejection.as_ref().map(|_| condition.errors()),
        ejections: condition.ejections(),
        ejected_for_ms: condition.ejected_for(now),
        checks: config.health.as_ref().map(|_| checks()),
    }
}
