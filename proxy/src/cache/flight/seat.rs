//! The place of a reader in a fetch: how far it is, and what it gets there.
//!
//! Implements: REQ-CACHE-005

use std::{
    sync::{Arc, MutexGuard},
    task::{Context, Poll, Waker},
};

use super::{Flight, Inner, Next};

/// A reader's place in a flight. Given up when dropped.
#[derive(Debug)]
pub struct Seat {
    flight: Arc<Flight>,
    place: usize,
}

impl Seat {
    /// One for a reader who wants what is from `at` on. `None`: it has ended before its end, or
    /// that is only for those who were there before.
    pub fn take(flight: &Arc<Flight>, at: u64) -> Option<Self> {
        let mut inner = flight.lock();
        if matches!(inner.end, Some(Err(_))) || inner.is_closed && at < inner.base {
            return None;
        }
        let place = inner.readers.take(at);
        inner.fastest = inner.fastest.max(at);
        let puller = inner.puller.take();
        drop(inner);
        puller.into_iter().for_each(Waker::wake);
        Some(Self { flight: Arc::clone(flight), place })
    }

    /// What comes at `at`.
    pub(in crate::cache) fn poll(&self, at: u64, cx: &Context<'_>) -> Poll<Next> {
        let mut inner = self.flight.lock();
        if at < inner.base {
            return Poll::Ready(Next::Behind);
        }
        if at < inner.head {
            let index = inner.window.partition_point(|(start, _)| *start <= at);
            let Some((start, chunk)) = index.checked_sub(1).and_then(|i| inner.window.get(i))
            else {
                return Poll::Ready(Next::Behind);
            };
            let chunk = chunk.slice((at - start) as usize..);
            self.moves(inner, at + chunk.len() as u64);
            return Poll::Ready(Next::Chunk(chunk));
        }
        if let Some(end) = inner.end {
            return Poll::Ready(Next::End(end));
        }
        inner.readers.wait(self.place, cx);
        self.moves(inner, at);
        Poll::Pending
    }

    /// The reader has got so far, here or in the store.
    pub(in crate::cache) fn has(&self, at: u64) {
        self.moves(self.flight.lock(), at);
    }

    fn moves(&self, mut inner: MutexGuard<'_, Inner>, to: u64) {
        if let Some(at) = inner.readers.get_mut(self.place) {
            *at = to;
        }
        inner.fastest = inner.fastest.max(to);
        if !inner.storing {
            inner.trim();
        }
        let puller = match inner.puller.is_some() && inner.demand().is_some() {
            true => inner.puller.take(),
            false => None,
        };
        let passed = inner.passed();
        drop(inner);
        drop(passed);
        puller.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.flight.lock();
        inner.readers.give_back(self.place);
        if !inner.storing {
            inner.trim();
        }
        let (puller, leaves) = (inner.puller.take(), inner.leaves.take());
        let passed = inner.passed();
        drop(inner);
        drop(passed);
        puller.into_iter().chain(leaves).for_each(Waker::wake);
    }
}
