//! The tier that a fleet of proxies shares: an object store, Redis, or a folder.
//!
//! It is asked for what is neither in memory nor on the disk, and is given what has come from an
//! origin. A worker leaves a job and waits for a short time at most (`asked.rs`), or leaves
//! something to be kept (`lanes.rs`), and never waits for that. One thread with a runtime of its own
//! does the rest (`run.rs`: reading, `write.rs`, `sync.rs`: purges, which it exchanges with the
//! others every few seconds, and by that sees whether the service works). `service.rs` is what is
//! asked, `record.rs` the form, `purges.rs` what was purged anywhere, `owed.rs` who does not have that
//! yet, `removed.rs` what was removed here, `notes.rs` what of these the next process is told, by
//! `left.rs`, `known.rs` which objects have blocks there, `find.rs` what the rest of the cache calls.
//!
//! What does not answer, in time or at all, is left alone until it does, and nobody waits for it.
//! It is a copy of what others have: nothing is kept only here.
//!
//! Implements: REQ-CACHE-002, REQ-CACHE-007

use std::{
    fmt, io,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::*},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

mod asked;
mod find;
mod known;
mod lanes;
mod left;
mod notes;
mod owed;
mod purges;
mod record;
mod removed;
mod run;
mod service;
mod sync;
#[cfg(test)]
mod tests;
mod write;

pub use service::{Redis, S3, Secret, Service};

pub(super) use record::Wall;

use asked::Asked;
use known::Known;
use lanes::{Item, Lanes};
use notes::Notes;
use purges::{Purge, Purges};
use sync::Wake;

use super::{
    FleetStatistics, Found, Inner, Written,
    block::Block,
    head::{Meta, Stored},
    key::{Key, Slot},
    purge::What,
    reading::{Patience, Reading},
    waiter::Waiter,
};

/// What was asked for so long ago is not taken: then purges need not be known for longer. Redis
/// is told to forget it.
pub const OLDEST: Duration = Duration::from_secs(24 * 3600);

/// How often a service is asked whether it works again when all ends.
const ASKED_AT_THE_END: Duration = Duration::from_millis(250);

/// Blocks that are asked for before somebody wants them: the service is far.
const AHEAD: u32 = 4;

/// What a tier of a fleet is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What is shared.
    pub service: Service,
    /// How long a request waits for it.
    pub timeout: Duration,
    /// Bodies that are longer are not shared.
    pub max_object_bytes: u64,
    /// What may wait to be written, in bytes of memory.
    pub queue_bytes: usize,
}

/// See [`FleetStatistics`].
#[derive(Debug, Default)]
struct Counters {
    hits: Counter,
    misses: Counter,
    read: Counter,
    writes: Counter,
    written: Counter,
    dropped: Counter,
    busy: Counter,
    damaged: Counter,
    refused: Counter,
    errors: Counter,
}

/// The tier.
#[derive(Debug)]
pub(super) struct Fleet<M> {
    shared: Arc<Shared<M>>,
    /// Sent when all ends; also by being dropped.
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread shares with everybody.
#[derive(Debug)]
struct Shared<M> {
    options: Options,
    block_bytes: usize,
    /// `None`: there is no disk, and nothing that a restart would keep.
    notes: Option<Notes>,
    asked: Asked<M>,
    lanes: Lanes<M>,
    purges: Purges,
    /// Objects whose blocks may be there.
    known: Known,
    /// Objects whose heads are there, or are going to be: more of their blocks are to be shared.
    heads: Known,
    counters: Counters,
    /// Lost as long as the service does not work.
    patience: Arc<Patience>,
    /// A failure has been told, and nothing since.
    fails: AtomicBool,
    write_fails: AtomicBool,
    rounds: Wake,
    /// Who is told what others have purged.
    hears: OnceLock<Hears>,
}

/// Somebody who has more to forget than what is stored.
struct Hears(Arc<dyn Fn(&What) + Send + Sync>);

impl fmt::Debug for Hears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hears")
    }
}

impl<M: Meta> Fleet<M> {
    /// Starts the thread, which connects.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(super) fn start(
        options: &Options,
        block_bytes: usize,
        seen: Option<PathBuf>,
        store: Weak<Inner<M>>,
    ) -> io::Result<Self> {
        let (asked, order) = Asked::new();
        let (lanes, ends) = Lanes::new(options.queue_bytes);
        let shared = Arc::new(Shared {
            options: options.clone(),
            block_bytes,
            notes: seen.as_deref().map(Notes::new),
            asked,
            lanes,
            purges: Purges::new(seen.is_some()),
            known: Known::new(),
            heads: Known::new(),
            counters: Counters::default(),
            patience: Arc::new(Patience::lost(options.timeout)),
            fails: AtomicBool::new(false),
            write_fails: AtomicBool::new(false),
            rounds: Wake::default(),
            hears: OnceLock::new(),
        });
        let (stop, stopped) = watch::channel(false);
        let this = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("cache-fleet".into())
            .spawn(move || run::run(&store, &this, (order, ends), stopped))?;
        Ok(Self { shared, stop, thread: Mutex::new(Some(thread)) })
    }

    fn works(&self) -> bool {
        !self.shared.patience.is_lost()
    }

    /// A head that others may have stored.
    fn head(&self, key: Key, text: &str, epoch: u64) -> Found<Stored<M>> {
        self.ask(Slot::head(key), epoch, |sender| Waiter::Head(text.into(), sender))
    }

    /// A block of which [`Self::has`] has said that it may be there; `last`: the last one that is
    /// going to be wanted.
    fn block(
        &self,
        slot: Slot,
        last: u32,
        epoch: u64,
        is_here: impl Fn(Slot) -> bool,
    ) -> Found<Block> {
        let found = self.ask(slot, epoch, Waiter::Block);
        if matches!(found, Found::Fleet(_)) {
            let ahead = (1..=AHEAD).filter_map(|blocks| slot.behind(blocks));
            for slot in
                ahead.take_while(|slot| slot.number() <= last).filter(|slot| !is_here(*slot))
            {
                self.shared.asked.ask(slot, epoch, None);
            }
        }
        found
    }

    fn ask<T>(
        &self,
        slot: Slot,
        epoch: u64,
        waiter: impl FnOnce(tokio::sync::oneshot::Sender<Option<T>>) -> Waiter<M>,
    ) -> Found<T> {
        if !self.works() {
            return Found::Absent;
        }
        let (sender, reading) = Reading::new(Some(Arc::clone(&self.shared.patience)));
        if self.shared.asked.ask(slot, epoch, Some(waiter(sender))) {
            return Found::Fleet(reading);
        }
        self.shared.counters.busy.inc();
        Found::Absent
    }

    /// Whether a block may be there.
    fn has(&self, slot: Slot) -> bool {
        self.works() && self.shared.known.has(slot)
    }

    /// A head is there, and its blocks may be.
    fn knows(&self, stored: &Stored<M>) {
        if has_blocks(stored) {
            let block = Slot::block(stored.object(), 0);
            self.shared.known.add(block);
            self.shared.heads.add(block);
        }
    }

    /// Has a head kept that has come from an origin, with these blocks of it. `asked`: when.
    pub(super) fn share(&self, key: Key, stored: &Stored<M>, blocks: Range<u32>, asked: Wall) {
        let length = stored.length.unwrap_or(0);
        if length > self.shared.options.max_object_bytes || !can_be_shared(stored) {
            // What there was is of before.
            return self.remove(key, asked);
        }
        let stored = stored.clone();
        if has_blocks(&stored) {
            self.shared.heads.add(Slot::block(stored.object(), 0));
        }
        self.leave(Item::Head { key, stored, asked, blocks });
    }

    /// Has a block kept of something that is shared.
    pub(super) fn share_block(&self, slot: Slot, block: &Block, asked: Wall) {
        if self.shared.heads.has(slot) {
            self.leave(Item::Block { slot, block: block.clone(), asked });
        }
    }

    /// Has a head forgotten, and does not take it any more if it was asked for before `now`.
    pub(super) fn remove(&self, key: Key, now: Wall) {
        self.shared.forget(Slot::head(key), now);
    }

    fn leave(&self, item: Item<M>) {
        if !self.works() || !self.shared.lanes.push(item) {
            self.shared.counters.dropped.inc();
        }
    }

    /// From now on nothing is taken that is meant and was asked for before.
    pub(super) fn begin_purge(&self, what: &What) -> Purge {
        self.shared.purges.begin(what.clone())
    }

    /// It has been applied to what is here, and the disk, if there is one, says when it has it. The
    /// others are told. Waits until that is written down, if the disk does not stall: not for a
    /// worker.
    pub(super) fn end_purge(&self, purge: &Purge, written: Option<Written>) {
        self.shared.purges.owed.waits(purge, written);
        self.shared.rounds.now();
        self.shared.notes.as_ref().inspect(|notes| _ = notes.want());
    }

    /// Whether the others cannot have heard yet of what was purged here.
    pub(super) fn is_any_untold(&self) -> bool {
        self.shared.purges.owed.is_any_untold()
    }

    /// Writes down what is left, after the disk's end.
    pub(super) fn note_the_end(&self) {
        self.shared.purges.owed.settle(Wall::now());
        self.shared.notes.as_ref().inspect(|notes| notes.write_last(&self.shared.purges));
    }

    /// Writes what waits, for so long at most. A service that does not work is asked on for as long,
    /// if it is to be told of something that has gone. Nothing is found there afterwards.
    pub(super) fn close(&self, limit: Duration) {
        let (began, mut asked) = (Instant::now(), 0);
        let deadline = began + limit;
        let is_owed = || self.is_any_untold() || self.shared.purges.removed.is_any_waiting();
        let is_busy = || is_owed() || self.works() && !self.shared.lanes.are_empty();
        while is_busy() && Instant::now() < deadline {
            if !self.works() && began.elapsed() >= ASKED_AT_THE_END * asked {
                asked += 1;
                self.shared.rounds.now();
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.shared.patience.lose();
        let _ = self.stop.send(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        while thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if Instant::now() >= deadline {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn statistics(&self) -> FleetStatistics {
        let Shared { counters, lanes, asked, .. } = &*self.shared;
        FleetStatistics {
            works: self.works(),
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            read_bytes: counters.read.get(),
            writes: counters.writes.get(),
            written_bytes: counters.written.get(),
            queued_bytes: lanes.bytes() as u64,
            queued_reads: asked.len() as u64,
            dropped: counters.dropped.get(),
            busy: counters.busy.get(),
            damaged: counters.damaged.get(),
            refused: counters.refused.get(),
            errors: counters.errors.get(),
        }
    }
}

/// Whether its body is in blocks of its own.
fn has_blocks<M>(stored: &Stored<M>) -> bool {
    stored.body.is_none() && stored.length.is_some_and(|length| length > 0)
}

/// Any block may be gone when it is asked for: then it has to be had from elsewhere.
fn can_be_shared<M: Meta>(stored: &Stored<M>) -> bool {
    !has_blocks(stored) || stored.meta.is_mendable(stored.more())
}

impl<M> Shared<M> {
    /// A head is not taken any more if it was asked for before, and the service is to forget it,
    /// whether it works now or not.
    fn forget(&self, head: Slot, at: Wall) {
        let removed = &self.purges.removed;
        removed.add(&head, at);
        if !removed.waits(head, at, || self.lanes.push(Item::Gone { slot: head })) {
            self.counters.dropped.inc();
        }
    }

    /// Writes down who has which purges, and what was removed.
    fn note(&self) {
        self.purges.owed.settle(Wall::now());
        self.notes.as_ref().inspect(|notes| notes.write(&self.purges));
    }

    /// It has not done what it was asked, and is left alone.
    fn failed(&self, why: &str) {
        self.counters.errors.inc();
        self.patience.lose();
        if !self.fails.swap(true, SeqCst) {
            let service = &self.options.service;
            tracing::warn!("cache: {service} does not work, origins are asked: {why}");
        }
    }

    /// It has not taken what it was given: it may be full, and is asked all the same.
    fn writing_failed(&self, why: &str) {
        self.counters.errors.inc();
        if !self.write_fails.swap(true, SeqCst) {
            let service = &self.options.service;
            tracing::warn!("cache: {service} takes nothing, what it has is used: {why}");
        }
    }

    fn writing_works(&self) {
        if self.write_fails.load(SeqCst) && self.write_fails.swap(false, SeqCst) {
            tracing::info!("cache: {} takes what it is given again", self.options.service);
        }
    }

    /// It has answered, and in time.
    fn works(&self) {
        self.patience.restore();
        if self.fails.swap(false, SeqCst) {
            tracing::info!("cache: {} works again", self.options.service);
        }
    }
}
