//! The steps of each listener and route, compiled once for a configuration.

use std::sync::Arc;

use crate::config::{Config, Middleware};

use super::step::Step;

/// Steps in their order; never empty.
#[derive(Debug)]
pub struct Chain {
    pub(super) steps: Vec<Arc<Step>>,
}

/// All chains of a configuration.
#[derive(Debug, Default)]
pub struct Chains {
    /// What each step was made of, for the next configuration.
    steps: Vec<(Middleware, Arc<Step>)>,
    of_listeners: Vec<Option<Arc<Chain>>>,
    of_routes: Vec<Option<Arc<Chain>>>,
}

impl Chains {
    /// `before`: those in force so far. A step whose definition is the same goes on with what
    /// it has counted.
    pub fn compile(config: &Config, before: Option<&Self>) -> Self {
        let steps = config.middleware.iter().map(|definition| {
            let kept = before.and_then(|before| {
                let same = before.steps.iter().find(|(other, _)| other == definition);
                same.map(|(_, step)| Arc::clone(step))
            });
            (definition.clone(), kept.unwrap_or_else(|| Arc::new(Step::new(&definition.what))))
        });
        let steps: Vec<_> = steps.collect();
        let chain = |used: &[usize]| {
            let steps: Vec<_> = used.iter().map(|index| Arc::clone(&steps[*index].1)).collect();
            (!steps.is_empty()).then(|| Arc::new(Chain { steps }))
        };
        Self {
            of_listeners: config.listeners.iter().map(|it| chain(&it.middleware)).collect(),
            of_routes: config.routes.iter().map(|it| chain(&it.middleware)).collect(),
            steps,
        }
    }

    /// What is done with all requests of a listener.
    pub fn of_listener(&self, listener: usize) -> Option<&Arc<Chain>> {
        self.of_listeners.get(listener)?.as_ref()
    }

    /// What is done with the requests of a route.
    pub fn of_route(&self, route: usize) -> Option<&Arc<Chain>> {
        self.of_routes.get(route)?.as_ref()
    }
}
