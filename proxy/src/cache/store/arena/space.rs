//! Which parts of a range are taken: two-level segregated fit (Masmano, Ripoll, Crespo, ECRTS 2004),
//! in numbers beside the range, so that it touches nothing of it. Pure.
//!
//! A block is taken, free, or fresh: free and not touched yet, or given back since. A block that
//! becomes free is one with free neighbours at once. What is taken comes from free blocks while one
//! of them fits, so that fresh ones, which take memory, are touched only for want of these. Fresh
//! blocks are whole pages; a hole that was given back is one of them with what is free at both of
//! its ends, and is taken as it was.

use super::{
    super::table::Table,
    classes::{Classes, NONE},
};

/// Bytes of a unit, in which all lengths are here.
pub(super) const UNIT: usize = crate::lend::UNIT;

/// Blocks of the same class as what is wanted that are looked at, for some are longer than others.
const LOOKS: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Taken,
    Free,
    Fresh,
}

/// A block.
#[derive(Debug, Clone, Copy)]
struct Node {
    at: u32,
    len: u32,
    /// Neighbours in the range.
    before: u32,
    behind: u32,
    /// Neighbours in the list of its class.
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
    nodes: Table<Node>,
    free: Classes,
    fresh: Classes,
    /// Units of all fresh blocks.
    fresh_units: u32,
    units: u32,
    /// Units of a page of the kernel's.
    page: u32,
}

impl Space {
    /// A range of so many units, all of them fresh; a multiple of `page`, which is what can be
    /// touched and given back apart.
    pub(super) fn new(units: u32, page: u32) -> Self {
        let mut this = Self {
            nodes: Table::new(),
            free: Classes::default(),
            fresh: Classes::default(),
            fresh_units: units,
            units,
            page,
        };
        if units > 0 {
            let whole = this.add(0, units, (NONE, NONE), State::Fresh);
            this.list(whole);
        }
        this
    }

    /// Units that take memory, or have taken some and been lent since (`lend.rs` of the crate).
    pub(super) fn touched(&self) -> u32 {
        self.units - self.fresh_units
    }

    /// What the table takes, in bytes.
    pub(super) fn allocated(&self) -> usize {
        self.nodes.allocated()
    }

    /// Takes a block of this length; of fresh ones no more than `may_touch` units.
    pub(super) fn take(&mut self, len: u32, may_touch: u32) -> Option<Taken> {
        let node = match self.fit(len) {
            Some(node) => {
                self.unlist(node);
                node
            }
            None => {
                let (fresh, pages) = self.fit_touched(len, may_touch)?;
                self.touch(fresh, pages)
            }
        };
        Some(self.claim(node, len))
    }

    /// As [`Self::take`], at a place that ends where a page does, if there is one.
    pub(super) fn take_ending(&mut self, len: u32, may_touch: u32) -> Option<Taken> {
        let room = len.checked_add(self.page - 1)?;
        let fits = |node: &u32| self.start_of_ending(*node, len).is_some();
        let found = self.looked_at(self.free.first(Classes::of(len))).find(fits);
        let node = match found.or_else(|| self.fit(room)) {
            Some(node) => {
                self.unlist(node);
                node
            }
            None => {
                let (fresh, pages) = self.fit_touched(room, may_touch)?;
                self.touch(fresh, pages)
            }
        };
        let front = self.start_of_ending(node, len).map_or(0, |start| start - self.nodes[node].at);
        if front == 0 {
            return Some(self.claim(node, len));
        }
        let rest = self.split(node, front);
        self.list(node);
        Some(self.claim(rest, len))
    }

    /// Where something of this length begins that ends with a page in this block.
    fn start_of_ending(&self, node: u32, len: u32) -> Option<u32> {
        let Node { at, len: all, .. } = self.nodes[node];
        let end = at.checked_add(len)?.checked_next_multiple_of(self.page)?;
        (end <= at + all).then(|| end - len)
    }

    /// Takes what there is in one block, `most` at most and not less than `least`; of fresh ones
    /// as [`Self::take`].
    pub(super) fn take_part(&mut self, most: u32, least: u32, may_touch: u32) -> Option<Taken> {
        let longest = self.free.highest().filter(|node| self.nodes[*node].len >= least);
        let node = match longest {
            Some(node) => {
                self.unlist(node);
                node
            }
            None => {
                let fresh = self.fresh.highest()?;
                let may_touch = may_touch / self.page * self.page;
                let pages = self.nodes[fresh].len.min(may_touch);
                let pages = self.pages_for(fresh, most).map_or(pages, |wanted| pages.min(wanted));
                if pages == 0 || self.with_pages(fresh, pages) < least {
                    return None;
                }
                self.touch(fresh, pages)
            }
        };
        let len = self.nodes[node].len.min(most);
        Some(self.claim(node, len))
    }

    /// Gives a block back.
    pub(super) fn give(&mut self, node: u32) {
        self.nodes[node].state = State::Free;
        let node = self.merge(node);
        self.list(node);
    }

    /// Takes whole pages of a free block, one of the longest, for their memory to be given back: of
    /// `most` units, and a page where that is less. `None`: none has any. They are nobody's until
    /// [`Self::is_released`] is told.
    pub(super) fn release(&mut self, most: u32) -> Option<Taken> {
        let most = most.max(1).next_multiple_of(self.page);
        let whole = |node: u32| {
            let Node { at, len, .. } = self.nodes[node];
            let (start, end) = (at.next_multiple_of(self.page), (at + len) / self.page * self.page);
            (start < end).then(|| (node, start, end.min(start.saturating_add(most))))
        };
        let (node, start, end) = self.looked_at(self.free.highest()?).find_map(whole)?;
        let Node { at, len, .. } = self.nodes[node];
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
        self.nodes[pages].state = State::Taken;
        Some(Taken { node: pages, at: start, len: end - start })
    }

    /// What [`Self::release`] took has lost what it held: it is fresh.
    pub(super) fn is_released(&mut self, node: u32) {
        self.fresh_units += self.nodes[node].len;
        self.nodes[node].state = State::Fresh;
        let node = self.merge(node);
        self.list(node);
    }

    /// A free block that is as long or longer.
    fn fit(&self, len: u32) -> Option<u32> {
        let class = Classes::of(len);
        let first = self.free.first(class);
        let fits = |node: &u32| self.nodes[*node].len >= len;
        self.looked_at(first).find(fits).or_else(|| self.free.above(class))
    }

    /// The first of a list.
    fn looked_at(&self, first: u32) -> impl Iterator<Item = u32> {
        let some = |node: u32| Some(node).filter(|node| *node != NONE);
        let next = move |node: &u32| some(self.nodes[*node].next);
        std::iter::successors(some(first), next).take(LOOKS as usize)
    }

    /// A fresh block out of which, with what is free right beside it, one of this length can be had,
    /// and how many units of it have to be touched. The shortest that is found first: holes before
    /// what has never been touched.
    fn fit_touched(&self, len: u32, may_touch: u32) -> Option<(u32, u32)> {
        let whole = len.checked_next_multiple_of(self.page)?;
        let fits = |fresh: u32| {
            let pages = self.pages_for(fresh, len)?;
            (pages <= may_touch).then_some((fresh, pages))
        };
        // At both ends there is less than a page that was not given back.
        let least = whole.saturating_sub(2 * self.page).max(self.page);
        let mut class = Classes::of(least);
        let mut first = self.fresh.first(class);
        loop {
            if let Some(found) = self.looked_at(first).find_map(fits) {
                return Some(found);
            }
            if class > Classes::of(whole) {
                break;
            }
            let Some(next) = self.fresh.above(class) else { break };
            (class, first) = (Classes::of(self.nodes[next].len), next);
        }
        // All are shorter: what is beside them may be long.
        self.looked_at(self.fresh.highest()?).find_map(fits)
    }

    /// How much of a fresh block has to be touched for one of this length, with what is free right
    /// beside it; `None`: that is not enough.
    fn pages_for(&self, fresh: u32, len: u32) -> Option<u32> {
        let Node { len: all, before, .. } = self.nodes[fresh];
        let wanted = len - self.free_at(before).min(len - 1);
        match wanted.checked_next_multiple_of(self.page) {
            Some(pages) if pages <= all => Some(pages),
            _ => (self.with_pages(fresh, all) >= len).then_some(all),
        }
    }

    /// Units of what there is when so much of a fresh block has been touched.
    fn with_pages(&self, fresh: u32, pages: u32) -> u32 {
        let Node { len, before, behind, .. } = self.nodes[fresh];
        let rest = if pages == len { self.free_at(behind) } else { 0 };
        self.free_at(before) + pages + rest
    }

    fn free_at(&self, node: u32) -> u32 {
        let free = |node: &Node| if node.state == State::Free { node.len } else { 0 };
        self.nodes.get(node).map_or(0, free)
    }

    /// Makes the first so many units of a fresh block free, and one with what is free beside them;
    /// in no list.
    fn touch(&mut self, fresh: u32, pages: u32) -> u32 {
        self.unlist(fresh);
        if pages < self.nodes[fresh].len {
            let rest = self.split(fresh, pages);
            self.list(rest);
        }
        self.fresh_units -= pages;
        self.nodes[fresh].state = State::Free;
        self.merge(fresh)
    }

    /// Takes the first `len` units of a block that is in no list.
    fn claim(&mut self, node: u32, len: u32) -> Taken {
        // Before the rest looks for free neighbours.
        self.nodes[node].state = State::Taken;
        if self.nodes[node].len > len {
            let rest = self.split(node, len);
            self.nodes[rest].state = State::Free;
            let rest = self.merge(rest);
            self.list(rest);
        }
        let block = self.nodes[node];
        Taken { node, at: block.at, len: block.len }
    }

    /// Cuts a block that is in no list behind `len` units; the rest, in no list either.
    fn split(&mut self, node: u32, len: u32) -> u32 {
        let Node { at, len: all, behind, state, .. } = self.nodes[node];
        let rest = self.add(at + len, all - len, (node, behind), state);
        if behind != NONE {
            self.nodes[behind].before = rest;
        }
        let block = &mut self.nodes[node];
        (block.len, block.behind) = (len, rest);
        rest
    }

    /// Makes a block, which is in no list, one with its neighbours of the same state.
    fn merge(&mut self, node: u32) -> u32 {
        let Node { before, behind, state, .. } = self.nodes[node];
        let is_same =
            |this: &Self, other: u32| this.nodes.get(other).is_some_and(|it| it.state == state);
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
        let Node { len, behind: next, .. } = self.nodes[behind];
        self.nodes[node].len += len;
        self.nodes[node].behind = next;
        if next != NONE {
            self.nodes[next].before = node;
        }
        self.nodes.remove(behind);
    }

    fn add(&mut self, at: u32, len: u32, (before, behind): (u32, u32), state: State) -> u32 {
        self.nodes.add(Node { at, len, before, behind, previous: NONE, next: NONE, state })
    }

    fn list(&mut self, node: u32) {
        let Node { len, state, .. } = self.nodes[node];
        let class = Classes::of(len);
        let classes = if state == State::Fresh { &mut self.fresh } else { &mut self.free };
        let next = classes.first(class);
        classes.set_first(class, node);
        let block = &mut self.nodes[node];
        (block.previous, block.next) = (NONE, next);
        if next != NONE {
            self.nodes[next].previous = node;
        }
    }

    fn unlist(&mut self, node: u32) {
        let Node { len, state, previous, next, .. } = self.nodes[node];
        if next != NONE {
            self.nodes[next].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous].next = next;
            return;
        }
        let classes = if state == State::Fresh { &mut self.fresh } else { &mut self.free };
        classes.set_first(Classes::of(len), next);
    }
}

#[cfg(test)]
mod tests;
