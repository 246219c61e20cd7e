//! Purges go round: every few seconds each member reads those of all, applies what is new to its own
//! memory and disk, and adds its own. By that it is seen whether the service works, too: what
//! has not answered is asked for nothing else until it answers this, in time.
//!
//! Which purges are known is written down beside the disk's files: a restart, which keeps those,
//! applies only what has been purged meanwhile. What was purged here is written down at once, for as
//! long as the service has not been told.
//!
//! Implements: REQ-CACHE-004, REQ-CACHE-007

use std::{collections::BTreeSet, fs, io, path::Path, sync::Weak, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Shared, Wall,
    purges::{self, MOST_BYTES},
    service::{self, Failed, Open},
};
use crate::cache::store::{Inner, Store, head::Meta, purge::What};

/// How often.
const EVERY: Duration = Duration::from_secs(2);

/// What a round may take beyond what a request would wait: a connection may have to be made first.
const MORE_TIME: Duration = Duration::from_secs(1);

/// How long the disk may take to write down what was purged elsewhere.
const WRITTEN_LIMIT: Duration = Duration::from_secs(5);

/// Goes round until the store ends.
pub(super) async fn run<M: Meta>(store: &Weak<Inner<M>>, shared: &Shared<M>, open: &Open) {
    let seen = shared.seen.clone();
    if let Some(Ok(bytes)) = at_leisure(move || seen.map(fs::read)).await.flatten() {
        // They have been applied to what is on the disk.
        let _ = shared.purges.merge(&purges::decode(&bytes).0, Wall::now());
    }
    // It is not known whether these have.
    let untold = shared.untold().map(|(path, _)| path);
    if let Some(Ok(bytes)) = at_leisure(move || untold.map(fs::read)).await.flatten()
        && let Some(store) = store.upgrade().map(Store)
    {
        let untold = purges::decode(&bytes).0;
        let what: Vec<_> = untold.iter().map(|(_, what)| what.clone()).collect();
        untold.into_iter().for_each(|(at, what)| shared.purges.add(what, at));
        apply(&store, shared, &what).await;
    }
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
            () = shared.purged.notified() => {}
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
    let mut is_written = true;
    if !merged.new.is_empty() {
        let Some(store) = store.upgrade().map(Store) else { return Ok(false) };
        is_written = apply(&store, shared, &merged.new).await;
    }
    if merged.lacks {
        let bytes = Bytes::from(shared.purges.encode());
        // It is tried again in the next round, which sees what is lacking.
        match open.put(&name, bytes, limit).await {
            Ok(()) => told(shared, now).await,
            Err(Failed::Service(why)) => shared.writing_failed(&why),
            Err(Failed::TooLong) => {}
        }
    } else {
        told(shared, now).await;
    }
    if is_written && (merged.lacks || !merged.new.is_empty()) {
        note(shared).await;
    }
    Ok(store.strong_count() > 0)
}

/// Applies what others have purged to what is here; whether the disk, if there is one, has it.
async fn apply<M: Meta>(store: &Store<M>, shared: &Shared<M>, new: &[What]) -> bool {
    let mut all = Vec::with_capacity(new.len());
    for what in new {
        let (here, meant) = (store.clone(), what.clone());
        // It looks through memory: other things go on meanwhile.
        match tokio::task::spawn_blocking(move || here.purge_here(&meant)).await {
            Ok(purged) => all.push(purged),
            Err(_) => return false,
        }
        shared.hears.get().inspect(|hears| (hears.0)(what));
        tracing::info!("cache: purge of {what:?}, by another proxy of the fleet");
    }
    let are_written = async {
        for purged in &mut all {
            if !purged.written().await {
                return false;
            }
        }
        true
    };
    timeout(WRITTEN_LIMIT, are_written).await.unwrap_or(false)
}

/// The service has what was purged here before now.
async fn told<M>(shared: &Shared<M>, now: Wall) {
    if shared.purges.is_any_untold() {
        shared.purges.are_told(Wall(now.0.saturating_sub(1)));
        if let Some((path, bytes)) = shared.untold() {
            at_leisure(move || replace_or_tell(&path, &bytes)).await;
        }
    }
}

/// Writes down what is known.
async fn note<M>(shared: &Shared<M>) {
    let Some(path) = shared.seen.clone() else { return };
    let bytes = shared.purges.encode();
    at_leisure(move || replace_or_tell(&path, &bytes)).await;
}

/// Does something with a file, which may take its time.
async fn at_leisure<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(what).await.ok()
}

pub(super) fn replace_or_tell(path: &Path, bytes: &[u8]) {
    if let Err(error) = replace(path, bytes) {
        tracing::debug!("cache: {} is not written: {error}", path.display());
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}
