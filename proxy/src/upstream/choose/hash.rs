//! The same server for the same key: weighted rendezvous hashing, with bounded load.
//!
//! Each server draws a number from the key and its own id, and the largest wins, stretched so
//! that chances follow the weights (Schindelhauer and Schomaker, 2005). So a server that goes
//! takes only its own keys along, which spread over all others, and one that comes takes from
//! each its share: with n equal servers 1/n of the keys move, and no other. Costs one hash per
//! server and request, and no memory; made for tens of servers rather than thousands.
//!
//! With a bound c no server has more than c times its share of what is under way (Mirrokni,
//! Thorup and Zadimoghaddam, 2018): a key whose server is full goes to its second one.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{Candidate, Now};

/// The hash of a key or of a server's address. The same in every process of every build, so
/// that several proxies send a key to the same server. Who can choose keys can choose servers.
pub fn of(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The open candidate for `key`; `bound` in percent of a fair share.
pub fn choose(
    candidates: &[Candidate],
    key: u64,
    bound: Option<u32>,
    now: &impl Now,
) -> Option<usize> {
    let Some(bound) = bound else {
        return best(candidates, key, |at| now.is_open(at));
    };
    let open = || (0..candidates.len()).filter(|at| now.is_open(*at));
    let weights: u64 = open().map(|at| u64::from(candidates[at].weight)).sum();
    let under_way: u64 = open().map(|at| now.in_flight(at) as u64).sum();
    // With one request more than there are now, so that there is always room somewhere.
    let most = |at: usize| {
        let share = (under_way + 1) * u64::from(candidates[at].weight) * u64::from(bound);
        share.div_ceil(weights * 100)
    };
    let has_room = |at: usize| now.is_open(at) && (now.in_flight(at) as u64) < most(at);
    best(candidates, key, has_room).or_else(|| best(candidates, key, |at| now.is_open(at)))
}

fn best(candidates: &[Candidate], key: u64, open: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (at, candidate) in candidates.iter().enumerate().filter(|(at, _)| open(*at)) {
        let score = score(key, candidate);
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((at, score));
        }
    }
    best.map(|(at, _)| at)
}

fn score(key: u64, candidate: &Candidate) -> f64 {
    // Both are hashes already: what is left is to mix them well (the finalizer of MurmurHash3).
    let mut z = key ^ candidate.id.rotate_left(32);
    z = (z ^ (z >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    z = (z ^ (z >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    z ^= z >> 33;
    // Evenly in (0, 1), in the 53 bits that there are, and never an end of it.
    let draw = ((z >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    f64::from(candidate.weight) / -draw.ln()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{CRITICAL, Played, candidates, chi_square},
        *,
    };

    const KEYS: usize = 100_000;

    fn keys() -> impl Iterator<Item = u64> {
        (0..KEYS).map(|n| of(format!("user-{n}").as_bytes()))
    }

    fn places(weights: &[u32], closed: &[usize]) -> Vec<usize> {
        let now = Played { closed: closed.to_vec(), ..Played::idle(weights.len()) };
        let candidates = candidates(weights);
        keys().map(|key| choose(&candidates, key, None, &now).unwrap()).collect()
    }

    fn counts(places: &[usize], servers: usize) -> Vec<usize> {
        (0..servers).map(|server| places.iter().filter(|at| **at == server).count()).collect()
    }

    #[test]
    fn keys_are_shared_in_proportion_to_weights() {
        for weights in [&[1; 10][..], &[1, 2, 3, 10]] {
            let counts = counts(&places(weights, &[]), weights.len());
            let statistic = chi_square(&counts, weights);
            assert!(statistic < CRITICAL[weights.len() - 2], "{counts:?}: {statistic}");
        }
    }

    #[test]
    fn a_server_that_goes_takes_only_its_own_keys_along() {
        let (before, after) = (places(&[1; 10], &[]), places(&[1; 10], &[3]));
        let moved = before.iter().zip(&after).filter(|(b, a)| a != b);
        assert!(moved.clone().all(|(before, _)| *before == 3), "a key moved for no reason");
        // A tenth, within four standard deviations of the binomial distribution (95).
        assert!((moved.clone().count() as i64 - 10_000).abs() < 380, "{}", moved.count());
        // And it spreads over all that are left.
        let to: Vec<usize> = moved.map(|(_, after)| *after - usize::from(*after > 3)).collect();
        let statistic = chi_square(&counts(&to, 9), &[1; 9]);
        assert!(statistic < CRITICAL[7], "{statistic}");
    }

    #[test]
    fn a_heavier_weight_takes_from_the_others_and_moves_nothing_between_them() {
        let (before, after) = (places(&[1, 1, 1], &[]), places(&[1, 1, 2], &[]));
        assert!(before.iter().zip(&after).all(|(b, a)| a == b || *a == 2));
    }

    #[test]
    fn nobody_has_more_than_the_bound() {
        // One key that everybody asks for, over servers of other weights than one another.
        let (candidates, now) = (candidates(&[1, 1, 2]), Played::idle(3));
        let key = of(b"celebrity");
        for n in 1..=1000usize {
            now.begin(choose(&candidates, key, Some(125), &now).unwrap());
            for (at, load) in now.loads().into_iter().enumerate() {
                let share = n as f64 * [0.25, 0.25, 0.5][at];
                assert!(load as f64 <= (1.25 * share).ceil(), "{load} of {n} at {at}");
            }
        }
    }

    #[test]
    fn a_key_stays_where_it_is_while_there_is_room() {
        let (candidates, now) = (candidates(&[1; 5]), Played::idle(5));
        for (key, wanted) in keys().zip(places(&[1; 5], &[])).take(100) {
            assert_eq!(choose(&candidates, key, Some(125), &now), Some(wanted));
        }
    }
}
