//! Waiting for what the kernel has no event for: another look after a moment, each wait twice
//! as long as the one before.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// First wait.
const FIRST: Duration = Duration::from_millis(1);

/// When to look again.
#[derive(Debug)]
pub(super) struct LookAgain {
    timer: Option<Pin<Box<Sleep>>>,
    wait: Duration,
    longest: Duration,
}

impl LookAgain {
    /// Waits up to `longest`.
    pub(super) fn new(longest: Duration) -> Self {
        Self { timer: None, wait: FIRST, longest }
    }

    /// Whether a wait has begun and is not over.
    pub(super) fn is_waiting(&self) -> bool {
        self.timer.is_some()
    }

    /// What was waited for is there.
    pub(super) fn found(&mut self) {
        self.timer = None;
        self.wait = FIRST;
    }

    /// Ready after the wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.wait)));
        ready!(timer.as_mut().poll(cx));
        self.timer = None;
        self.wait = (2 * self.wait).min(self.longest);
        Poll::Ready(())
    }
}
