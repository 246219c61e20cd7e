//! A lane: things are kept at the service, or forgotten there, one after the other.
//!
//! Blocks go before the head by which they are found. What has been purged meanwhile is not
//! written, nor is anything while the service does not work; but what is to be forgotten waits for it.

use std::{
    ops::Range,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{
    Shared, Wall,
    lanes::{Item, LANES, Lane},
    record, service,
    service::{Failed, Open},
};
use crate::cache::store::{
    Found, Inner, Store,
    block::{Block, Form},
    head::{Meta, Stored},
    key::{Key, Slot},
};

/// How long one write may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Blocks of one object that are written at a time.
const BLOCKS: usize = 4;

/// Writes under way at a time.
pub(super) const MOST_WRITES: usize = LANES * BLOCKS;

/// How long a removal waits before it looks again whether the service works.
const AGAIN: Duration = Duration::from_millis(500);

/// Something that has been taken out of the queue, until this is dropped.
struct Under<'a, M>(&'a Shared<M>, usize);

impl<M> Drop for Under<'_, M> {
    fn drop(&mut self) {
        self.0.lanes.done(self.1);
    }
}

/// Writes until the store ends.
pub(super) async fn run<M: Meta>(
    store: Weak<Inner<M>>,
    shared: Arc<Shared<M>>,
    open: Open,
    mut lane: Lane<M>,
) {
    while let Some((item, bytes)) = lane.recv().await {
        let _under = Under(&shared, bytes);
        let Some(here) = store.upgrade().map(Store) else { return };
        let to = |store| To { store, shared: &shared, open: &open };
        let done = match item {
            Item::Gone { slot } => {
                // It may wait for long.
                drop(here);
                while forget(&store, &shared, &open, slot).await.is_some()
                    && !shared.purges.removed.is_done(slot)
                {
                    // It was removed once more: behind what has waited meanwhile, if there is room.
                    if shared.lanes.push(Item::Gone { slot }) {
                        break;
                    }
                }
                continue;
            }
            _ if shared.patience.is_lost() => {
                shared.counters.dropped.inc();
                continue;
            }
            Item::Head { key, stored, asked, blocks } => {
                to(&here).put_head((key, &stored), blocks, asked).await
            }
            Item::Block { slot, block, asked } => to(&here).put_block(slot, &block, asked).await,
        };
        match done {
            Ok(()) => shared.writing_works(),
            Err(Failed::Service(why)) => shared.writing_failed(&why),
            Err(Failed::TooLong) => _ = shared.counters.dropped.inc(),
        }
    }
}

/// Has a head forgotten. That is not given up because the service does not work: it would come back.
/// One that works and does not do it is asked twice. `None`: the store has ended before.
async fn forget<M: Meta>(
    store: &Weak<Inner<M>>,
    shared: &Shared<M>,
    open: &Open,
    slot: Slot,
) -> Option<()> {
    let name = service::name(&slot, shared.block_bytes);
    let mut refused = 0;
    while refused < 2 {
        while shared.patience.is_lost() {
            sleep(AGAIN).await;
            // The end of the store is told by nobody.
            if store.strong_count() == 0 {
                return None;
            }
        }
        shared.purges.removed.begins(&slot);
        let Err(failed) = open.delete(&name, LIMIT).await else {
            shared.writing_works();
            return Some(());
        };
        if let Failed::Service(why) = failed {
            shared.writing_failed(&why);
        }
        shared.rounds.for_failure();
        sleep(AGAIN).await;
        refused = if shared.patience.is_lost() { 0 } else { refused + 1 };
    }
    Some(())
}

/// What it is written with.
#[derive(Clone, Copy)]
struct To<'a, M> {
    store: &'a Store<M>,
    shared: &'a Shared<M>,
    open: &'a Open,
}

impl<M: Meta> To<'_, M> {
    async fn put_head(
        self,
        (key, stored): (Key, &Stored<M>),
        blocks: Range<u32>,
        asked: Wall,
    ) -> Result<(), Failed> {
        let has_any = !blocks.is_empty();
        let puts = stream::iter(blocks).map(|number| self.put_stored(stored, number, asked));
        let mut puts = puts.buffer_unordered(BLOCKS);
        while let Some(put) = puts.next().await {
            put?;
        }
        drop(puts);
        // A removal that comes from now on waits behind this, in the same lane.
        if !self.store.is_allowed(key, stored) {
            return Ok(());
        }
        let slot = Slot::head(key);
        let block_bytes = self.shared.block_bytes;
        let record = match stored.is_in_file() {
            // It has to be read.
            true => {
                let stored = stored.clone();
                let of_head = move || record::of_head(slot, &stored, asked, block_bytes);
                spawn_blocking(of_head).await.ok().flatten()
            }
            false => record::of_head(slot, stored, asked, block_bytes),
        };
        self.put(&slot, record.ok_or(Failed::TooLong)?).await?;
        if has_any {
            self.shared.known.add(Slot::block(stored.object(), 0));
        }
        Ok(())
    }

    /// A block, if it is still here.
    async fn put_stored(self, stored: &Stored<M>, number: u32, asked: Wall) -> Result<(), Failed> {
        let object = stored.object();
        let block = match self.store.block_awaited(object, number, Form::Memory) {
            Found::Memory(block) | Found::Read(block) => Some(block),
            // A disk that stalls is not waited for by what comes behind.
            Found::Disk(reading) | Found::Fleet(reading) => {
                timeout(LIMIT, reading).await.ok().flatten()
            }
            Found::Absent => None,
        };
        match block {
            Some(block) => self.put_block(Slot::block(object, number), &block, asked).await,
            None => {
                self.shared.counters.dropped.inc();
                Ok(())
            }
        }
    }

    async fn put_block(self, slot: Slot, block: &Block, asked: Wall) -> Result<(), Failed> {
        let record = record::of_block(slot, block, asked, self.shared.block_bytes);
        self.put(&slot, record.ok_or(Failed::TooLong)?).await
    }

    async fn put(self, slot: &Slot, record: Vec<u8>) -> Result<(), Failed> {
        let length = record.len() as u64;
        self.open.put(&self.name(slot), Bytes::from(record), LIMIT).await?;
        self.shared.counters.writes.inc();
        self.shared.counters.written.inc_by(length);
        Ok(())
    }

    fn name(self, slot: &Slot) -> String {
        service::name(slot, self.shared.block_bytes)
    }
}
