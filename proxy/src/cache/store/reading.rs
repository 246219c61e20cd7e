//! Something that is being read from the disk.
//!
//! A disk may take its time, or all of it. Whoever waits has a limit, and takes what does not come
//! for not stored: the origin has it too.
//!
//! Implements: REQ-CACHE-007

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};

/// How long a worker waits for the disk.
const PATIENCE: Duration = Duration::from_secs(1);

/// Resolves to what was read; to `None` if it is gone, damaged, or does not come in time. For a
/// task of tokio.
#[derive(Debug)]
pub struct Reading<T> {
    answer: oneshot::Receiver<Option<T>>,
    /// Begins when somebody has to wait.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<T> Reading<T> {
    /// One that is to be answered, or dropped, by the other end.
    #[cfg_attr(not(test), expect(dead_code, reason = "until the store has a disk"))]
    pub(super) fn new() -> (oneshot::Sender<Option<T>>, Self) {
        let (sender, answer) = oneshot::channel();
        (sender, Self { answer, limit: None })
    }
}

impl<T> Future for Reading<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(cx) {
            return Poll::Ready(answer.ok().flatten());
        }
        let limit = self.limit.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        ready!(limit.as_mut().poll(cx));
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
        let (_never, reading) = Reading::<u8>::new();
        assert_eq!(reading.await, None);
        let (sender, reading) = Reading::new();
        drop(sender);
        assert_eq!(reading.await, None::<u8>);
        let (sender, reading) = Reading::new();
        sender.send(Some(7)).unwrap();
        assert_eq!(reading.await, Some(7));
    }
}
