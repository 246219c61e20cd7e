//! Orderly end: every connection holds a [`Watch`]; the process ends when all are gone.
//!
//! Three signals, in this order: *leaving* (take no new connections, end kept ones with their
//! next answer), *draining* (finish what you do, start nothing new) and *forced* (the deadline
//! has passed: end now). A hand-over to another process begins with the first, an end without
//! a successor with the second. [`Drain::wait`] returns when the last `Watch` has been dropped,
//! so nothing that holds one is ever cut off unseen.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Serving,
    Leaving,
    Draining,
    Forced,
}

/// The side that orders the drain.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    alive: mpsc::Receiver<()>,
}

/// Held by everything that has to end before the process does. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watch {
    phase: watch::Receiver<Phase>,
    _alive: mpsc::Sender<()>,
}

/// A drain and its first watch.
pub fn channel() -> (Drain, Watch) {
    let (phase, seen) = watch::channel(Phase::Serving);
    let (guard, alive) = mpsc::channel(1);
    (Drain { phase, alive }, Watch { phase: seen, _alive: guard })
}

impl Drain {
    /// Tells everybody to take nothing new and to end kept connections with their next answer.
    /// Idempotent.
    pub fn leave(&self) {
        self.reach(Phase::Leaving);
    }

    /// Tells everybody to finish. Idempotent.
    pub fn start(&self) {
        self.reach(Phase::Draining);
    }

    fn reach(&self, wanted: Phase) {
        self.phase.send_if_modified(|phase| {
            let first = *phase < wanted;
            if first {
                *phase = wanted;
            }
            first
        });
    }

    /// Waits for all watches to go while everybody [leaves](Self::leave), at most for `limit`.
    /// Returns whether all went.
    pub async fn left(&mut self, limit: Duration) -> bool {
        self.leave();
        tokio::time::timeout(limit, self.alive.recv()).await.is_ok()
    }

    /// Waits for all watches to go, forces them after `deadline`, and then gives them
    /// one more second. Returns whether all went.
    pub async fn wait(&mut self, deadline: Duration) -> bool {
        self.start();
        if tokio::time::timeout(deadline, self.alive.recv()).await.is_ok() {
            return true;
        }
        self.phase.send_replace(Phase::Forced);
        tokio::time::timeout(Duration::from_secs(1), self.alive.recv()).await.is_ok()
    }
}

impl Watch {
    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// Whether no new connections are to be taken any more.
    pub fn is_leaving(&self) -> bool {
        *self.phase.borrow() >= Phase::Leaving
    }

    /// Resolves when no new connections are to be taken any more (at once if that is so).
    pub async fn leaving(&mut self) {
        self.reached(Phase::Leaving).await;
    }

    /// Resolves when a drain begins (at once if it has).
    pub async fn draining(&mut self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves when the deadline of a drain has passed.
    pub async fn forced(&mut self) {
        self.reached(Phase::Forced).await;
    }

    async fn reached(&mut self, wanted: Phase) {
        // The sender going away means that the process ends without ceremony.
        let _ = self.phase.wait_for(|phase| *phase >= wanted).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wait_ends_with_the_last_watch() {
        let (mut drain, mut watch) = channel();
        let second = watch.clone();
        let holder = tokio::spawn(async move {
            watch.draining().await;
            drop(watch);
        });
        drop(second);
        assert!(drain.wait(Duration::from_secs(5)).await);
        holder.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_stays_is_forced_at_the_deadline() {
        let (mut drain, mut watch) = channel();
        let holder = tokio::spawn(async move { watch.forced().await });
        let started = tokio::time::Instant::now();
        assert!(drain.wait(Duration::from_secs(5)).await);
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        holder.await.unwrap();
    }
}
