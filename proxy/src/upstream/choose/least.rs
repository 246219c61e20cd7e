//! Who has least to do in proportion to its weight, over all workers: `least_connections`.
//!
//! Among equals chance decides, so that workers which look at the same moment do not all run
//! to the same server. One after the other, no server is ever more than one request ahead of
//! another of the same weight.

use super::{Candidate, Now, random::Random};

/// The open candidate with the least load.
pub fn choose(candidates: &[Candidate], random: &mut Random, now: &impl Now) -> Option<usize> {
    let n = candidates.len();
    if n == 0 {
        return None;
    }
    let start = random.below(n as u64) as usize;
    // A request more, by its weight: what is compared is how full each would be.
    let load = |at: usize| (now.in_flight(at) as u64 + 1, u64::from(candidates[at].weight));
    let mut best: Option<usize> = None;
    for at in (start..n).chain(0..start).filter(|at| now.is_open(*at)) {
        let less = best.is_none_or(|best| {
            let ((load, weight), (least, its)) = (load(at), load(best));
            load * its < least * weight
        });
        if less {
            best = Some(at);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{Played, candidates},
        *,
    };

    #[test]
    fn nobody_is_a_request_ahead() {
        let (candidates, now) = (candidates(&[1; 7]), Played::idle(7));
        let mut random = Random::from_seed(1);
        for step in 0..10_000 {
            now.begin(choose(&candidates, &mut random, &now).unwrap());
            let loads = now.loads();
            assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
            // Now and then a server loses all at once, and is filled up first.
            if step % 1000 == 999 {
                now.in_flight.iter().for_each(|load| load.set(0));
            }
        }
    }

    #[test]
    fn load_is_in_proportion_to_weights() {
        let (candidates, now) = (candidates(&[1, 2, 5]), Played::idle(3));
        let mut random = Random::from_seed(1);
        for _ in 0..800 {
            now.begin(choose(&candidates, &mut random, &now).unwrap());
        }
        assert_eq!(now.loads(), [100, 200, 500]);
    }

    #[test]
    fn a_slow_server_gets_less() {
        // Server 0 ends a request in 8 steps, the other in 2.
        let (candidates, now) = (candidates(&[1, 1]), Played::idle(2));
        let (mut random, mut ends, mut had) = (Random::from_seed(1), Vec::new(), [0; 2]);
        for step in 0..8000 {
            ends.retain(|&(at, end)| {
                (end != step)
                    .then_some(())
                    .or_else(|| {
                        now.end(at);
                        None
                    })
                    .is_some()
            });
            let at = choose(&candidates, &mut random, &now).unwrap();
            now.begin(at);
            had[at] += 1;
            ends.push((at, step + [8, 2][at]));
        }
        assert!(had[1] > 2 * had[0], "{had:?}");
    }
}
