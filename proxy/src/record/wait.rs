//! Traffic that waits for the disk, in the mode `standard`: for room before anything of an
//! exchange comes, and for the disk before the last of its answer goes.
//!
//! Nobody waits for ever. An exchange whose wait was in vain goes on as in the mode
//! `zero_latency` until its end; and where nothing at all was written meanwhile, the lane knows
//! that the disk stands still, and nobody else begins to wait until something is written again.
//! Nobody waits for what the writer cannot free: an exchange that is not known to be recorded
//! has its memory elsewhere (`lane.rs`).
//!
//! Implements: REQ-REC-004

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Sleep, sleep};

use super::{event::Side, lane::Lane, tap::Recording};
use crate::config::record::RecordMode;

/// One wait at a time of one task: two tasks with one timer would wake only the last of them.
#[derive(Debug, Default)]
pub(super) struct Patience(RefCell<Option<Waiting>>);

#[derive(Debug)]
struct Waiting {
    timer: Pin<Box<Sleep>>,
    /// What the lane had written when it began.
    written: u64,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// With what was waited for, or because there is no hope of it.
    Over,
    /// `max_wait` has passed.
    InVain,
}

impl Patience {
    fn poll(
        &self,
        lane: &Lane,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&Context<'_>) -> Poll<()>,
    ) -> Poll<Outcome> {
        let mut waiting = self.0.borrow_mut();
        if poll(cx).is_ready() {
            *waiting = None;
            return Poll::Ready(Outcome::Over);
        }
        let one = waiting.get_or_insert_with(|| Waiting {
            timer: Box::pin(sleep(lane.shared.config.max_wait)),
            written: lane.written(),
        });
        if one.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        lane.waited_in_vain(one.written);
        *waiting = None;
        Poll::Ready(Outcome::InVain)
    }

    /// Whether somebody waits.
    fn is_on(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// There is nothing to wait for any more.
    fn stop(&self) {
        *self.0.borrow_mut() = None;
    }
}

impl Lane {
    fn is_standard(&self) -> bool {
        self.shared.config.mode == RecordMode::Standard
    }

    /// Resolves when an exchange may begin: at once in the mode `zero_latency`.
    pub async fn room(&self) {
        if !self.is_standard() {
            return;
        }
        let patience = Patience::default();
        poll_fn(|cx| patience.poll(self, cx, |cx| self.poll_below(cx))).await;
    }
}

impl Recording {
    /// Whether traffic waits for this one.
    pub(super) fn waits(&self) -> bool {
        self.lane.is_standard() && self.is_decided() && !self.gave_up.get()
    }

    /// Resolves when something may come in this direction; at once in the mode `zero_latency`.
    pub fn poll_room(&self, side: Side, cx: &mut Context<'_>) -> Poll<()> {
        if !self.lane.is_standard() {
            return Poll::Ready(());
        }
        self.patiently(side, cx, |cx| self.lane.poll_below(cx))
    }

    /// Whether a direction is held back at present.
    pub fn is_held(&self, side: Side) -> bool {
        self.patience[side as usize].is_on()
    }

    /// Resolves when all that has come so far is written; at once in the mode `zero_latency`.
    pub fn poll_written(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.lane.is_standard() {
            return Poll::Ready(());
        }
        let last = self.last.get();
        self.patiently(Side::Response, cx, |cx| self.lane.poll_written(last, cx))
    }

    /// Keeps the last frame of an answer, or its end, until everything is written. Gives it back
    /// where there is nothing to wait for.
    pub fn keep(&self, frame: Option<Frame<Bytes>>) -> Option<Option<Frame<Bytes>>> {
        if !self.waits() {
            return Some(frame);
        }
        *self.kept.borrow_mut() = Some(frame);
        None
    }

    /// Whether a last frame is kept.
    pub fn keeps(&self) -> bool {
        self.kept.borrow().is_some()
    }

    /// The frame that is kept, once everything is written; at once `None` where none is.
    pub fn poll_kept(&self, cx: &mut Context<'_>) -> Poll<Option<Option<Frame<Bytes>>>> {
        if !self.keeps() {
            return Poll::Ready(None);
        }
        self.poll_written(cx).map(|()| self.kept.borrow_mut().take())
    }

    fn patiently(
        &self,
        side: Side,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&Context<'_>) -> Poll<()>,
    ) -> Poll<()> {
        if !self.waits() {
            // The other direction may have given up meanwhile.
            self.patience[side as usize].stop();
            return Poll::Ready(());
        }
        self.patience[side as usize].poll(&self.lane, cx, poll).map(|outcome| {
            if outcome == Outcome::InVain {
                self.gave_up.set(true);
            }
        })
    }
}
