//! The policy on traces, and the books.

use std::collections::{HashMap, VecDeque};

use mantra_macros::req_test;

use super::*;
use crate::cache::store::{
    block::Block,
    key::{Key, ObjectId},
};

impl Value for Block {
    fn bytes(&self) -> usize {
        self.charged()
    }

    fn is_shared(&self) -> bool {
        self.is_shared()
    }

    fn is_over(&self, _: u64) -> bool {
        self.parts().next().is_some_and(|part| part[0] == b'o')
    }
}

fn slot(number: u32) -> Slot {
    Slot::head(Key(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)))
}

fn memory(budget: usize) -> (Arc<Account>, Memory<Block>) {
    let account = Account::new(budget);
    (Arc::clone(&account), Memory::new(account, false))
}

/// A block of these bytes, if there is room for it.
fn block(memory: &Memory<Block>, bytes: &[u8]) -> Option<Block> {
    let size = (Block::HEADER, Block::size(bytes.len()));
    let extents = memory.allocate(size, true, false)?;
    Some(Block::copy(extents, &[bytes::Bytes::copy_from_slice(bytes)], bytes.len()))
}

/// Puts a block in as the store does.
fn put(memory: &Memory<Block>, slot: Slot, bytes: &[u8]) -> bool {
    block(memory, bytes).is_some_and(|block| memory.insert(slot, block, |_| true))
}

/// What is charged is what is listed and the tables, exactly.
fn audit(account: &Account, memory: &Memory<Block>) {
    let tables: usize = memory.parts.iter().map(|p| memory.lock(p).shard.allocated()).sum();
    assert_eq!(account.live(), memory.contents().bytes + tables + memory.arena.table());
}

#[req_test("REQ-CACHE-002")]
#[test]
fn the_books_are_exact_and_the_budget_holds_for_all_sizes() {
    for (budget, sizes) in
        [(64 << 10, 0..300), (1 << 20, 0..40_000), (16 << 20, 0..(8 << 20)), (512 << 10, 1..2)]
    {
        let (account, memory) = memory(budget);
        let zeros = vec![0; sizes.end];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let slot = slot(random.u32(..200_000));
            match random.u8(..10) {
                0 => _ = memory.remove(&slot),
                1..5 => _ = memory.get(&slot),
                _ if sizes.end > 1 << 20 && random.u8(..10) > 0 => {}
                _ => {
                    // What goes may make the table of what is free grow: whatever comes in next
                    // makes room for that as well.
                    let comes_in = put(&memory, slot, &zeros[..random.usize(sizes.clone())]);
                    let live = account.live();
                    assert!(!comes_in || live <= budget, "{live} of {budget}");
                }
            }
        }
        audit(&account, &memory);
        assert!(memory.contents().bytes > budget / 8, "it is made use of: {:?}", memory.contents());
        memory.remove_all(|_| true);
        audit(&account, &memory);
        assert_eq!(memory.contents(), Contents::default());
        let remain = account.live() - memory.arena.table();
        assert!(remain < budget / 10, "{remain} remain");
    }
}

#[req_test("REQ-CACHE-002")]
#[test]
fn what_is_larger_than_the_budget_evicts_nothing() {
    let (account, memory) = memory(100_000);
    assert!(put(&memory, slot(1), &[0; 1000]));
    assert!(!put(&memory, slot(2), &[0; 100_001]));
    assert!(memory.has(&slot(1)));
    audit(&account, &memory);
}

/// To evict what a client is being sent would free nothing.
#[req_test("REQ-CACHE-002")]
#[test]
fn what_is_in_use_stays_and_nothing_else_comes_in_its_place() {
    let (account, memory) = memory(100_000);
    let mut held = Vec::new();
    for number in 0..9 {
        assert!(put(&memory, slot(number), &[0; 10_000]));
        held.push(memory.get(&slot(number)).unwrap());
    }
    assert!(!put(&memory, slot(100), &[0; 30_000]));
    assert!((0..9).all(|number| memory.has(&slot(number))));
    audit(&account, &memory);
    drop(held);
    assert!((0..4).any(|_| put(&memory, slot(100), &[0; 30_000])));
    assert!(account.live() <= 100_000);
    audit(&account, &memory);
}

/// What was taken out while somebody has it is still charged.
#[req_test("REQ-CACHE-002")]
#[test]
fn what_was_removed_counts_for_as_long_as_somebody_has_it() {
    let (account, memory) = memory(100_000);
    assert!(put(&memory, slot(1), &[0; 60_000]));
    let held = memory.remove(&slot(1)).unwrap();
    assert!(!put(&memory, slot(2), &[0; 60_000]));
    drop(held);
    assert!(put(&memory, slot(2), &[0; 60_000]));
    audit(&account, &memory);
}

#[req_test("REQ-CACHE-002")]
#[test]
fn another_value_takes_the_place_of_the_first() {
    let (account, memory) = memory(1 << 20);
    assert!(put(&memory, slot(1), b"one"));
    assert!(put(&memory, slot(1), &[2; 5000]));
    assert_eq!(memory.get(&slot(1)).unwrap().to_vec(), [2; 5000]);
    assert_eq!(memory.contents().entries, 1);
    audit(&account, &memory);
    assert!(!memory.insert(slot(3), block(&memory, b"x").unwrap(), |_| false), "not allowed");
    assert!(!memory.has(&slot(3)));
    audit(&account, &memory);
}

/// Names that agree in the 64 bits that tables go by are still told apart.
#[req_test("REQ-CACHE-002")]
#[test]
fn names_with_the_same_fingerprint_are_told_apart() {
    let (account, memory) = memory(1 << 20);
    // The halves in each other's place, turned: the fingerprint is the same.
    let (a, b) = (0x1111_2222_3333_4444_u64, 0x5555_6666_7777_8888_u64);
    let one = Slot::head(Key(u128::from(a) << 64 | u128::from(b)));
    let (a, b) = (b.rotate_left(32), a.rotate_right(32));
    let other = Slot::head(Key(u128::from(a) << 64 | u128::from(b)));
    assert_ne!(one, other);
    assert_eq!(one.fingerprint(), other.fingerprint());
    assert!(put(&memory, one, b"one"));
    assert!(memory.get(&other).is_none());
    assert!(put(&memory, other, b"other"));
    assert_eq!(memory.get(&one).unwrap().to_vec(), b"one");
    memory.remove(&one);
    assert_eq!(memory.get(&other).unwrap().to_vec(), b"other");
    audit(&account, &memory);
}

#[req_test("REQ-CACHE-002")]
#[test]
fn what_is_over_goes_before_what_is_wanted() {
    let (_account, memory) = memory(100_000);
    for number in 0..8 {
        let fill = if number == 5 { b'o' } else { b'x' };
        assert!(put(&memory, slot(number), &[fill; 10_000]));
        (0..3).for_each(|_| drop(memory.get(&slot(number))));
    }
    for number in 8..12 {
        put(&memory, slot(number), &[b'x'; 10_000]);
    }
    assert!(!memory.has(&slot(5)));
    assert!((0..5).all(|number| memory.has(&slot(number))), "these are wanted");
}

/// Several threads at once: nothing is lost from the books.
#[req_test("REQ-CACHE-002")]
#[test]
fn the_books_are_exact_when_many_threads_write_them() {
    let (account, memory) = memory(4 << 20);
    let memory = &memory;
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let zeros = vec![seed as u8; 30_000];
                for _ in 0..5000 {
                    let slot = slot(random.u32(..2000));
                    match random.u8(..8) {
                        0 => _ = memory.remove(&slot),
                        1..4 => _ = memory.get(&slot),
                        _ => _ = put(memory, slot, &zeros[..random.usize(..30_000)]),
                    }
                }
                memory.remove_all(|block| block.len() % 7 == 0);
            });
        }
    });
    audit(&account, memory);
    assert!(account.live() <= 4 << 20);
}

/// Least recently used, to compare with.
#[derive(Default)]
struct Lru {
    order: VecDeque<(u32, u64)>,
    last: HashMap<u32, u64>,
    time: u64,
}

impl Lru {
    /// Whether it was a hit.
    fn ask(&mut self, what: u32, room: usize) -> bool {
        self.time += 1;
        let hit = self.last.insert(what, self.time).is_some();
        self.order.push_back((what, self.time));
        while self.last.len() > room {
            let Some((oldest, time)) = self.order.pop_front() else { break };
            if self.last.get(&oldest) == Some(&time) {
                self.last.remove(&oldest);
            }
        }
        hit
    }
}

/// Numbers of which the first are asked for most: of `of`, with exponent 0.9.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(of: usize) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=of)
                .map(|rank| {
                    sum += (rank as f64).powf(-0.9);
                    sum
                })
                .collect(),
        )
    }

    fn next(&self, random: &mut fastrand::Rng) -> u32 {
        let at = random.f64() * self.0.last().copied().unwrap_or_default();
        self.0.partition_point(|sum| *sum < at) as u32
    }
}

/// Hits of ours and of LRU on a trace, with room for about `room` entries of a kilobyte.
fn hits(trace: impl Iterator<Item = u32>, room: usize) -> (usize, usize) {
    let (account, memory) = memory(room * (Arena::cost(Block::size(1000)) + 180));
    let (mut lru, mut hits, mut theirs) = (Lru::default(), 0, 0);
    let mut resident = room;
    for what in trace {
        theirs += usize::from(lru.ask(what, resident));
        if memory.get(&slot(what)).is_some() {
            hits += 1;
        } else {
            assert!(put(&memory, slot(what), &[0; 1000]));
        }
        // Fair: as many as ours has.
        resident = memory.contents().entries.max(1);
    }
    audit(&account, &memory);
    (hits, theirs)
}

#[req_test("REQ-CACHE-002")]
#[test]
fn more_is_found_than_by_least_recent_use_and_scans_do_not_matter() {
    let zipf = Zipf::new(20_000);
    let mut random = fastrand::Rng::with_seed(3);
    let popular: Vec<u32> = (0..60_000).map(|_| zipf.next(&mut random)).collect();
    let (plain, lru) = hits(popular.iter().copied(), 1000);
    assert!(plain > lru, "{plain} hits, {lru} by least recent use");

    // Between any two requests one for something that is never asked for again.
    let mut once = 1_000_000;
    let scanned = popular.iter().flat_map(|what| {
        once += 1;
        [*what, once]
    });
    let (with_scan, lru_with_scan) = hits(scanned, 1000);
    assert!(with_scan * 10 > plain * 9, "{with_scan} of {plain} hits are left by a scan");
    assert!(
        with_scan * 10 > lru_with_scan * 12,
        "{with_scan}, {lru_with_scan} by least recent use"
    );

    // What was wanted once is not wanted for ever.
    let moved = popular.iter().map(|what| what + 500_000);
    let (after, _) = hits(popular.iter().copied().chain(moved), 1000);
    assert!(after * 100 > plain * 190, "{after} of twice {plain} when all others are wanted");
}

#[req_test("REQ-CACHE-002")]
#[test]
fn blocks_of_one_object_lie_in_all_parts() {
    let (_account, memory) = memory(256 << 20);
    let object = ObjectId::next();
    for number in 0..1000 {
        assert!(put(&memory, Slot::block(object, number), b"x"));
    }
    assert_eq!(memory.parts.len(), 16);
    assert!(memory.parts.iter().all(|part| memory.lock(part).shard.len() > 20));
}

/// As many go for what comes in as it takes: it is not refused after they have gone.
#[req_test("REQ-CACHE-002")]
#[test]
fn what_is_large_comes_in_among_many_that_are_small() {
    const BUDGET: usize = 16 << 20;
    const LARGE: usize = 256 << 10;
    for small in [1000, 3000, 10_000] {
        let (account, memory) = memory(BUDGET);
        let mut random = fastrand::Rng::with_seed(13);
        // Some are wanted and stay, so that holes are everywhere.
        for number in 0..(3 * BUDGET / small) as u32 {
            put(&memory, slot(number), &vec![0; random.usize(small / 2..small)]);
            drop(memory.get(&slot(random.u32(0..=number))));
        }
        let zeros = vec![1; LARGE];
        for number in 0..20 {
            let before = memory.evicted.load(Relaxed);
            assert!(put(&memory, slot(1_000_000 + number), &zeros), "{number} among {small}");
            let evicted = memory.evicted.load(Relaxed) - before;
            let most = 3 * LARGE / (small * 3 / 4);
            assert!(evicted as usize <= most, "{evicted} of {small} for {number}");
        }
        assert!(account.live() > BUDGET * 3 / 4, "{} is left among {small}", account.live());
        audit(&account, &memory);
    }
}

/// What is very small leaves holes that are of no use to what is large, until there are enough.
#[req_test("REQ-CACHE-002")]
#[test]
fn the_work_for_one_that_comes_in_has_a_bound_and_is_not_lost() {
    let (account, memory) = memory(16 << 20);
    let mut random = fastrand::Rng::with_seed(17);
    for number in 0..200_000 {
        put(&memory, slot(number), &[0; 150]);
        drop(memory.get(&slot(random.u32(0..=number))));
    }
    let zeros = vec![1; 1 << 20];
    let mut tries = 0;
    while !put(&memory, slot(1_000_000), &zeros) {
        tries += 1;
        assert!(tries < 10);
    }
    assert!(memory.evicted.load(Relaxed) > 0);
    let before = memory.evicted.load(Relaxed);
    put(&memory, slot(1_000_001), &zeros);
    assert!(memory.evicted.load(Relaxed) - before < 20_000, "a bound");
    audit(&account, &memory);
}

/// Many small ones once do not make the tables large for ever.
#[req_test("REQ-CACHE-002")]
#[test]
fn tables_follow_what_there_is() {
    let (account, memory) = memory(8 << 20);
    let tables = || {
        let parts = memory.parts.iter().map(|part| memory.lock(part).shard.allocated());
        parts.sum::<usize>() + memory.arena.table()
    };
    let mut number = 0;
    while memory.evicted.load(Relaxed) < 1000 {
        assert!(put(&memory, slot(number), &[0; 100]));
        number += 1;
    }
    let many = tables();
    for number in 0..400 {
        put(&memory, slot(1_000_000 + number), &[0; 100_000]);
    }
    assert!(memory.contents().entries < 200);
    assert!(tables() < many / 10, "{} of {many}", tables());
    assert!(memory.contents().bytes > 7 << 20, "the budget is for entries: {}", account.live());
    audit(&account, &memory);
}
