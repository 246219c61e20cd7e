//! Purges go round: every few seconds each member reads those of all, applies what is new to its own
//! memory and disk, and adds its own. By that it is seen whether the service works, too: what
//! has not answered is asked for nothing else until it answers this, in time.
//!
//! Implements: REQ-CACHE-004, REQ-CACHE-007

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{
    Shared, Wall,
    purges::{self, MOST_BYTES, Purge},
    service::{self, Failed, Open},
};
use crate::cache::store::{Inner, Store, head::Meta};

/// How often.
const EVERY: Duration = Duration::from_secs(2);

/// What a round may take beyond what a request would wait: a connection may have to be made first.
const MORE_TIME: Duration = Duration::from_secs(1);

/// Has a round come sooner.
#[derive(Debug, Default)]
pub(super) struct Wake {
    wanted: Notify,
    /// When it was wanted last because of a failure.
    failed: Mutex<Option<Instant>>,
}

impl Wake {
    /// A purge is to be told to the others, or it is to be seen whether the service works.
    pub(super) fn now(&self) {
        self.wanted.notify_one();
    }

    /// The service has not done something: it may be that nobody has seen yet that it does not work.
    /// One that works and refuses that is not asked the more for it.
    pub(super) fn for_failure(&self) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_none_or(|at| at.elapsed() >= EVERY) {
            *failed = Some(Instant::now());
            self.now();
        }
    }
}

/// Goes round until the store ends.
pub(super) async fn run<M: Meta>(store: &Weak<Inner<M>>, shared: &Arc<Shared<M>>, open: &Open) {
    let mut was_late = false;
    loop {
        let began = Instant::now();
        match round(store, shared, open).await {
            Ok(false) => return,
            Ok(true) if began.elapsed() <= shared.options.timeout => {
                was_late = false;
                shared.works();
            }
            // That may have been the connection: once more, at once.
            Ok(true) if !was_late => {
                was_late = true;
                continue;
            }
            Ok(true) if !shared.patience.is_lost() => {}
            Ok(true) => {
                let took = began.elapsed().as_millis();
                shared.failed(&format!("it takes {took} ms, and `timeout` is less"));
            }
            Err(why) => shared.failed(&why),
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            () = shared.rounds.wanted.notified() => {}
        }
    }
}

/// Once. `false`: the store has ended.
async fn round<M: Meta>(
    store: &Weak<Inner<M>>,
    shared: &Shared<M>,
    open: &Open,
) -> Result<bool, String> {
    let limit = shared.options.timeout + MORE_TIME;
    let name = service::purges();
    let theirs = match open.get(&name, MOST_BYTES, limit).await {
        Ok(Some(bytes)) => {
            let (set, is_whole) = purges::decode(&bytes);
            if !is_whole {
                shared.counters.damaged.inc();
            }
            set
        }
        Ok(None) => BTreeSet::new(),
        Err(Failed::TooLong) => {
            shared.counters.damaged.inc();
            BTreeSet::new()
        }
        Err(Failed::Service(why)) => return Err(why),
    };
    let now = Wall::now();
    let merged = shared.purges.merge(&theirs, now);
    if !merged.new.is_empty() {
        let Some(store) = store.upgrade().map(Store) else { return Ok(false) };
        apply(&store, shared, merged.new, "by another proxy of the fleet").await;
    }
    if merged.lacks {
        let bytes = Bytes::from(shared.purges.encode());
        // It is tried again in the next round, which sees what is lacking.
        match open.put(&name, bytes, limit).await {
            Ok(()) => told(shared, now),
            Err(Failed::Service(why)) => shared.writing_failed(&why),
            Err(Failed::TooLong) => {}
        }
    } else {
        told(shared, now);
    }
    Ok(store.strong_count() > 0)
}

/// Applies to what is here what others have purged, or a process before.
pub(super) async fn apply<M: Meta>(
    store: &Store<M>,
    shared: &Shared<M>,
    purges: impl IntoIterator<Item = Purge>,
    which: &str,
) {
    for purge in purges {
        let (here, what) = (store.clone(), purge.1.clone());
        // It looks through memory: other things go on meanwhile.
        let Ok(purged) = spawn_blocking(move || here.purge_here(&what)).await else { continue };
        shared.purges.owed.waits(&purge, purged.written);
        shared.hears.get().inspect(|hears| (hears.0)(&purge.1));
        tracing::info!("cache: purge of {:?}, {which}", purge.1);
    }
}

/// The service has what was purged here before now.
fn told<M>(shared: &Shared<M>, now: Wall) {
    shared.purges.owed.are_told(Wall(now.0.saturating_sub(1)));
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;
    use tokio::time::timeout;

    use super::*;

    #[req_test("REQ-CACHE-007")]
    #[tokio::test(start_paused = true)]
    async fn a_service_that_refuses_is_not_asked_the_more_for_it() {
        let wake = Wake::default();
        let comes = async || timeout(EVERY / 20, wake.wanted.notified()).await.is_ok();
        let mut rounds = 0;
        // As removals in all lanes do for ten times as long as a round takes to come anyway.
        for _ in 0..200 {
            for _ in 0..8 {
                wake.for_failure();
            }
            rounds += u32::from(comes().await);
            sleep(EVERY / 20).await;
        }
        assert!((8..=21).contains(&rounds), "{rounds}");
        // Who has something to tell does not wait for that.
        wake.now();
        assert!(comes().await);
    }
}
