//! What is handed out, and the bound of what is touched.

use mantra_macros::req_test;

use super::*;

fn arena(budget: usize) -> (Arc<Account>, Arc<Arena>) {
    let account = Account::new(budget);
    (Arc::clone(&account), Arena::new(account))
}

fn take(arena: &Arc<Arena>, bytes: usize, may_part: bool) -> Option<Extents> {
    arena.account.take(Arena::cost(bytes));
    let taken = arena.take((64, bytes), if may_part { 64 } else { 1 }, 0).ok();
    if taken.is_none() {
        arena.account.give(Arena::cost(bytes));
    }
    taken
}

#[req_test("REQ-CACHE-002")]
#[test]
fn what_is_written_stays_and_what_is_dropped_is_given_back() {
    let (account, arena) = arena(1 << 20);
    let mut random = fastrand::Rng::with_seed(11);
    let mut all: Vec<(u8, Extents)> = Vec::new();
    for number in 0..5000u32 {
        if let Some(mut extents) = take(&arena, random.usize(1..40_000), true) {
            let fill = number as u8;
            extents.first.bytes_mut().fill(fill);
            extents.more.iter_mut().for_each(|extent| extent.bytes_mut().fill(fill));
            all.push((fill, extents));
        } else {
            for _ in 0..all.len() / 4 {
                let (fill, extents) = all.swap_remove(random.usize(..all.len()));
                let mut parts = std::iter::once(&extents.first).chain(&extents.more);
                assert!(parts.all(|part| part.bytes().iter().all(|byte| *byte == fill)));
            }
        }
        let most = account.budget() + account.budget() / SLACK_SHARE;
        assert!(arena.touched() <= most, "{} of {most}", arena.touched());
    }
    assert!(account.live() > account.budget() / 2, "it is made use of: {}", account.live());
    all.clear();
    assert_eq!(account.live(), arena.table());
}

/// Where all holes are small, what is large comes into several of them.
#[req_test("REQ-CACHE-002")]
#[test]
fn what_finds_no_room_in_one_piece_is_cut_into_several() {
    let (_account, arena) = arena(1 << 20);
    let mut small: Vec<_> = std::iter::from_fn(|| take(&arena, 2048, false)).collect();
    assert!(take(&arena, 64 << 10, true).is_none(), "it is full");
    let mut at = 0;
    small.retain(|_| {
        at += 1;
        at % 4 != 0
    });
    assert!(take(&arena, 64 << 10, false).is_none());
    let large = take(&arena, 64 << 10, true).expect("in pieces");
    assert_eq!(large.more.len(), 31);
    let bytes = large.first.len() + large.more.iter().map(Extent::len).sum::<usize>();
    assert_eq!(bytes, 64 << 10);
}

/// What tables take is not there for entries: what is free goes back to the system.
#[req_test("REQ-CACHE-002")]
#[test]
fn what_is_free_is_given_back_when_others_want_the_budget() {
    let (account, arena) = arena(32 << 20);
    let all: Vec<_> = std::iter::from_fn(|| take(&arena, 100 << 10, true)).collect();
    assert!(arena.touched() >= 32 << 20);
    drop(all);
    arena.trim();
    assert!(arena.touched() >= 32 << 20, "it is going to be used again");
    let tables = account.charge(24 << 20);
    // A part each time, for whoever asks has to wait for it.
    for _ in 0..4 {
        let before = arena.touched();
        arena.trim();
        assert!(before - arena.touched() <= MOST_TRIMMED, "{before} to {}", arena.touched());
    }
    assert!(arena.touched() <= (8 << 20) + (32 << 20) / SLACK_SHARE, "{}", arena.touched());
    let mut again = take(&arena, 1 << 20, false).expect("there is room");
    again.first.bytes_mut().fill(1);
    drop(tables);
    assert!(take(&arena, 24 << 20, true).is_some());
}

#[req_test("REQ-CACHE-002")]
#[test]
fn a_value_goes_with_the_last_who_has_it() {
    let (account, arena) = arena(1 << 20);
    let value = Arc::new(7);
    let mut extent = take(&arena, Held::<Arc<i32>>::HEADER + 10, false).unwrap().first;
    extent.bytes_mut()[Held::<Arc<i32>>::HEADER..][..10].fill(9);
    let held = Held::new(extent, Arc::clone(&value));
    assert!(!held.is_shared());
    let other = held.clone();
    assert!(held.is_shared());
    drop(held);
    assert_eq!((**other, &other.behind()[..10]), (7, &[9; 10][..]));
    assert_eq!(Arc::strong_count(&value), 2);
    std::thread::spawn(move || drop(other)).join().unwrap();
    assert_eq!((Arc::strong_count(&value), account.live()), (1, arena.table()));
}

/// Many threads take and give while memory goes back to the kernel: nobody loses what is theirs.
#[req_test("REQ-CACHE-002")]
#[test]
fn what_is_in_use_keeps_its_bytes_while_others_are_given_back() {
    let (account, arena) = arena(16 << 20);
    std::thread::scope(|scope| {
        for seed in 0..3_u8 {
            let arena = &arena;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed.into());
                let mut all: Vec<(u8, Extents)> = Vec::new();
                for number in 0..3000_u32 {
                    if let Some(mut extents) = take(arena, random.usize(1..60_000), true) {
                        let fill = (number as u8).wrapping_mul(3).wrapping_add(seed);
                        extents.first.bytes_mut().fill(fill);
                        extents.more.iter_mut().for_each(|extent| extent.bytes_mut().fill(fill));
                        all.push((fill, extents));
                    }
                    if all.len() > 60 {
                        let (fill, extents) = all.swap_remove(random.usize(..all.len()));
                        let mut parts = std::iter::once(&extents.first).chain(&extents.more);
                        assert!(parts.all(|part| part.bytes().iter().all(|byte| *byte == fill)));
                    }
                }
            });
        }
        // Others want the budget, and leave it again.
        for _ in 0..300 {
            let others = account.charge(14 << 20);
            arena.trim();
            drop(others);
            std::thread::yield_now();
        }
    });
    assert_eq!(account.live(), arena.table());
}
