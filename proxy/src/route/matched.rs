//! A route as one worker has it: what an exchange carries from the moment it was found.
//!
//! Made once per worker and snapshot, with what the worker holds of its own (pools, counters)
//! already looked up; an exchange takes it by a count of references. Whoever wants something
//! per route, a counter or a limit, puts it here.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use super::split::Split;
use crate::{
    config::{self, Changes, Config, PathRule, Protocol, Redirect, Respond, Route, RouteCache},
    metrics::{RouteMetrics, WorkerMetrics},
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
    /// What is changed on the way; `None` for most routes.
    pub changes: Option<Box<Changes>>,
    /// The path that it asks for, for who wants its parts.
    pub rule: Option<PathRule>,
    /// Counts its requests; `None` on tcp listeners.
    pub metrics: Option<RouteMetrics>,
    /// Whether its exchanges are recorded; `None`: as the listener says.
    pub record: Option<bool>,
    /// How its answers are kept; `None`: they are not.
    pub cache: Option<Arc<RouteCache>>,
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// To the servers of an upstream.
    Upstream(Rc<Upstream>),
    /// To those of one of several.
    Split(Split),
    /// To another place.
    Redirect(Redirect),
    /// An answer that is always the same.
    Respond(Respond),
}

impl Matched {
    /// All routes, in the order of the configuration, over its upstreams, in theirs.
    pub fn all(
        config: &Config,
        chains: &Chains,
        upstreams: &[Rc<Upstream>],
        metrics: &WorkerMetrics,
    ) -> Vec<Rc<Self>> {
        let mut counters = counters(config, metrics);
        let routes = config.routes.iter().enumerate();
        routes
            .map(|(index, route)| {
                let action = match &route.action {
                    config::Action::Upstream(index) => {
                        Action::Upstream(Rc::clone(&upstreams[*index]))
                    }
                    config::Action::Split(split) => Action::Split(Split::new(split, upstreams)),
                    config::Action::Redirect(redirect) => Action::Redirect(redirect.clone()),
                    config::Action::Respond(respond) => Action::Respond(respond.clone()),
                };
                let changes = &route.changes;
                Rc::new(Self {
                    index,
                    name: route.name.as_str().into(),
                    chain: chains.of_route(index).cloned(),
                    action,
                    changes: (!changes.is_empty()).then(|| Box::new(changes.clone())),
                    rule: route.path.clone(),
                    metrics: counters[index].take(),
                    record: route.record,
                    cache: route.cache.clone(),
                })
            })
            .collect()
    }

    /// The upstream of a request; `None`: it is answered without one.
    pub fn upstream<B>(&self, request: &http::Request<B>, client: IpAddr) -> Option<&Rc<Upstream>> {
        match &self.action {
            Action::Upstream(upstream) => Some(upstream),
            Action::Split(split) => {
                Some(split.choose(request.headers(), request.uri().path(), client))
            }
            Action::Redirect(_) | Action::Respond(_) => None,
        }
    }

    /// The upstreams of which one is chosen for each request; none where there is one only.
    pub fn choice(&self) -> &[Rc<Upstream>] {
        match &self.action {
            Action::Split(split) => split.upstreams(),
            Action::Upstream(_) | Action::Redirect(_) | Action::Respond(_) => &[],
        }
    }

    /// The upstream of a connection that is not looked into; `None` for a route of requests.
    pub fn upstream_of_connection(&self, client: IpAddr) -> Option<&Rc<Upstream>> {
        match &self.action {
            Action::Upstream(upstream) => Some(upstream),
            Action::Split(split) => Some(split.choose_for(client)),
            Action::Redirect(_) | Action::Respond(_) => None,
        }
    }
}

/// Counters of all routes of requests. Those that have been given a name are first, should
/// there be more routes than series.
fn counters(config: &Config, metrics: &WorkerMetrics) -> Vec<Option<RouteMetrics>> {
    let mut counters: Vec<Option<RouteMetrics>> = vec![None; config.routes.len()];
    let tcp = |route: &Route| {
        let listener = route.listener.and_then(|index| config.listeners.get(index));
        listener.map_or(route.sni.is_some(), |l| matches!(l.protocol, Protocol::Tcp))
    };
    for named in [true, false] {
        for (counter, route) in counters.iter_mut().zip(&config.routes) {
            if route.is_named() == named && !tcp(route) {
                *counter = Some(metrics.route(&route.name));
            }
        }
    }
    counters
}
