//! A route as one worker has it: what an exchange carries from the moment it was found.
//!
//! Made once per worker and snapshot, with what the worker holds of its own (pools, counters)
//! already looked up; an exchange takes it by a count of references. Whoever wants something
//! per route, a counter or a limit, puts it here.

use std::{rc::Rc, sync::Arc};

use crate::{
    config::Config,
    middleware::{Chain, Chains},
    upstream::balance::Upstream,
};

/// A route of the snapshot in force.
#[derive(Debug)]
pub struct Matched {
    /// Index in the configuration of this snapshot.
    pub index: usize,
    /// As the access log and metrics call it.
    pub name: Rc<str>,
    /// What is done with requests before that.
    pub chain: Option<Arc<Chain>>,
    /// What is done with what comes.
    pub action: Action,
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// To the servers of an upstream.
    Upstream(Rc<Upstream>),
}

impl Matched {
    /// All routes, in the order of the configuration, over its upstreams, in theirs.
    pub fn all(config: &Config, chains: &Chains, upstreams: &[Rc<Upstream>]) -> Vec<Rc<Self>> {
        let routes = config.routes.iter().enumerate();
        routes
            .map(|(index, route)| {
                let action = Action::Upstream(Rc::clone(&upstreams[route.upstream]));
                let chain = chains.of_route(index).cloned();
                Rc::new(Self { index, name: route.name.as_str().into(), chain, action })
            })
            .collect()
    }

    /// The upstream of a request or a connection.
    pub fn upstream(&self) -> &Rc<Upstream> {
        let Action::Upstream(upstream) = &self.action;
        upstream
    }
}
