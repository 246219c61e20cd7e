//! Upstreams and their servers as `/upstreams` shows them.

use serde::Serialize;

use super::{
    directory::{Directory, Group},
    state::Member,
};

/// One upstream.
#[derive(Debug, Serialize)]
pub struct UpstreamView {
    name: String,
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
}

impl Directory {
    /// All upstreams, by name.
    pub fn view(&self) -> Vec<UpstreamView> {
        self.groups().iter().map(|group| view(group)).collect()
    }
}

fn view(group: &Group) -> UpstreamView {
    let servers = group.roster().iter().map(server).collect();
    UpstreamView { name: group.name().to_owned(), servers }
}

fn server(member: &Member) -> ServerView {
    let draining = member.is_draining();
    ServerView {
        address: member.state.address().to_string(),
        state: if draining { "draining" } else { "up" },
        weight: member.weight(),
        configured_weight: member.spec.weight,
        backup: member.spec.backup,
        draining,
    }
}
