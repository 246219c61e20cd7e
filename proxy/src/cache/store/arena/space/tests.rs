//! Blocks of a range, by chance and by the case.

use super::*;

/// Units of a page of 4096 bytes.
const PAGE: u32 = (4096 / UNIT) as u32;

/// Every unit is in one block, neighbours know each other, and no two free ones touch.
fn audit(space: &Space) {
    let is_first = |node: &u32| space.nodes.get(*node).is_some_and(|block| block.at == 0);
    let mut node = (0..space.nodes.places()).find(is_first).expect("the first block");
    let (mut at, mut before, mut fresh, mut count) = (0, NONE, 0, 0);
    let mut state = State::Taken;
    while node != NONE {
        let block = space.nodes[node];
        assert_eq!((block.at, block.before), (at, before));
        assert!(block.state == State::Taken || block.state != state, "two that are one");
        if block.state == State::Fresh {
            assert!(block.at.is_multiple_of(space.page) && block.len.is_multiple_of(space.page));
            fresh += block.len;
        }
        (at, before, state, node) = (at + block.len, node, block.state, block.behind);
        count += 1;
    }
    assert_eq!((at, fresh), (space.units, space.fresh_units));
    assert_eq!(count, space.nodes.len());
}

fn release_all(space: &mut Space) {
    while let Some(taken) = space.release(3 * PAGE) {
        space.is_released(taken.node);
    }
}

#[test]
fn blocks_never_overlap_and_all_become_one_again() {
    // What Linux has of pages: 4, 16 and 64 kB.
    for page in [PAGE, 4 * PAGE, 16 * PAGE] {
        let mut random = fastrand::Rng::with_seed(5);
        let units = (200 * PAGE).next_multiple_of(page);
        let mut space = Space::new(units, page);
        let mut taken: Vec<Taken> = Vec::new();
        let mut owner = vec![false; units as usize];
        let mut released: Vec<Taken> = Vec::new();
        let mut least_fresh = u32::MAX;
        for step in 0..20_000 {
            let block = match random.u8(..10) {
                0..4 if !taken.is_empty() => {
                    let block = taken.swap_remove(random.usize(..taken.len()));
                    owner[block.at as usize..][..block.len as usize].fill(false);
                    space.give(block.node);
                    None
                }
                4 => {
                    let (may, touched) = (random.u32(..units), space.touched());
                    let block = space.take_part(random.u32(1..500), 1, may);
                    assert!(space.touched() - touched <= may);
                    block
                }
                // What is being given back is nobody's while others take and give.
                5 if random.u8(..20) == 0 => {
                    for block in released.drain(..) {
                        space.is_released(block.node);
                        owner[block.at as usize..][..block.len as usize].fill(false);
                    }
                    for _ in 0..random.u8(..5) {
                        let most = random.u32(..20 * page);
                        let Some(block) = space.release(most) else { break };
                        assert!(block.len <= most.max(1).next_multiple_of(page));
                        let run = &mut owner[block.at as usize..][..block.len as usize];
                        assert!(run.iter().all(|taken| !taken), "somebody has it");
                        run.fill(true);
                        released.push(block);
                    }
                    None
                }
                _ => {
                    let (len, may) = (1 << random.u32(..11), random.u32(..units));
                    let touched = space.touched();
                    let len = random.u32(1..=len);
                    let block = if random.bool() {
                        let block = space.take_ending(len, may);
                        assert!(block.as_ref().is_none_or(|block| {
                            block.len == len && (block.at + len).is_multiple_of(page)
                        }));
                        block
                    } else {
                        space.take(len, may)
                    };
                    assert!(space.touched() - touched <= may);
                    block
                }
            };
            if let Some(block) = block {
                let run = &mut owner[block.at as usize..][..block.len as usize];
                assert!(run.iter().all(|taken| !taken), "taken twice");
                run.fill(true);
                taken.push(block);
            }
            if step % 100 == 0 {
                audit(&space);
            }
            least_fresh = least_fresh.min(space.fresh_units);
        }
        assert!(least_fresh < units / 2, "it was made use of");
        taken.into_iter().for_each(|block| space.give(block.node));
        released.into_iter().for_each(|block| space.is_released(block.node));
        audit(&space);
        release_all(&mut space);
        audit(&space);
        assert_eq!(space.touched(), 0);
        assert_eq!(space.take(units, units).map(|block| block.len), Some(units), "all is one");
    }
}

#[test]
fn what_is_free_is_taken_before_what_is_fresh() {
    let mut space = Space::new(10 * PAGE, PAGE);
    let first = space.take(100, u32::MAX).expect("room");
    let touched = space.touched();
    space.give(first.node);
    let again = space.take(100, 0).expect("it is free");
    assert_eq!((again.at, space.touched()), (first.at, touched));
    assert!(space.take(100, 0).is_none(), "nothing more may be touched");
    let part = space.take_part(100, 1, 0).expect("what is left of a page");
    assert_eq!(part.len, 2 * PAGE - 100);
}

/// Holes do not begin and end where pages do: what lies at their ends is not given back.
#[test]
fn a_hole_that_was_given_back_takes_what_was_in_it() {
    for len in [2 * PAGE - 1, 2 * PAGE + 1, 3 * PAGE, 5 * PAGE - 1, 40 * PAGE + 7] {
        let count = 20;
        let units = (count * len).next_multiple_of(PAGE);
        let mut space = Space::new(units, PAGE);
        let all: Vec<_> = (0..count).map(|_| space.take(len, u32::MAX).expect("room")).collect();
        let touched = space.touched();
        let holes = || all.iter().step_by(2);
        holes().for_each(|block| space.give(block.node));
        release_all(&mut space);
        audit(&space);
        assert!(space.touched() < touched, "pages of {len} were given back");
        for hole in 0..holes().count() {
            let again = space.take(len, u32::MAX);
            assert!(again.is_some(), "hole {hole} of {} for {len}", holes().count());
            audit(&space);
        }
        assert_eq!(space.touched(), touched);
    }
}

#[test]
fn parts_are_of_what_was_given_back_as_well() {
    let mut space = Space::new(64 * PAGE, PAGE);
    let all: Vec<_> = (0..32).map(|_| space.take(2 * PAGE, u32::MAX).expect("room")).collect();
    all.iter().step_by(2).for_each(|block| space.give(block.node));
    release_all(&mut space);
    assert!(space.take(4 * PAGE, u32::MAX).is_none(), "no hole is so long");
    assert!(space.take_part(4 * PAGE, PAGE, PAGE - 1).is_none(), "nothing may be touched");
    assert_eq!(space.take_part(4 * PAGE, PAGE, PAGE).map(|part| part.len), Some(PAGE));
    assert_eq!(space.take_part(4 * PAGE, PAGE, u32::MAX).map(|part| part.len), Some(2 * PAGE));
    audit(&space);
}

/// Many small blocks once do not make the table large for ever.
#[test]
fn the_table_follows_what_there_is() {
    let mut space = Space::new(1000 * PAGE, PAGE);
    let small: Vec<_> = std::iter::from_fn(|| space.take(4, u32::MAX)).collect();
    let most = space.allocated();
    assert!(small.len() == 16_000 && most > small.len() * size_of::<Node>());
    // Whatever stays, and be it the last.
    let stays = |at: usize| at % 5000 == 4999;
    let gone = small.iter().enumerate().filter(|(at, _)| !stays(*at));
    gone.for_each(|(_, block)| space.give(block.node));
    audit(&space);
    assert!(space.allocated() < most / 10, "{} of {most}", space.allocated());
    while space.take(10 * PAGE, u32::MAX).is_some() {}
    assert!(space.allocated() < most / 10, "{} of {most}", space.allocated());
}
