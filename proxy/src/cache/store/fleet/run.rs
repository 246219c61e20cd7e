//! The thread that asks the service: what workers want to have, and all the rest beside that.
//!
//! Nothing is believed before it is compared: name, checksums, text, when it was asked for, and
//! what has been purged since. What does not agree is not there.
//!
//! Implements: REQ-CACHE-002, REQ-CACHE-004, REQ-CACHE-007

use std::{
    mem,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    runtime,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{
    Shared, Wall,
    asked::Job,
    lanes::Lane,
    left,
    record::{self, View},
    service::{self, Failed, Open},
    sync,
    write::{self, MOST_WRITES},
};
use crate::cache::store::{
    Inner, Store,
    block::Block,
    head::{Kept, Meta, Stored},
    key::Slot,
    meta_view::MetaView,
};

/// Reads under way at a time.
pub(super) const READS: usize = 32;

/// What is read may come so much later than anybody waits for it: the next one has it then.
const MORE_TIME: Duration = Duration::from_secs(1);

/// After how long a service is tried again that cannot even be set up.
const AGAIN: Duration = Duration::from_secs(5);

/// How long is waited for what the process before has left.
const LEFT_LIMIT: Duration = Duration::from_secs(2);

/// What comes from the workers.
pub(super) type Ends<M> = (mpsc::UnboundedReceiver<Slot>, Vec<Lane<M>>);

/// Why there is nothing.
enum Refused {
    /// It is not what was written, or of another version.
    Damaged,
    /// It is too old, over, or purged.
    Old,
    /// There is no memory for it.
    NoMemory,
}

/// Asks until the store ends.
pub(super) fn run<M: Meta>(
    store: &Weak<Inner<M>>,
    shared: &Arc<Shared<M>>,
    ends: Ends<M>,
    mut stopped: watch::Receiver<bool>,
) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return shared.failed(&error.to_string()),
    };
    runtime.block_on(async {
        tokio::select! {
            () = serve(store, shared, ends) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    });
    shared.patience.lose();
    shared.asked.clear();
    // A folder may hang for as long as it likes.
    runtime.shutdown_background();
}

async fn serve<M: Meta>(store: &Weak<Inner<M>>, shared: &Arc<Shared<M>>, (order, lanes): Ends<M>) {
    let (first, is_taken_up) = oneshot::channel();
    tokio::spawn(left::run(Weak::clone(store), Arc::clone(shared), first));
    // Before anything is asked for. A disk that stalls is not waited for: what was left there is
    // taken up when it gives it.
    let _ = timeout(LEFT_LIMIT, is_taken_up).await;
    let open = loop {
        let service = shared.options.service.clone();
        // It makes a folder, which may hang.
        match spawn_blocking(move || Open::new(&service)).await {
            Ok(Ok(open)) => break open,
            Ok(Err(why)) => shared.failed(&why),
            Err(error) => shared.failed(&error.to_string()),
        }
        sleep(AGAIN).await;
    };
    let writes = open.at_most(MOST_WRITES);
    for lane in lanes {
        tokio::spawn(write::run(Weak::clone(store), Arc::clone(shared), writes.clone(), lane));
    }
    let reads = open.at_most(READS);
    tokio::spawn(read_all(Weak::clone(store), Arc::clone(shared), reads, order));
    // One round at a time, also of those that nobody waits for any more.
    sync::run(store, shared, &open.at_most(1)).await;
}

async fn read_all<M: Meta>(
    store: Weak<Inner<M>>,
    shared: Arc<Shared<M>>,
    open: Open,
    mut order: mpsc::UnboundedReceiver<Slot>,
) {
    let permits = Arc::new(Semaphore::new(READS));
    while let Some(slot) = order.recv().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        // They are told that it is not there.
        if shared.patience.is_lost() || shared.asked.is_unwanted(&slot) {
            drop(shared.asked.done(&slot));
            continue;
        }
        let (store, shared, open) = (Weak::clone(&store), Arc::clone(&shared), open.clone());
        tokio::spawn(async move {
            let asked = Under { shared: &shared, slot, is_over: false };
            read(&store, asked, &open).await;
            drop(permit);
        });
    }
}

/// Something that is being read: not any more when this is dropped, however that comes about.
struct Under<'a, M> {
    shared: &'a Shared<M>,
    slot: Slot,
    is_over: bool,
}

impl<M> Under<'_, M> {
    /// Who waits for it. Once: who asks from then on has asked for another read.
    fn done(&mut self) -> Option<Job<M>> {
        let was_over = mem::replace(&mut self.is_over, true);
        if was_over { None } else { self.shared.asked.done(&self.slot) }
    }
}

impl<M> Drop for Under<'_, M> {
    fn drop(&mut self) {
        drop(self.done());
    }
}

async fn read<M: Meta>(store: &Weak<Inner<M>>, mut asked: Under<'_, M>, open: &Open) {
    let Under { shared, slot, .. } = asked;
    let counters = &shared.counters;
    let name = service::name(&slot, shared.block_bytes);
    let most = record::most_bytes(shared.block_bytes);
    let got = open.get(&name, most, shared.options.timeout + MORE_TIME).await;
    let Some(store) = store.upgrade().map(Store) else { return };
    let Some(job) = asked.done() else { return };
    if got.is_ok() {
        shared.patience.answered();
    }
    let settled = match got {
        Ok(Some(bytes)) => {
            counters.read.inc_by(bytes.len() as u64);
            settle(&store, shared, slot, job.epoch, &Bytes::from(bytes))
        }
        Ok(None) => {
            counters.misses.inc();
            return shared.known.remove(slot);
        }
        Err(Failed::TooLong) => Err(Refused::Damaged),
        Err(Failed::Service(why)) => return shared.failed(&why),
    };
    match settled {
        Ok(kept) => {
            counters.hits.inc();
            if let Kept::Block(block) = &kept {
                // Whoever knows the object can have it, as that of a fill.
                store.take_in(slot, block);
            }
            return job.answer(&kept);
        }
        Err(Refused::Damaged) => counters.damaged.inc(),
        Err(Refused::Old) => counters.refused.inc(),
        Err(Refused::NoMemory) => counters.busy.inc(),
    };
    shared.known.remove(slot);
}

/// What an object comes to.
fn settle<M: Meta>(
    store: &Store<M>,
    shared: &Shared<M>,
    slot: Slot,
    epoch: u64,
    bytes: &Bytes,
) -> Result<Kept<M>, Refused> {
    let view = View::decode(bytes, slot, shared.block_bytes).ok_or(Refused::Damaged)?;
    let Some(head) = &view.head else {
        return body(store, bytes, &view).map(Kept::Block);
    };
    let now = Wall::now();
    let refused = shared.purges.refuse(&slot, (view.asked, now), head.text, head.tags());
    if refused || head.keep_until < now.seconds() {
        return Err(Refused::Old);
    }
    let body = match head.has_body {
        true => Some(body(store, bytes, &view)?),
        false => None,
    };
    stored(store, head, body, epoch).map(Kept::Head)
}

fn body<M: Meta>(store: &Store<M>, of: &Bytes, view: &View<'_>) -> Result<Block, Refused> {
    let pieces = [of.slice_ref(view.body())];
    let block = store.copy(&pieces).ok_or(Refused::NoMemory)?;
    if view.is(&block) { Ok(block) } else { Err(Refused::Damaged) }
}

fn stored<M: Meta>(
    store: &Store<M>,
    view: &MetaView<'_>,
    body: Option<Block>,
    epoch: u64,
) -> Result<Stored<M>, Refused> {
    let has_blocks = body.is_none() && view.length.is_some_and(|length| length > 0);
    let head = view.head::<M>(body).ok_or(Refused::Damaged)?;
    if has_blocks && !head.meta.is_mendable(&head.more) {
        return Err(Refused::Damaged);
    }
    let size = head.size();
    let memory = store.allocate((size, size), false).ok_or(Refused::NoMemory)?;
    // What has been purged since it was asked for is compared again when it comes in.
    Ok(Stored::new(memory.first, head, view.object, epoch))
}
