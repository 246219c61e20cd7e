//! How many connections of a listener are open, over all workers; beyond the limit
//! accepting pauses and the kernel's backlog holds who comes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::*},
};

use tokio::sync::Notify;

/// The count of one listener.
#[derive(Debug)]
pub struct Slots {
    open: AtomicUsize,
    max: AtomicUsize,
    freed: Notify,
}

/// One open connection; gives its place back when dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// `max` is at least 1.
    pub fn new(max: usize) -> Arc<Self> {
        let (open, max) = (AtomicUsize::new(0), AtomicUsize::new(max));
        Arc::new(Self { open, max, freed: Notify::new() })
    }

    /// Another limit, at least 1. Who is there stays.
    pub fn set_max(&self, max: usize) {
        if max > self.max.swap(max, AcqRel) {
            self.freed.notify_waiters();
        }
    }

    /// A place, if there is one.
    pub fn try_take(self: &Arc<Self>) -> Option<Slot> {
        let max = self.max.load(Acquire);
        let take = |open| (open < max).then_some(open + 1);
        self.open.fetch_update(AcqRel, Acquire, take).ok().map(|_| Slot(Arc::clone(self)))
    }

    /// A place, also where there is none.
    pub fn take_over_limit(self: &Arc<Self>) -> Slot {
        self.open.fetch_add(1, AcqRel);
        Slot(Arc::clone(self))
    }

    /// Waits for a place.
    pub async fn take(self: &Arc<Self>) -> Slot {
        loop {
            // Registered before the look, so that a place freed in between is not missed.
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(slot) = self.try_take() {
                return slot;
            }
            freed.await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, AcqRel);
        // All waiting workers: the one that has a connection waiting is to find it.
        self.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_given_back() {
        let slots = Slots::new(2);
        let (a, b) = (slots.try_take().unwrap(), slots.try_take().unwrap());
        assert!(slots.try_take().is_none());
        let waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.take().await }
        });
        tokio::task::yield_now().await;
        drop(a);
        let c = waiting.await.unwrap();
        assert!(slots.try_take().is_none());
        // One over the limit is counted as the others are.
        let d = slots.take_over_limit();
        drop(b);
        assert!(slots.try_take().is_none());
        drop((c, d));
        assert!(slots.try_take().is_some());
    }

    #[tokio::test]
    async fn another_limit_lets_in_who_waits_and_throws_nobody_out() {
        let slots = Slots::new(1);
        let first = slots.try_take().unwrap();
        let waiting = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.take().await }
        });
        tokio::task::yield_now().await;
        slots.set_max(2);
        let second = waiting.await.unwrap();
        slots.set_max(1);
        drop(first);
        assert!(slots.try_take().is_none(), "one is one too many still");
        drop(second);
        assert!(slots.try_take().is_some());
    }
}
