//! Which parts of a range are taken: two-level segregated fit (Masmano, Ripoll, Crespo, ECRTS 2004),
//! in numbers beside the range, so that it touches nothing of it. Pure.
//!
//! A block is taken, free, or fresh: free and not touched yet, or given back since. A block that
//! becomes free is one with free neighbours at once. What is taken comes from free blocks while one
//! of them fits, so that fresh ones, which take memory, are touched only for want of these.

use super::classes::{Classes, NONE};

/// Bytes of a unit, in which all lengths are here.
pub(super) const UNIT: usize = 64;

/// Units of a page of the kernel's: fresh blocks are made of whole ones.
pub(super) const PAGE: u32 = (4096 / UNIT) as u32;

/// Blocks of the same class as what is wanted that are looked at, for some are longer than others.
const LOOKS: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Taken,
    Free,
    Fresh,
}

/// A block, or a place for one.
#[derive(Debug, Clone, Copy)]
struct Node {
    at: u32,
    len: u32,
    /// Neighbours in the range.
    before: u32,
    behind: u32,
    /// Neighbours in the list of its class; `next` also of places.
    previous: u32,
    next: u32,
    state: State,
}

/// A block that is taken. To be given back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) node: u32,
    pub(super) at: u32,
    pub(super) len: u32,
}

/// The range.
#[derive(Debug)]
pub(super) struct Space {
    nodes: Vec<Node>,
    /// Places that are not in use.
    places: u32,
    free: Classes,
    fresh: Classes,
    /// Units of all fresh blocks.
    fresh_units: u32,
    units: u32,
}

impl Space {
    /// A range of so many units, all of them fresh; a multiple of [`PAGE`].
    pub(super) fn new(units: u32) -> Self {
        let mut this = Self {
            nodes: Vec::new(),
            places: NONE,
            free: Classes::default(),
            fresh: Classes::default(),
            fresh_units: units,
            units,
        };
        if units > 0 {
            let whole = this.add(0, units, (NONE, NONE), State::Fresh);
            this.list(whole);
        }
        this
    }

    /// Units that take memory.
    pub(super) fn touched(&self) -> u32 {
        self.units - self.fresh_units
    }

    /// What the table takes, in bytes.
    pub(super) fn allocated(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }

    /// Takes a block of this length; of fresh ones no more than `may_touch` units.
    pub(super) fn take(&mut self, len: u32, may_touch: u32) -> Option<Taken> {
        let node = match self.fit(State::Free, len) {
            Some(node) => {
                self.unlist(node);
                node
            }
            None => self.touch(len, may_touch)?,
        };
        Some(self.claim(node, len))
    }

    /// Takes what there is in one block, `most` at most and not less than `least`.
    pub(super) fn take_part(&mut self, most: u32, least: u32) -> Option<Taken> {
        let node = self.free.highest()?;
        let len = self.nodes[node as usize].len.min(most);
        if len < least {
            return None;
        }
        self.unlist(node);
        Some(self.claim(node, len))
    }

    /// Gives a block back.
    pub(super) fn give(&mut self, node: u32) {
        self.nodes[node as usize].state = State::Free;
        let node = self.merge(node);
        self.list(node);
    }

    /// Makes whole pages of free blocks fresh, the longest first, until so many units are or there
    /// are no more. `release` is told of each run, which may lose what it held.
    pub(super) fn give_back(&mut self, units: u32, mut release: impl FnMut(u32, u32)) {
        let mut given = 0;
        while given < units {
            let Some(node) = self.free.highest() else { return };
            let Node { at, len, .. } = self.nodes[node as usize];
            let start = at.next_multiple_of(PAGE);
            let end = (at + len) / PAGE * PAGE;
            if start >= end {
                return;
            }
            self.unlist(node);
            let pages = if start > at {
                let pages = self.split(node, start - at);
                self.list(node);
                pages
            } else {
                node
            };
            if end < at + len {
                let rest = self.split(pages, end - start);
                self.list(rest);
            }
            release(start, end - start);
            given += end - start;
            self.fresh_units += end - start;
            self.nodes[pages as usize].state = State::Fresh;
            let pages = self.merge(pages);
            self.list(pages);
        }
    }

    /// A block that is as long or longer.
    fn fit(&self, state: State, len: u32) -> Option<u32> {
        let classes = self.classes(state);
        let class = Classes::of(len);
        let mut node = classes.first(class);
        for _ in 0..LOOKS {
            if node == NONE {
                break;
            }
            if self.nodes[node as usize].len >= len {
                return Some(node);
            }
            node = self.nodes[node as usize].next;
        }
        classes.above(class)
    }

    /// A free block of this length or more, in no list, out of fresh pages and what is free right
    /// before them.
    fn touch(&mut self, len: u32, may_touch: u32) -> Option<u32> {
        let whole = len.checked_next_multiple_of(PAGE)?;
        let fresh = self.fit(State::Fresh, whole).or_else(|| self.fresh.highest())?;
        let Node { before, len: most, .. } = self.nodes[fresh as usize];
        let is_free = before != NONE && self.nodes[before as usize].state == State::Free;
        let there = if is_free { self.nodes[before as usize].len } else { 0 };
        let pages = (len - there.min(len - 1)).next_multiple_of(PAGE);
        if pages > most || pages > may_touch {
            return None;
        }
        self.unlist(fresh);
        if pages < most {
            let rest = self.split(fresh, pages);
            self.list(rest);
        }
        self.fresh_units -= pages;
        self.nodes[fresh as usize].state = State::Free;
        Some(self.merge(fresh))
    }

    /// Takes the first `len` units of a block that is in no list.
    fn claim(&mut self, node: u32, len: u32) -> Taken {
        // Before the rest looks for free neighbours.
        self.nodes[node as usize].state = State::Taken;
        if self.nodes[node as usize].len > len {
            let rest = self.split(node, len);
            self.nodes[rest as usize].state = State::Free;
            let rest = self.merge(rest);
            self.list(rest);
        }
        let block = self.nodes[node as usize];
        Taken { node, at: block.at, len: block.len }
    }

    /// Cuts a block that is in no list behind `len` units; the rest, in no list either.
    fn split(&mut self, node: u32, len: u32) -> u32 {
        let Node { at, len: all, behind, state, .. } = self.nodes[node as usize];
        let rest = self.add(at + len, all - len, (node, behind), state);
        if behind != NONE {
            self.nodes[behind as usize].before = rest;
        }
        let block = &mut self.nodes[node as usize];
        (block.len, block.behind) = (len, rest);
        rest
    }

    /// Makes a block, which is in no list, one with its neighbours of the same state.
    fn merge(&mut self, node: u32) -> u32 {
        let Node { before, behind, state, .. } = self.nodes[node as usize];
        let is_same =
            |this: &Self, other: u32| other != NONE && this.nodes[other as usize].state == state;
        let mut node = node;
        if is_same(self, behind) {
            self.unlist(behind);
            self.join(node, behind);
        }
        if is_same(self, before) {
            self.unlist(before);
            self.join(before, node);
            node = before;
        }
        node
    }

    /// Makes a block longer by the one behind it.
    fn join(&mut self, node: u32, behind: u32) {
        let Node { len, behind: next, .. } = self.nodes[behind as usize];
        self.nodes[node as usize].len += len;
        self.nodes[node as usize].behind = next;
        if next != NONE {
            self.nodes[next as usize].before = node;
        }
        self.nodes[behind as usize].next = self.places;
        self.places = behind;
    }

    fn add(&mut self, at: u32, len: u32, (before, behind): (u32, u32), state: State) -> u32 {
        let node = Node { at, len, before, behind, previous: NONE, next: NONE, state };
        if self.places != NONE {
            let place = self.places;
            self.places = self.nodes[place as usize].next;
            self.nodes[place as usize] = node;
            return place;
        }
        if self.nodes.len() == self.nodes.capacity() {
            self.nodes.reserve_exact(self.nodes.len() / 4 + 16);
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    fn classes(&self, state: State) -> &Classes {
        if state == State::Fresh { &self.fresh } else { &self.free }
    }

    fn list(&mut self, node: u32) {
        let Node { len, state, .. } = self.nodes[node as usize];
        let class = Classes::of(len);
        let classes = if state == State::Fresh { &mut self.fresh } else { &mut self.free };
        let next = classes.first(class);
        classes.set_first(class, node);
        (self.nodes[node as usize].previous, self.nodes[node as usize].next) = (NONE, next);
        if next != NONE {
            self.nodes[next as usize].previous = node;
        }
    }

    fn unlist(&mut self, node: u32) {
        let Node { len, state, previous, next, .. } = self.nodes[node as usize];
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
            return;
        }
        let classes = if state == State::Fresh { &mut self.fresh } else { &mut self.free };
        classes.set_first(Classes::of(len), next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every unit is in one block, neighbours know each other, and no two free ones touch.
    fn audit(space: &Space) {
        let mut node = (0..space.nodes.len() as u32)
            .find(|node| {
                let is_place = {
                    let mut place = space.places;
                    let mut found = false;
                    while place != NONE {
                        found |= place == *node;
                        place = space.nodes[place as usize].next;
                    }
                    found
                };
                !is_place && space.nodes[*node as usize].at == 0
            })
            .expect("the first block");
        let (mut at, mut before, mut fresh) = (0, NONE, 0);
        let mut state = State::Taken;
        while node != NONE {
            let block = space.nodes[node as usize];
            assert_eq!((block.at, block.before), (at, before));
            assert!(block.state == State::Taken || block.state != state, "two that are one");
            if block.state == State::Fresh {
                assert!(block.at.is_multiple_of(PAGE) && block.len.is_multiple_of(PAGE));
                fresh += block.len;
            }
            (at, before, state, node) = (at + block.len, node, block.state, block.behind);
        }
        assert_eq!((at, fresh), (space.units, space.fresh_units));
    }

    #[test]
    fn blocks_never_overlap_and_all_become_one_again() {
        let mut random = fastrand::Rng::with_seed(5);
        let units = 200 * PAGE;
        let mut space = Space::new(units);
        let mut taken: Vec<Taken> = Vec::new();
        let mut owner = vec![false; units as usize];
        let mut least_fresh = u32::MAX;
        for step in 0..20_000 {
            let block = match random.u8(..10) {
                0..4 if !taken.is_empty() => {
                    let block = taken.swap_remove(random.usize(..taken.len()));
                    owner[block.at as usize..][..block.len as usize].fill(false);
                    space.give(block.node);
                    None
                }
                4 => space.take_part(random.u32(1..500), 1),
                5 if random.u8(..20) == 0 => {
                    space.give_back(random.u32(..50 * PAGE), |at, len| {
                        let run = &owner[at as usize..][..len as usize];
                        assert!(run.iter().all(|taken| !taken), "somebody has it");
                    });
                    None
                }
                _ => {
                    let (len, may) = (1 << random.u32(..11), random.u32(..units));
                    let touched = space.touched();
                    let block = space.take(random.u32(1..=len), may);
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
        audit(&space);
        space.give_back(u32::MAX, |_, _| {});
        audit(&space);
        assert_eq!(space.touched(), 0);
        assert_eq!(space.take(units, units).map(|block| block.len), Some(units), "all is one");
    }

    #[test]
    fn what_is_free_is_taken_before_what_is_fresh() {
        let mut space = Space::new(10 * PAGE);
        let first = space.take(100, u32::MAX).expect("room");
        let touched = space.touched();
        space.give(first.node);
        let again = space.take(100, 0).expect("it is free");
        assert_eq!((again.at, space.touched()), (first.at, touched));
        assert!(space.take(100, 0).is_none(), "nothing more may be touched");
        let part = space.take_part(100, 1).expect("what is left of a page");
        assert_eq!(part.len, 2 * PAGE - 100);
    }
}
