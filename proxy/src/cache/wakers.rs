//! Those who wait for something that another thread does: a place for each, so that a thousand
//! of them cost no search.

use std::task::{Context, Waker};

/// Places, each with what it is for and who waits there.
#[derive(Debug)]
pub(super) struct Places<T> {
    all: Vec<Option<(T, Option<Waker>)>>,
    free: Vec<usize>,
    waiting: usize,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { all: Vec::new(), free: Vec::new(), waiting: 0 }
    }
}

impl<T> Places<T> {
    /// How many are taken.
    pub(super) fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Takes one.
    pub(super) fn take(&mut self, what: T) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.all[place] = Some((what, None));
                place
            }
            None => {
                self.all.push(Some((what, None)));
                self.all.len() - 1
            }
        }
    }

    /// Gives one back.
    pub(super) fn give_back(&mut self, place: usize) {
        if let Some((_, waker)) = self.all[place].take() {
            self.waiting -= usize::from(waker.is_some());
            self.free.push(place);
        }
    }

    /// What a place is for.
    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.all[place].as_mut().map(|(what, _)| what)
    }

    /// What all of them are for.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.iter().flatten().map(|(what, _)| what)
    }

    /// Has the current task woken by the next [`Self::take_wakers`].
    pub(super) fn wait(&mut self, place: usize, cx: &Context<'_>) {
        let Some((_, waker)) = &mut self.all[place] else { return };
        match waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                *waker = Some(cx.waker().clone());
                self.waiting += 1;
            }
        }
    }

    /// Everybody who waits, to be woken when nothing is locked any more.
    pub(super) fn take_wakers(&mut self, into: &mut Vec<Waker>) {
        if self.waiting > 0 {
            into.extend(self.all.iter_mut().flatten().filter_map(|(_, waker)| waker.take()));
            self.waiting = 0;
        }
    }
}
