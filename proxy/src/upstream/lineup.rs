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

/// What a lineup is made by.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) choice: &'a Choice,
    /// With fewer of the servers well than so many percent all are asked.
    pub(super) panic_percent: u32,
    /// Name of the upstream.
    pub(super) upstream: &'a str,
    /// Number of the worker.
    pub(super) worker: usize,
}

/// The servers of the tiers, each by its place in the roster.
///
/// First those that are well, and behind them the backups that are. With none of the first
/// well the backups stand alone; with too few, all of the first are asked whatever is known
/// of them, because those few would be overwhelmed (panic); and with nobody well at all
/// everybody is, since a server that seems to be down may answer all the same.
///
/// Implements: REQ-EDGE-003
fn arrange(roster: &Roster, panic_percent: u32, now: u64) -> [Vec<usize>; 2] {
    let takes = |backup: bool| {
        let of = move |(_, m): &(usize, &Member)| {
            m.spec.backup == backup && !m.is_draining() && m.weight() > 0
        };
        roster.iter().enumerate().filter(of)
    };
    let all = |backup| takes(backup).map(|(at, _)| at).collect::<Vec<_>>();
    let well = |backup| {
        let well = takes(backup).filter(|(_, m)| m.state.condition.is_well(now));
        well.map(|(at, _)| at).collect::<Vec<_>>()
    };
    let (first, backups) = (well(false), well(true));
    let few = first.len() * 100 < takes(false).count() * panic_percent as usize;
    match (first.is_empty(), backups.is_empty()) {
        (true, true) => [all(false), all(true)],
        (true, false) => [backups, Vec::new()],
        (false, _) if few => [all(false), backups],
        (false, _) => [first, backups],
    }
}

/// The earlier of two times, where they are.
fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

impl Lineup {
    /// Who may be asked of these servers.
    pub(super) fn new(roster: &Roster, rules: &Rules<'_>, now: u64) -> Self {
        let choice = rules.choice;
        let ejected = roster.iter().filter_map(|m| m.state.condition.ejected_for(now));
        let mut due = ejected.min().map(|left| now + left);
        let mut tier = |servers: Vec<usize>| {
            let candidate = |server: usize| {
                let (weight, step) = weight(&roster[server], choice, now);
                due = earlier(due, step);
                Candidate { server, weight, id: roster[server].state.id() }
            };
            let candidates: Vec<_> = servers.into_iter().map(candidate).collect();
            let (rule, bound) = (choice.balance, choice.max_load_percent);
            let chooser = Chooser::new(rule, bound, &candidates, rules.worker);
            (!candidates.is_empty()).then_some(Tier { candidates, chooser })
        };
        let tiers = arrange(roster, rules.panic_percent, now).map(&mut tier);
        let way = |member: &Member| {
            let sticky = choice.sticky.as_ref()?;
            let token = affinity::token(sticky, rules.upstream, member.state.address());
            let open = member.state.condition.is_well(now)
                && (sticky.while_draining || !member.is_draining());
            Some(Way { token, set_cookie: affinity::set_cookie(sticky, token), open })
        };
        Self {
            tiers: tiers.into_iter().flatten().collect(),
            ways: roster.iter().filter_map(way).collect(),
            due,
        }
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

    /// Who is asked first, each by its place in the roster.
    pub(super) fn first(&self) -> impl Iterator<Item = usize> {
        self.tiers.first().into_iter().flat_map(|tier| tier.candidates.iter().map(|c| c.server))
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
    ((u64::from(weight) * part).max(1) as u32, Some(now + step))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config,
        upstream::{health::Checked, state::ServerState},
    };

    /// Servers as they are said: `b` a backup, `-` not well, `d` draining.
    fn roster(text: &str) -> Roster {
        let member = |(n, said): (usize, &str)| {
            let address = config::value::server(&format!("a:{}", n + 1)).unwrap();
            let spec = config::UpstreamServer {
                backup: said.contains('b'),
                drain: said.contains('d'),
                ..config::UpstreamServer::new(address)
            };
            let state = ServerState::new(spec.address.clone());
            if said.contains('-') {
                state.condition.set_checked(Checked::Down);
            }
            Member { spec, state }
        };
        text.split_whitespace().enumerate().map(member).collect()
    }

    #[mantra_macros::req_test("REQ-EDGE-003")]
    #[test]
    fn who_is_asked_depends_on_who_is_well() {
        for (servers, panic_percent, wanted) in [
            ("+ + b", 0, [&[0, 1][..], &[2]]),
            ("+ - b", 0, [&[0], &[2]]),
            ("d - b", 0, [&[2], &[]]),
            ("- - b b-", 0, [&[2], &[]]),
            ("- - b-", 0, [&[0, 1], &[2]]),
            ("- -", 0, [&[0, 1], &[]]),
            ("d d", 0, [&[], &[]]),
            // A third is well: few, if half is wanted.
            ("+ - -", 34, [&[0, 1, 2], &[]]),
            ("+ - -", 33, [&[0], &[]]),
            ("+ - d", 50, [&[0], &[]]),
            ("+ - - b", 50, [&[0, 1, 2], &[3]]),
            ("- - - b", 50, [&[3], &[]]),
        ] {
            assert_eq!(arrange(&roster(servers), panic_percent, 1), wanted, "{servers}");
        }
    }

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
