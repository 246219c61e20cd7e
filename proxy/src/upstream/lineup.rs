//! Who may be asked now: the servers of an upstream in the order in which they are resorted to.
//!
//! Made anew at a worker when the version of the group has changed, or when what was known is
//! due to be otherwise by now (a server that gets back to its weight), never per request.

use std::rc::Rc;

use http::HeaderValue;

use super::{
    affinity::{self, Key},
    choose::{Candidate, Chooser, Now},
    directory::Roster,
    pool::ServerPool,
    state::Member,
};
use crate::config::Choice;

/// Steps in which a server gets back to its full weight.
const STEPS: u64 = 20;

/// The shortest of them, in milliseconds.
const SHORTEST_STEP: u64 = 50;

/// What a weight counts while servers may have parts of theirs.
const WHOLE: u64 = 100;

/// Servers between which a rule chooses.
#[derive(Debug)]
struct Tier {
    candidates: Vec<Candidate>,
    chooser: Chooser,
}

/// The way back to a server for who has its cookie.
#[derive(Debug)]
struct Way {
    token: u64,
    set_cookie: HeaderValue,
    open: bool,
}

/// The tiers, the first one first; the next is for those who have tried all of it.
#[derive(Debug, Default)]
pub(super) struct Lineup {
    tiers: Vec<Tier>,
    /// By place in the roster; empty without cookies.
    ways: Vec<Way>,
    /// When it is to be made anew although nothing changes, by `state::now`.
    due: Option<u64>,
}

/// The candidates of a tier just now, for one request.
struct Seen<'a, T> {
    candidates: &'a [Candidate],
    pools: &'a [Rc<ServerPool>],
    tried: &'a T,
    now: u64,
}

impl<T: Fn(&Rc<ServerPool>) -> bool> Now for Seen<'_, T> {
    fn is_open(&self, at: usize) -> bool {
        !(self.tried)(&self.pools[self.candidates[at].server])
    }

    fn in_flight(&self, at: usize) -> usize {
        self.pools[self.candidates[at].server].state().gauge.in_flight()
    }

    fn latency(&self, at: usize) -> f64 {
        self.pools[self.candidates[at].server].state().gauge.latency(self.now)
    }
}

impl Lineup {
    /// Who may be asked of these servers, at the worker of this number.
    pub(super) fn new(
        roster: &Roster,
        choice: &Choice,
        upstream: &str,
        worker: usize,
        now: u64,
    ) -> Self {
        let mut due: Option<u64> = None;
        let mut tier = |backup: bool| {
            let members = roster.iter().enumerate();
            let candidates: Vec<_> = members
                .filter(|(_, member)| member.spec.backup == backup && !member.is_draining())
                .filter_map(|(server, member)| {
                    let (weight, step) = weight(member, choice, now);
                    due = match (due, step) {
                        (Some(one), Some(other)) => Some(one.min(other)),
                        (one, other) => one.or(other),
                    };
                    (weight > 0).then(|| Candidate { server, weight, id: member.state.id() })
                })
                .collect();
            let (rule, bound) = (choice.balance, choice.max_load_percent);
            let chooser = Chooser::new(rule, bound, &candidates, worker);
            (!candidates.is_empty()).then_some(Tier { candidates, chooser })
        };
        let tiers = [tier(false), tier(true)].into_iter().flatten().collect();
        let way = |member: &Member| {
            let sticky = choice.sticky.as_ref()?;
            let token = affinity::token(sticky, upstream, member.state.address());
            let set_cookie = affinity::set_cookie(sticky, token);
            Some(Way { token, set_cookie, open: sticky.while_draining || !member.is_draining() })
        };
        Self { tiers, ways: roster.iter().filter_map(way).collect(), due }
    }

    /// Goes on where `before` was, where that is possible.
    pub(super) fn go_on(&mut self, before: Self) {
        for (tier, before) in self.tiers.iter_mut().zip(before.tiers) {
            let same = |(one, other): (&Candidate, &Candidate)| one.id == other.id;
            if tier.candidates.len() == before.candidates.len()
                && tier.candidates.iter().zip(&before.candidates).all(same)
            {
                tier.chooser.go_on(before.chooser);
            }
        }
    }

    /// When it is to be made anew although nothing changes, by `state::now`.
    pub(super) fn due(&self) -> Option<u64> {
        self.due
    }

    /// A server for a request, by its place in the roster, and the cookie that names it if the
    /// client has another one or none. `tried`: it has been to that server.
    pub(super) fn choose(
        &mut self,
        pools: &[Rc<ServerPool>],
        key: Key,
        tried: &impl Fn(&Rc<ServerPool>) -> bool,
        now: impl Fn() -> u64,
    ) -> Option<(usize, Option<&HeaderValue>)> {
        if let Some(named) = key.server
            && let Some(at) = self.ways.iter().position(|way| way.token == named && way.open)
            && !tried(&pools[at])
        {
            return Some((at, None));
        }
        let server = self.tiers.iter_mut().find_map(|Tier { candidates, chooser }| {
            let now = if chooser.goes_by_time() { now() } else { 0 };
            let seen = Seen { candidates: candidates.as_slice(), pools, tried, now };
            let chosen = chooser.choose(candidates, key.hash, &seen)?;
            Some(candidates[chosen].server)
        })?;
        Some((server, self.ways.get(server).map(|way| &way.set_cookie)))
    }
}

/// The weight of a server now, and when it will be another, by `state::now`.
fn weight(member: &Member, choice: &Choice, now: u64) -> (u32, Option<u64>) {
    let weight = member.weight();
    let Some(slow_start) = choice.slow_start else { return (weight, None) };
    let whole = weight * WHOLE as u32;
    let slow_start = slow_start.as_millis() as u64;
    let Some(back) = member.state.back_for(now).filter(|back| *back < slow_start) else {
        return (whole, None);
    };
    // From a tenth on: a server without any request would never get warm.
    let part = (back * WHOLE / slow_start).max(WHOLE / 10);
    let step = (slow_start / STEPS).max(SHORTEST_STEP);
    ((u64::from(weight) * part) as u32, Some(now + step))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{config, upstream::state::ServerState};

    #[test]
    fn a_server_that_comes_back_gets_to_its_weight_step_by_step() {
        let server = config::value::server("a:1").unwrap();
        let spec = config::UpstreamServer { weight: 3, ..config::UpstreamServer::new(server) };
        let member = Member { state: ServerState::new(spec.address.clone()), spec };
        let slowly = Choice { slow_start: Some(Duration::from_secs(10)), ..Choice::default() };
        assert_eq!(weight(&member, &slowly, 1), (300, None), "here from the beginning");
        member.state.returns(1000);
        for (now, wanted) in [
            (1000, (30, Some(1500))),
            (1500, (30, Some(2000))),
            (6000, (150, Some(6500))),
            (10_999, (297, Some(11_499))),
            (11_000, (300, None)),
        ] {
            assert_eq!(weight(&member, &slowly, now), wanted, "at {now}");
        }
        assert_eq!(weight(&member, &Choice::default(), 1000), (3, None), "without slow start");
    }
}
