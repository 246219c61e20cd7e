//! What the process before has left is taken up, and what the next one is to find is written down.
//!
//! Which purges the disk has is noted beside its files (`notes.rs`): a restart, which keeps those,
//! applies only what has been purged meanwhile, and what it is not known of that it has been.
//!
//! This goes on whatever becomes of the service: it may be away for longer than the process is there,
//! and what is purged or removed in that time counts all the same.
//!
//! Implements: REQ-CACHE-004

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::oneshot, task::spawn_blocking, time::sleep};

use super::{
    Shared, Wall,
    notes::{Notes, Read},
    purges::{self, is_over},
    removed, sync,
};
use crate::cache::store::{Inner, Store, head::Meta};

/// How often what has changed is written down.
const EVERY: Duration = Duration::from_secs(2);

/// Until the store ends. `first` is dropped when what was left has been taken up, or could not be
/// read: that is tried again.
pub(super) async fn run<M: Meta>(
    store: Weak<Inner<M>>,
    shared: Arc<Shared<M>>,
    first: oneshot::Sender<()>,
) {
    let mut first = Some(first);
    while let (Some(notes), true) = (&shared.notes, store.strong_count() > 0) {
        // The disk may stall: then this waits for it, and nobody else does.
        let here = Arc::clone(&shared);
        let read = spawn_blocking(move || here.notes.as_ref().map(Notes::read)).await;
        if let Ok(Some(read)) = read {
            take_up(&store, &shared, read).await;
        }
        drop(first.take());
        let here = Arc::clone(&shared);
        let _ = spawn_blocking(move || here.note()).await;
        tokio::select! {
            () = sleep(EVERY) => {}
            () = notes.wanted() => {}
        }
    }
}

/// What has been read just now of what was left.
async fn take_up<M: Meta>(store: &Weak<Inner<M>>, shared: &Shared<M>, read: Read) {
    let now = Wall::now();
    // They have been applied to what is on the disk.
    shared.purges.know(purges::decode(&read.seen).0, now);
    let mut removed = removed::decode(&read.removed);
    removed.retain(|(_, at)| !is_over(*at, now));
    removed.into_iter().for_each(|(head, at)| shared.forget(head, at));
    // It is not known whether these have, nor whether the others know of them.
    let mut owed = purges::decode(&read.owed).0;
    owed.retain(|(at, _)| !is_over(*at, now));
    owed.iter().for_each(|purge| shared.purges.begin_again(purge.clone()));
    if let Some(store) = store.upgrade().map(Store) {
        sync::apply(&store, shared, owed, "begun before the restart").await;
    }
}
