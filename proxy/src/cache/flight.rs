//! An answer on its way: one fetch, and everybody who wants it.
//!
//! Whoever leads asks the server; who comes meanwhile waits for the head, and then reads the body
//! while it comes, each at its own pace and on its own worker. The bytes that came last are kept
//! here as handles (the window), what is older is in the store, in blocks.
//!
//! The body is pulled by one task (`pull.rs`) when somebody wants more, so it comes as fast as the
//! fastest reader takes it, and at most [`AHEAD`] faster. What is not going to be found (it was too
//! large, or has been purged meanwhile) is stored all the same for as long as two or more share it,
//! so that who is slow holds up nobody; and what is stored of it stays until the last of those who
//! are behind has had it. One reader alone has it from the window, and sets the pace.
//!
//! Where the store has no room the slowest sets the pace of those who read from the window. Whoever
//! was behind it by then has what was stored, and needs the rest from elsewhere (`reader.rs`).
//!
//! What is shared is behind one lock, held for the time of a few moves and never over an await or
//! a wake-up.
//!
//! Implements: REQ-CACHE-001, REQ-CACHE-005

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use super::{
    meta::{Answer, Meta},
    policy::vary::Chosen,
    store::{Charge, Fill, ObjectId, Stored},
    wakers::Places,
};
use crate::error::Kind;

mod seat;

pub use seat::Seat;

/// How far a body is pulled ahead of the fastest reader, in bytes.
pub const AHEAD: u64 = 128 << 10;

/// What a fetch holds at least: the buffer that head and body have come in.
const LEAST: usize = 16 << 10;

/// What a fetch may hold while it goes on, in bytes: a block that is not whole yet, and what its
/// readers have not taken. `length`: of all that comes, if that is known; who fetches what is
/// small is not charged as if it were large, for what is kept makes room for it.
pub fn held(block_bytes: usize, length: Option<u64>) -> usize {
    let most = length.map_or(usize::MAX, |length| usize::try_from(length).unwrap_or(usize::MAX));
    (block_bytes.min(most) + (2 * AHEAD as usize).min(most)).max(LEAST)
}

/// What the window holds at least, in bytes, of what is in the store already: readers that are a
/// little behind need not go there.
const KEPT: u64 = 128 << 10;

/// What became of the question.
#[derive(Debug, Clone)]
pub enum Resolution {
    /// The body is on its way, and may be read along.
    Filling(Arc<Offer>),
    /// It is stored: look again.
    Stored,
    /// No server could answer, and what is stored may serve although it is stale.
    Stale(Stored<Meta>),
    /// The answer is for one request only: ask for yourself.
    Solo,
    /// No server has answered, for this reason.
    Failed(Kind),
    /// Whoever led has left before there was an answer: somebody else has to lead.
    Abandoned,
}

/// A head whose body is on its way.
#[derive(Debug)]
pub struct Offer {
    /// As it will be stored.
    pub answer: Answer,
    /// Of the whole, if it is known.
    pub length: Option<u64>,
    /// Whose blocks it becomes.
    pub object: ObjectId,
    /// Which requests it is for.
    pub chosen: Chosen,
}

/// One fetch.
#[derive(Debug)]
pub struct Flight {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    resolution: Option<Resolution>,
    waiting: Places<()>,
    /// Chunks, each with its place in the whole.
    window: VecDeque<(u64, Bytes)>,
    start: u64,
    /// Where the window begins; all before it is in the store.
    base: u64,
    /// What has come.
    head: u64,
    /// What of it is in the store.
    stored: u64,
    storing: bool,
    /// Nobody begins any more at what the window does not have.
    is_closed: bool,
    /// What is stored, of which nobody knows but those who have a place here.
    kept: Option<Fill<Meta>>,
    finishes: Finishes,
    end: Option<Result<(), Kind>>,
    readers: Places<u64>,
    /// How far any of them has ever been.
    fastest: u64,
    puller: Option<Waker>,
    /// The same task, where it waits for the server and wants to know when nobody is left.
    leaves: Option<Waker>,
    /// For what the window holds.
    _charge: Option<Charge>,
}

/// Whether a fetch goes on when nobody reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Finishes {
    /// It does not: what has come is of no use without the rest.
    #[default]
    No,
    /// To its end.
    Yes,
    /// To the end of the block in which the fastest reader was, of so many bytes: half of one is
    /// of no use, and those who wait for the head may not have come by the time who asked has had
    /// what it wanted of it.
    Block(u64),
}

/// What the task that pulls is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// More is wanted.
    More,
    /// Nobody is left who wants any.
    Nobody,
}

/// What a reader gets.
#[derive(Debug)]
pub(super) enum Next {
    /// What comes next.
    Chunk(Bytes),
    /// It is not here any more, but in the store.
    Behind,
    /// All of it has come, or no more will.
    End(Result<(), Kind>),
}

impl Flight {
    /// One that is about to ask.
    pub fn new() -> Arc<Self> {
        let inner = Inner { storing: true, ..Inner::default() };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is whole before anything could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // -- who asks -------------------------------------------------------------------

    /// Says what became of it. The first word counts.
    pub fn resolve(&self, resolution: Resolution) {
        let mut wakers = Vec::new();
        let mut inner = self.lock();
        if inner.resolution.is_none() {
            inner.resolution = Some(resolution);
            inner.waiting.take_wakers(&mut wakers);
        }
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Where the window begins: what is before it can only be in the store.
    pub fn base(&self) -> u64 {
        self.lock().base
    }

    /// Whether the byte at this place is here, or comes before so many others have.
    pub(super) fn reaches(&self, at: u64, reach: u64) -> bool {
        let inner = self.lock();
        // Where nothing is stored any more, what is to come waits for the slowest reader.
        let comes = inner.storing && at <= inner.head.saturating_add(reach);
        let is_near = inner.base <= at && (at < inner.head || comes);
        is_near && !matches!(inner.end, Some(Err(_)))
    }

    /// The body begins here, and the window is charged so.
    pub fn begins_at(&self, offset: u64, finishes: Finishes, charge: Option<Charge>) {
        let mut inner = self.lock();
        (inner.base, inner.head, inner.stored, inner.fastest) = (offset, offset, offset, offset);
        inner.start = offset;
        inner.finishes = finishes;
        inner._charge = charge;
    }

    // -- the task that pulls --------------------------------------------------------

    /// Resolves when there is something to do.
    pub(super) fn poll_demand(&self, cx: &Context<'_>) -> Poll<Demand> {
        let mut inner = self.lock();
        match inner.demand() {
            Some(demand) => {
                inner.gives_up(demand);
                Poll::Ready(demand)
            }
            None => {
                match &mut inner.puller {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => inner.puller = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// Whether nobody is left who wants it. The current task is woken when that changes.
    pub(super) fn is_unwanted(&self, cx: &Context<'_>) -> bool {
        let mut inner = self.lock();
        match &mut inner.leaves {
            Some(waker) => waker.clone_from(cx.waker()),
            None => inner.leaves = Some(cx.waker().clone()),
        }
        let is_unwanted = inner.demand() == Some(Demand::Nobody);
        if is_unwanted {
            inner.gives_up(Demand::Nobody);
        }
        is_unwanted
    }

    /// More has come; `stored`: all before this is in the store.
    pub(super) fn publish(&self, chunk: Bytes, stored: u64, wakers: &mut Vec<Waker>) {
        let mut inner = self.lock();
        inner.stored = stored;
        let at = inner.head;
        inner.head += chunk.len() as u64;
        if !chunk.is_empty() {
            inner.window.push_back((at, chunk));
        }
        inner.trim();
        inner.readers.take_wakers(wakers);
        drop(inner);
        wakers.drain(..).for_each(Waker::wake);
    }

    /// It is not going to be found in the store.
    pub(super) fn closes(&self) {
        self.lock().is_closed = true;
    }

    /// Whether what comes has to be stored although nobody is to find it: for somebody who is
    /// behind, or may fall behind. Else it is in the window from here on.
    pub(super) fn is_shared(&self) -> bool {
        let mut inner = self.lock();
        let base = inner.base;
        let is_shared = inner.readers.len() > 1 || inner.readers.iter().any(|at| *at < base);
        inner.storing &= is_shared;
        is_shared
    }

    /// How far everybody has come.
    pub(super) fn hindmost(&self) -> u64 {
        let inner = self.lock();
        inner.readers.iter().copied().min().unwrap_or(inner.head)
    }

    /// Nothing more is stored: from here on it all is in the window until everybody has it who
    /// reads from there. The others have what is `kept`.
    pub(super) fn stops_storing(&self, kept: Option<Fill<Meta>>) {
        let mut inner = self.lock();
        (inner.storing, inner.is_closed, inner.kept) = (false, true, kept);
        let passed = inner.passed();
        drop(inner);
        drop(passed);
    }

    /// No more comes.
    pub(super) fn finish(&self, end: Result<(), Kind>) {
        self.finish_with(end, None);
    }

    /// The same of what is stored and is not going to be found there.
    pub(super) fn finish_with(&self, end: Result<(), Kind>, kept: Option<Fill<Meta>>) {
        let mut wakers = Vec::new();
        let mut inner = self.lock();
        inner.end.get_or_insert(end);
        if kept.is_some() {
            (inner.is_closed, inner.kept) = (true, kept);
        }
        let passed = inner.passed();
        inner.readers.take_wakers(&mut wakers);
        drop(inner);
        drop(passed);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Inner {
    fn demand(&self) -> Option<Demand> {
        if self.readers.len() == 0 {
            let finishes = match self.finishes {
                Finishes::No => false,
                Finishes::Yes => true,
                Finishes::Block(bytes) => {
                    let wanted = self.fastest.max(self.start + 1);
                    self.storing && self.head < wanted.next_multiple_of(bytes)
                }
            };
            return Some(if finishes { Demand::More } else { Demand::Nobody });
        }
        let pace = match self.storing {
            true => self.fastest,
            false => self.slowest(),
        };
        (self.head < pace.saturating_add(AHEAD)).then_some(Demand::More)
    }

    /// The task ends where nobody is left. In the same step, so that who comes just then does not
    /// take a seat in what brings no more.
    fn gives_up(&mut self, demand: Demand) {
        if demand == Demand::Nobody {
            self.end.get_or_insert(Err(Kind::ClientGone));
        }
    }

    /// How far somebody has read of those who read.
    fn reach(&self) -> u64 {
        if self.readers.len() == 0 { self.head } else { self.fastest }
    }

    /// How far all of those have come who read from the window.
    fn slowest(&self) -> u64 {
        let here = self.readers.iter().copied().filter(|at| *at >= self.base).min();
        here.unwrap_or(if self.readers.len() == 0 { self.head } else { self.base })
    }

    /// What is kept, if nobody is behind any more who could want it. To be dropped when nothing is
    /// locked.
    fn passed(&mut self) -> Option<Fill<Meta>> {
        let wanted = self.stored.max(self.base);
        self.kept.take_if(|_| self.readers.iter().all(|at| *at >= wanted))
    }

    /// Lets go of what everybody can have elsewhere, or has had.
    fn trim(&mut self) {
        if self.end.is_some() {
            // No more comes, and those who are behind have to find it.
            return;
        }
        let keep = match self.storing {
            // Nor what the fastest has yet to read: a large chunk may take the head further than
            // is kept, and what is stored may be evicted at once.
            true => self.stored.min(self.head.saturating_sub(KEPT)).min(self.reach()),
            false => self.slowest(),
        };
        while let Some((at, chunk)) = self.window.front() {
            let end = at + chunk.len() as u64;
            if end > keep {
                break;
            }
            self.base = end;
            self.window.pop_front();
        }
    }
}

/// Ends a flight when it is dropped, unless that has been done: nobody is to wait for a task that
/// is gone.
#[derive(Debug)]
pub struct Ends(pub Arc<Flight>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.resolve(Resolution::Abandoned);
        self.0.finish(Err(Kind::Internal));
    }
}

/// A wait for the head. Given up when dropped.
#[derive(Debug)]
pub struct Waiting {
    flight: Arc<Flight>,
    place: usize,
}

impl Waiting {
    /// Begins to wait.
    pub fn new(flight: &Arc<Flight>) -> Self {
        let place = flight.lock().waiting.take(());
        Self { flight: Arc::clone(flight), place }
    }

    /// Resolves when it is known what became of it.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Resolution> {
        let mut inner = self.flight.lock();
        match &inner.resolution {
            Some(resolution) => Poll::Ready(resolution.clone()),
            None => {
                inner.waiting.wait(self.place, cx);
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.flight.lock().waiting.give_back(self.place);
    }
}

#[cfg(test)]
mod tests;
