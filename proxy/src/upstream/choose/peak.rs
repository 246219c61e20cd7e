//! Of two that chance picks, the one that is expected to answer first: `peak_ewma`.
//!
//! Power of two choices (Mitzenmacher, 1996): with n servers and as many requests under way,
//! the fullest has O(log log n) more than its share, where chance alone leaves O(log n / log
//! log n), and looking at two costs the same for any n. What is compared is latency times load:
//! latency is an average that rises at once with a slow answer and falls slowly, so that a
//! server in trouble is left alone before its queue shows it (Finagle's peak EWMA).

use super::{Candidate, Now, random::Random};

/// What a server of unknown latency costs once somebody is trying it, in milliseconds: nobody
/// else is sent there until the first answer says more.
const UNKNOWN: f64 = 1000.0;

/// The better of two open candidates.
pub fn choose(candidates: &[Candidate], random: &mut Random, now: &impl Now) -> Option<usize> {
    let first = random.choose(candidates, |at| now.is_open(at))?;
    let other = random.choose(candidates, |at| at != first && now.is_open(at));
    let Some(second) = other else { return Some(first) };
    let mean = f64::from(candidates[first].weight) + f64::from(candidates[second].weight);
    let cost = |at: usize| {
        let in_flight = now.in_flight(at);
        let latency = match now.latency(at) {
            0.0 if in_flight > 0 => UNKNOWN,
            latency => latency,
        };
        // Chance picks by weight already; here it says how much the same load weighs.
        let share = f64::from(candidates[at].weight) * 2.0 / mean;
        latency * (1.0 + in_flight as f64 / share)
    };
    Some(if cost(second) < cost(first) { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{CRITICAL, Played, candidates, chi_square},
        *,
    };

    #[test]
    fn without_load_shares_follow_the_weights() {
        for weights in [&[1, 1, 1, 1, 1][..], &[1, 2, 3, 10]] {
            let (candidates, now) = (candidates(weights), Played::idle(weights.len()));
            let (mut random, mut counts) = (Random::from_seed(7), vec![0; weights.len()]);
            for _ in 0..100_000 {
                counts[choose(&candidates, &mut random, &now).unwrap()] += 1;
            }
            let statistic = chi_square(&counts, weights);
            assert!(statistic < CRITICAL[weights.len() - 2], "{counts:?}: {statistic}");
        }
    }

    /// log₂ log₂ 100 is 2.7; chance alone would put 8 and more over the mean somewhere.
    #[test]
    fn the_fullest_has_few_more_than_its_share() {
        let (candidates, now) = (candidates(&[1; 100]), Played::idle(100));
        let mut random = Random::from_seed(7);
        for _ in 0..10_000 {
            now.begin(choose(&candidates, &mut random, &now).unwrap());
        }
        let most = now.loads().into_iter().max().unwrap();
        assert!(most <= 100 + 4, "{most} of a share of 100");
    }

    #[test]
    fn a_slow_server_is_chosen_when_it_is_the_better_one_only() {
        let candidates = candidates(&[1, 1]);
        let now = Played { latency: vec![100.0, 1.0], ..Played::idle(2) };
        let mut random = Random::from_seed(7);
        for _ in 0..99 {
            let at = choose(&candidates, &mut random, &now).unwrap();
            assert_eq!(at, 1);
            now.begin(at);
        }
        // A hundred waiting at the fast one are as bad.
        now.begin(1);
        assert_eq!(choose(&candidates, &mut random, &now), Some(0));
    }

    #[test]
    fn an_unknown_server_is_tried_by_one_at_a_time() {
        let candidates = candidates(&[1, 1]);
        let now = Played { latency: vec![0.0, 5.0], ..Played::idle(2) };
        let mut random = Random::from_seed(7);
        assert_eq!(choose(&candidates, &mut random, &now), Some(0));
        now.begin(0);
        assert_eq!(choose(&candidates, &mut random, &now), Some(1));
    }
}
