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
    max: usize,
    freed: Notify,
}

/// One open connection; gives its place back when dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// `max` is at least 1.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), max, freed: Notify::new() })
    }

    /// A place, if there is one.
    pub fn try_take(self: &Arc<Self>) -> Option<Slot> {
        let take = |open| (open < self.max).then_some(open + 1);
        self.open.fetch_update(AcqRel, Acquire, take).ok().map(|_| Slot(Arc::clone(self)))
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
        drop((b, c));
        assert!(slots.try_take().is_some());
    }
}
