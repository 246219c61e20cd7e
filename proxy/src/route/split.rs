//! One upstream of several, by weight: at random, or always the same for whoever is known by
//! a field, a cookie or an address.
//!
//! The rules are those by which a server is chosen (`upstream/choose`): chance in proportion
//! to weights, and weighted rendezvous hashing. So when weights change, as few of those that
//! are known as possible go another way: a canary that gets more keeps all that it had.

use std::{cell::RefCell, net::IpAddr, rc::Rc};

use http::HeaderMap;

use crate::{
    config::{self, Balance, HashBy},
    upstream::{
        affinity,
        balance::Upstream,
        choose::{Candidate, Chooser, Now, hash},
    },
};

/// Several upstreams and how one of them is chosen.
#[derive(Debug)]
pub struct Split {
    upstreams: Vec<Rc<Upstream>>,
    candidates: Vec<Candidate>,
    chooser: RefCell<Chooser>,
    by: Option<HashBy>,
}

/// An upstream may always be chosen; whether it has a server that can be reached is its matter.
struct Always;

impl Now for Always {
    fn is_open(&self, _: usize) -> bool {
        true
    }
    fn in_flight(&self, _: usize) -> usize {
        0
    }
    fn latency(&self, _: usize) -> f64 {
        0.0
    }
}

/// By their names, which are the same in every worker, process and configuration.
fn candidates<'a>(parts: impl Iterator<Item = (&'a str, u32)>) -> Vec<Candidate> {
    let candidate = |(server, (name, weight)): (usize, (&str, u32))| Candidate {
        server,
        weight,
        id: hash::of(name.as_bytes()),
    };
    parts.enumerate().map(candidate).collect()
}

impl Split {
    /// Over the upstreams of a configuration, in its order.
    pub(super) fn new(split: &config::Split, upstreams: &[Rc<Upstream>]) -> Self {
        let parts = || split.upstreams.iter().filter(|(_, weight)| *weight > 0);
        let upstreams: Vec<_> = parts().map(|(index, _)| Rc::clone(&upstreams[*index])).collect();
        let named = upstreams.iter().map(|upstream| &*upstream.name);
        let candidates = candidates(named.zip(parts().map(|(_, weight)| *weight)));
        let chooser = RefCell::new(Chooser::new(Balance::Hash, None, &candidates, 0));
        Self { upstreams, candidates, chooser, by: split.by.clone() }
    }

    /// All that may be chosen.
    pub fn upstreams(&self) -> &[Rc<Upstream>] {
        &self.upstreams
    }

    /// For a request.
    pub(super) fn choose(&self, headers: &HeaderMap, path: &str, client: IpAddr) -> &Rc<Upstream> {
        let by = self.by.as_ref();
        self.at(by.and_then(|by| affinity::hash_by(by, headers, path, client)))
    }

    /// For a connection that is not looked into.
    pub(super) fn choose_for(&self, client: IpAddr) -> &Rc<Upstream> {
        self.at(self.by.as_ref().map(|_| affinity::of_client(client)))
    }

    fn at(&self, key: Option<u64>) -> &Rc<Upstream> {
        let chosen = self.chooser.borrow_mut().choose(&self.candidates, key, &Always);
        &self.upstreams[chosen.unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;

    const USERS: usize = 20_000;

    /// How each user goes, by their cookie.
    fn ways(parts: &[(&str, u32)]) -> Vec<usize> {
        let candidates = candidates(parts.iter().copied());
        let mut chooser = Chooser::new(Balance::Hash, None, &candidates, 0);
        let users = (0..USERS).map(|user| hash::of(format!("user-{user}").as_bytes()));
        users.map(|key| chooser.choose(&candidates, Some(key), &Always).unwrap()).collect()
    }

    #[req_test("REQ-CTRL-006")]
    #[test]
    fn a_canary_that_grows_keeps_all_that_it_had() {
        let steps = [5, 10, 25, 50].map(|share| {
            let ways = ways(&[("stable", 100 - share), ("canary", share)]);
            let canary = ways.iter().filter(|way| **way == 1).count() as f64;
            let mean = USERS as f64 * f64::from(share) / 100.0;
            let deviation = (mean * (1.0 - f64::from(share) / 100.0)).sqrt();
            assert!((canary - mean).abs() < 4.0 * deviation, "{canary} of {share} %");
            ways
        });
        for (before, after) in steps.iter().zip(&steps[1..]) {
            let left = before.iter().zip(after).filter(|(before, after)| **before > **after);
            assert_eq!(left.count(), 0, "users that left the canary");
        }
    }

    /// Pearson's statistic, which exceeds its bound once in ten million runs.
    #[req_test("REQ-CTRL-006")]
    #[test]
    fn who_is_not_known_goes_by_chance_in_proportion() {
        let weights = [70_u32, 25, 5];
        let parts = weights.map(|weight| ("upstream", weight));
        let candidates = candidates(parts.into_iter());
        let mut chooser = Chooser::new(Balance::Hash, None, &candidates, 0);
        let mut counts = [0_u32; 3];
        for _ in 0..USERS {
            counts[chooser.choose(&candidates, None, &Always).unwrap()] += 1;
        }
        let statistic: f64 = counts
            .iter()
            .zip(weights)
            .map(|(count, weight)| {
                let wanted = USERS as f64 * f64::from(weight) / 100.0;
                (f64::from(*count) - wanted).powi(2) / wanted
            })
            .sum();
        // Two degrees of freedom: -2 ln 1e-7.
        assert!(statistic < 32.24, "{counts:?}: {statistic}");
    }
}
