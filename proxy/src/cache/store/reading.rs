//! Something that is being read from the disk, or from what a fleet shares.
//!
//! Either may take its time, or all of it. Whoever waits has a limit, and takes what does not come
//! for not stored: the origin has it too. But who has begun to give what only the disk has waits.
//!
//! Implements: REQ-CACHE-007

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::*},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};

/// How long a worker waits for the disk. Unit tests wait for what a busy machine has yet to read.
const LIMIT: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 500 });

/// How long the disk is not asked after somebody waited for it in vain.
const PAUSE: Duration = Duration::from_secs(5);

/// So many wait in vain, one after the other, before what somebody else looks after is left alone.
const MOST_IN_VAIN: u32 = 8;

/// Whether waiting is worth it, and for how long.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    /// How long nobody asks after somebody waited in vain. `None`: until it is restored.
    pause: Option<Duration>,
    since: Instant,
    /// In milliseconds after `since`: until then it is not.
    lost_until: AtomicU64,
    /// How many have waited in vain, with no answer between them.
    in_vain: AtomicU32,
}

impl Default for Patience {
    fn default() -> Self {
        let (since, lost_until) = (Instant::now(), AtomicU64::new(0));
        let in_vain = AtomicU32::new(0);
        Self { limit: LIMIT, pause: Some(PAUSE), since, lost_until, in_vain }
    }
}

impl Patience {
    /// One that is lost, until somebody restores it who has looked.
    pub(super) fn lost(limit: Duration) -> Self {
        let lost_until = AtomicU64::new(u64::MAX);
        let in_vain = AtomicU32::new(0);
        Self { limit, pause: None, since: Instant::now(), lost_until, in_vain }
    }

    /// It has answered again.
    pub(super) fn restore(&self) {
        self.answered();
        self.lost_until.store(0, Relaxed);
    }

    /// Whether somebody waited in vain a short time ago.
    pub(super) fn is_lost(&self) -> bool {
        let until = self.lost_until.load(Relaxed);
        until != 0 && (self.since.elapsed().as_millis() as u64) < until
    }

    /// Something came in time.
    pub(super) fn answered(&self) {
        self.in_vain.store(0, Relaxed);
    }

    /// Somebody has waited for as long as he does. Where nobody else looks after it that is enough;
    /// else it may have been one of too many, and it takes several with nothing between them.
    fn waited_in_vain(&self) {
        if self.pause.is_some() || self.in_vain.fetch_add(1, Relaxed) + 1 >= MOST_IN_VAIN {
            self.lose();
        }
    }

    pub(super) fn lose(&self) {
        let until = |pause: Duration| (self.since.elapsed() + pause).as_millis() as u64;
        let until = self.pause.map_or(u64::MAX, until);
        self.lost_until.store(until, Relaxed);
    }
}

/// Resolves to what was read; to `None` if it is gone, damaged, or does not come in time. For a
/// task of tokio.
#[derive(Debug)]
pub struct Reading<T> {
    answer: oneshot::Receiver<Option<T>>,
    /// Begins when somebody has to wait.
    limit: Option<Pin<Box<Sleep>>>,
    /// `None`: there is no limit.
    patience: Option<Arc<Patience>>,
}

impl<T> Reading<T> {
    /// One that is to be answered, or dropped, by the other end; and in time, where there is a
    /// patience to be lost.
    pub(super) fn new(patience: Option<Arc<Patience>>) -> (oneshot::Sender<Option<T>>, Self) {
        let (sender, answer) = oneshot::channel();
        (sender, Self { answer, limit: None, patience })
    }
}

impl<T> Future for Reading<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(cx) {
            return Poll::Ready(answer.ok().flatten());
        }
        let Some(patience) = self.patience.clone() else { return Poll::Pending };
        let limit = self.limit.get_or_insert_with(|| Box::pin(sleep(patience.limit)));
        ready!(limit.as_mut().poll(cx));
        patience.waited_in_vain();
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;

    #[req_test("REQ-CACHE-007")]
    #[tokio::test(start_paused = true)]
    async fn a_disk_that_does_not_answer_is_not_waited_for() {
        let patience = Arc::<Patience>::default();
        let (sender, reading) = Reading::new(Some(Arc::clone(&patience)));
        drop(sender);
        assert_eq!(reading.await, None::<u8>);
        assert!(!patience.is_lost(), "it was not waited for");
        let (_never, reading) = Reading::<u8>::new(Some(Arc::clone(&patience)));
        assert_eq!(reading.await, None);
        assert!(patience.is_lost());
        let (sender, reading) = Reading::new(Some(patience));
        sender.send(Some(7)).unwrap();
        assert_eq!(reading.await, Some(7));
    }

    #[req_test("REQ-CACHE-007")]
    #[tokio::test(start_paused = true)]
    async fn what_others_look_after_is_left_alone_until_they_say_so() {
        let patience = Arc::new(Patience::lost(Duration::from_millis(100)));
        assert!(patience.is_lost());
        patience.restore();
        let began = tokio::time::Instant::now();
        for number in 0..2 * MOST_IN_VAIN {
            if number == MOST_IN_VAIN - 1 {
                patience.answered();
            }
            assert_eq!(patience.is_lost(), number == 2 * MOST_IN_VAIN - 1, "{number}");
            let (_never, reading) = Reading::<u8>::new(Some(Arc::clone(&patience)));
            assert_eq!(reading.await, None);
        }
        let each = began.elapsed() / (2 * MOST_IN_VAIN);
        assert!(patience.is_lost() && each < Duration::from_millis(110));
        tokio::time::sleep(PAUSE * 10).await;
        assert!(patience.is_lost(), "nobody has looked");
        patience.restore();
        assert!(!patience.is_lost());
    }
}
