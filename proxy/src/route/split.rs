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

impl Split {
    /// Over the upstreams of a configuration, in its order.
    pub(super) fn new(split: &config::Split, upstreams: &[Rc<Upstream>]) -> Self {
        let parts = || split.upstreams.iter().filter(|(_, weight)| *weight > 0);
        let upstreams: Vec<_> = parts().map(|(index, _)| Rc::clone(&upstreams[*index])).collect();
        let candidate = |(server, (_, weight)): (usize, &(usize, u32))| {
            let id = hash::of(upstreams[server].name.as_bytes());
            Candidate { server, weight: *weight, id }
        };
        let candidates: Vec<_> = parts().enumerate().map(candidate).collect();
        let chooser = RefCell::new(Chooser::new(Balance::Hash, None, &candidates, 0));
        Self { upstreams, candidates, chooser, by: split.by.clone() }
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
