//! Who may be asked now: the servers of an upstream in the order in which they are resorted to.
//!
//! Made anew at a worker when the version of the group has changed, never per request.

use super::{
    choose::{Candidate, Chooser},
    directory::Roster,
};
use crate::config::Balance;

/// Servers between which a rule chooses.
#[derive(Debug)]
struct Tier {
    candidates: Vec<Candidate>,
    chooser: Chooser,
}

/// The tiers, the first one first; the next is for those who have tried all of it.
#[derive(Debug, Default)]
pub(super) struct Lineup(Vec<Tier>);

impl Lineup {
    /// Who may be asked of these servers, at the worker of this number.
    pub(super) fn new(roster: &Roster, balance: Balance, worker: usize) -> Self {
        let tier = |backup: bool| {
            let members = roster.iter().enumerate();
            let candidates: Vec<_> = members
                .filter(|(_, member)| member.spec.backup == backup && !member.is_draining())
                .map(|(server, member)| Candidate { server, weight: member.weight() })
                .filter(|candidate| candidate.weight > 0)
                .collect();
            let chooser = Chooser::new(balance, &candidates, worker);
            (!candidates.is_empty()).then_some(Tier { candidates, chooser })
        };
        Self([tier(false), tier(true)].into_iter().flatten().collect())
    }

    /// A server that is `open`, by its place in the roster.
    pub(super) fn choose(&mut self, open: impl Fn(usize) -> bool) -> Option<usize> {
        self.0.iter_mut().find_map(|Tier { candidates, chooser }| {
            let chosen = chooser.choose(candidates, |at| open(candidates[at].server))?;
            Some(candidates[chosen].server)
        })
    }
}
