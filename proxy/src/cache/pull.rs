//! The task that brings a body: from a server to those who read it, and into the store beside.
//!
//! Invariant: a chunk is told to the readers before anything else is done with it. What broke off,
//! what nobody wanted to its end and what was too large leaves nothing in the store, as soon as
//! nobody is left who reads it from there.
//!
//! Implements: REQ-CACHE-001

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, sleep_until};

use super::{
    Cache,
    flight::{Demand, Ends, Flight},
    flights::Ticket,
    meta::Meta,
    store::{Fill, Head, Key},
};
use crate::{
    error::Kind,
    upstream::{
        answer::{AnswerBody, Broken},
        connection::Connection,
    },
};

/// Bodies of no more bytes may have come with their heads.
const AT_ONCE: u64 = 16 << 10;

/// A body on its way.
#[derive(Debug)]
pub struct Pull {
    /// The cache.
    pub cache: Arc<Cache>,
    /// Where it goes.
    pub flight: Arc<Flight>,
    /// By what it is found meanwhile; given up when it ends.
    pub ticket: Option<Ticket>,
    /// Where it comes from.
    pub body: AnswerBody,
    /// Held for as long as that is read.
    pub connection: Connection,
    /// How long the server may be silent.
    pub patience: Duration,
    /// Where it is stored, if it is.
    pub sink: Option<Sink>,
}

/// Where a body is stored.
#[derive(Debug)]
pub struct Sink {
    fill: Fill<Meta>,
    /// It is of a body whose blocks nobody finds until the head is stored.
    is_whole: bool,
    /// The key and the head, unless they are there already, or are not going to be.
    commit: Option<(String, Head<Meta>)>,
    number: u32,
    pieces: Vec<Bytes>,
    /// Bytes of these.
    held: usize,
    block_bytes: usize,
    /// What has come, from the start of the whole.
    at: u64,
    /// Of it, in whole blocks.
    stored: u64,
    /// No more than this is stored.
    most: u64,
}

impl Sink {
    /// For a whole body of at most so many bytes, whose head is stored when it has come.
    pub fn whole(cache: &Cache, fill: Fill<Meta>, commit: (String, Head<Meta>), most: u64) -> Self {
        Self::new(cache, fill, Some(commit), 0, most)
    }

    /// For blocks from this one on, of something that is stored, up to the byte before `end`.
    pub fn part(cache: &Cache, fill: Fill<Meta>, number: u32, end: u64) -> Self {
        Self::new(cache, fill, None, number, end)
    }

    fn new(
        cache: &Cache,
        fill: Fill<Meta>,
        commit: Option<(String, Head<Meta>)>,
        number: u32,
        most: u64,
    ) -> Self {
        let block_bytes = cache.store.block_bytes();
        let at = u64::from(number) * block_bytes as u64;
        Self {
            fill,
            is_whole: commit.is_some(),
            commit,
            number,
            pieces: Vec::new(),
            held: 0,
            block_bytes,
            at,
            stored: at,
            most,
        }
    }

    /// Takes a chunk. False: there is no room for it.
    fn take(&mut self, cache: &Cache, mut chunk: Bytes) -> bool {
        self.at += chunk.len() as u64;
        while !chunk.is_empty() {
            let room = self.block_bytes - self.held;
            let piece = chunk.split_to(room.min(chunk.len()));
            self.held += piece.len();
            self.pieces.push(piece);
            if self.held == self.block_bytes && !self.put(cache) {
                return false;
            }
        }
        true
    }

    fn put(&mut self, cache: &Cache) -> bool {
        let Some(block) = cache.store.copy(&self.pieces) else { return false };
        let Some(next) = self.number.checked_add(1) else { return false };
        match self.is_whole && self.commit.is_none() {
            true => self.fill.put_aside(self.number, block),
            false => self.fill.put(self.number, block),
        }
        self.number = next;
        self.stored += self.held as u64;
        self.pieces.clear();
        self.held = 0;
        true
    }

    /// All has come. Whether it is stored.
    fn finish(&mut self, cache: &Cache) -> bool {
        let Some((text, mut head)) = self.commit.take() else {
            return !self.is_whole && (self.held == 0 || self.put(cache));
        };
        head.length = Some(self.at);
        if self.number == 0 {
            let Some(block) = cache.store.copy(&self.pieces) else { return false };
            head.body = Some(block);
        } else if self.held > 0 {
            let Some(block) = cache.store.copy(&self.pieces) else { return false };
            self.fill.put(self.number, block);
        }
        self.fill.try_commit(Key::of(&text), head).is_some()
    }
}

/// What the task was woken by.
enum Came {
    Frame(Option<Result<Frame<Bytes>, Broken>>),
    Unwanted,
    Silence,
}

impl Pull {
    /// Brings what is here already, and the rest in a task of its own. `length`: of all that comes,
    /// if that is known.
    ///
    /// A small answer has mostly come together with its head. By a task its body would reach the
    /// client's connection only when the head has gone, which takes a write of its own for each; what is
    /// large has to be written in parts anyway, and its first bytes are not to wait for the next ones.
    pub fn start(self, length: Option<u64>) {
        if length.is_some_and(|length| length > AT_ONCE) {
            tokio::task::spawn_local(self.run());
            return;
        }
        let mut run = Box::pin(self.run());
        // A task is polled when it begins, and says then by what it is woken.
        let mut nobody = Context::from_waker(Waker::noop());
        if run.as_mut().poll(&mut nobody).is_pending() {
            tokio::task::spawn_local(run);
        }
    }

    /// Brings it, to its end or for as long as somebody wants it.
    pub async fn run(mut self) {
        let _ends = Ends(Arc::clone(&self.flight));
        let end = self.pull().await;
        let ended_well = end.is_ok();
        match ended_well {
            true => self.connection.give_back(),
            false => drop(self.connection),
        }
        let mut kept = None;
        if let Some(mut sink) = self.sink.take() {
            let counters = &self.cache.counters;
            let counts = sink.commit.is_some();
            let stored = ended_well && sink.finish(&self.cache);
            if counts {
                match stored {
                    true => counters.stored.inc(),
                    false => counters.dropped.inc(),
                };
            }
            // What has come of it is for those who are behind.
            kept = (!stored).then_some(sink.fill);
        }
        // Found in the store before it is not found here.
        drop(self.ticket);
        self.flight.finish_with(end, kept);
    }

    async fn pull(&mut self) -> Result<(), Kind> {
        let mut wakers: Vec<Waker> = Vec::new();
        let mut timer = pin!(sleep_until(Instant::now() + self.patience));
        loop {
            if self.body.is_end_stream() {
                return Ok(());
            }
            if poll_fn(|cx| self.flight.poll_demand(cx)).await == Demand::Nobody {
                return Err(Kind::ClientGone);
            }
            // Only now: that nobody wanted more is not the server's fault.
            let deadline = Instant::now() + self.patience;
            let came = poll_fn(|cx| {
                if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
                    return Poll::Ready(Came::Frame(frame));
                }
                if self.flight.is_unwanted(cx) {
                    return Poll::Ready(Came::Unwanted);
                }
                // The timer is set again only when it has run out: most chunks come before.
                while timer.as_mut().poll(cx).is_ready() {
                    if Instant::now() >= deadline {
                        return Poll::Ready(Came::Silence);
                    }
                    timer.as_mut().reset(deadline);
                }
                Poll::Pending
            })
            .await;
            match came {
                Came::Frame(Some(Ok(frame))) => {
                    // Trailers are the first client's, which has asked for something that is
                    // not cached if they were announced.
                    if let Ok(chunk) = frame.into_data() {
                        self.took(chunk, &mut wakers);
                    }
                }
                Came::Frame(None) if self.connection.is_broken_off(&self.body, true) => {
                    return Err(Kind::ResponseBodyBroken);
                }
                Came::Frame(None) => return Ok(()),
                Came::Frame(Some(Err(_))) => {
                    let rule = self.connection.fault();
                    return Err(rule.map_or(Kind::ResponseBodyBroken, Kind::BadResponse));
                }
                Came::Unwanted => return Err(Kind::ClientGone),
                Came::Silence => return Err(Kind::ResponseBodyTimeout),
            }
        }
    }

    fn took(&mut self, chunk: Bytes, wakers: &mut Vec<Waker>) {
        let stored = self.sink.as_ref().map_or(0, |sink| sink.stored);
        self.flight.publish(chunk.clone(), stored, wakers);
        self.cache.counters.filled.inc_by(chunk.len() as u64);
        let Some(sink) = &mut self.sink else { return };
        let is_too_long = sink.at + chunk.len() as u64 > sink.most;
        if is_too_long && sink.is_whole {
            // Before its blocks are gone: nobody else is to count on them.
            self.flight.closes();
            self.ticket = None;
            if sink.commit.take().is_some() {
                self.cache.counters.dropped.inc();
            }
        }
        let goes_on = !is_too_long || sink.is_whole && self.flight.is_shared();
        if goes_on && sink.take(&self.cache, chunk) {
            if is_too_long {
                let number = self.flight.hindmost() / sink.block_bytes as u64;
                sink.fill.forget_before(u32::try_from(number).unwrap_or(u32::MAX));
            }
            return;
        }
        let Some(sink) = self.sink.take() else { return };
        self.flight.stops_storing(Some(sink.fill));
        self.ticket = None;
        if sink.commit.is_some() {
            self.cache.counters.dropped.inc();
        }
    }
}
