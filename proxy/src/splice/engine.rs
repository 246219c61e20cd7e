//! One direction of a tunnel: bytes from one end to the other, by whichever engine.
//!
//! Invariant (see `mod.rs`): filled only when nothing is held. The end of the source is
//! passed on (shutdown) after the last byte; a fault ends the lane and drops what it held.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use proxy_ebpf::Protection;

use crate::config::SpliceMode;

use super::{
    TURN_BYTES,
    buffer::Buffer,
    copy,
    endpoint::Endpoint,
    meter::{Engine, Meter},
    picker::Picker,
    pipe, pipe_pool,
    redirect::{Redirect, lost},
    room::{Room, What},
    why::Why,
    without::without,
};

/// One direction.
#[derive(Debug)]
pub(crate) struct Lane {
    held: Held,
    stage: Stage,
    picker: Picker,
    /// Whether the end of the source is told to the other side.
    passes_end: bool,
    /// Whether it may fetch more.
    fills: bool,
    /// Bytes handed on since somebody asked.
    moved: usize,
    beside: Beside,
}

/// What the kernel moves of the direction.
#[derive(Debug)]
enum Beside {
    Nothing,
    /// Between our own sockets.
    Redirect(Box<Redirect>),
    /// Between applications.
    Bypass(Box<Room>),
}

/// Why a lane could not go on, by the end that failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Reading.
    From(io::Error),
    /// Writing.
    To(io::Error),
}

/// The one container of bytes.
#[derive(Debug)]
enum Held {
    Nothing,
    /// Read by others, before the lane began.
    Early(Bytes),
    Buffer(Buffer),
    Pipe(pipe_pool::Pooled),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Moving,
    /// The source has ended, the other side has yet to be told.
    Ending,
    Done,
}

impl Lane {
    /// A lane that sends `early` before anything that it reads. `must_copy`: why engine `copy`
    /// is the only one, if so.
    pub(crate) fn new(
        mode: SpliceMode,
        must_copy: Option<Why>,
        early: Bytes,
        meter: &Meter,
    ) -> Self {
        let picker = Picker::new(mode, must_copy);
        let (engine, why) = picker.engine();
        meter.show(engine, why);
        let nothing = early.is_empty() || without(Protection::Early);
        let held = if nothing { Held::Nothing } else { Held::Early(early) };
        Self {
            held,
            stage: Stage::Moving,
            picker,
            passes_end: true,
            fills: true,
            moved: 0,
            beside: Beside::Nothing,
        }
    }

    /// What stands in the way of other engines than `copy` has changed.
    pub(crate) fn settle(&mut self, mode: SpliceMode, must_copy: Option<Why>, meter: &Meter) {
        self.picker = Picker::new(mode, must_copy);
        let (engine, why) = self.picker.engine();
        meter.settle(engine, why);
    }

    /// Whether all has been said, or the lane has failed.
    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Bytes handed on since the last call.
    pub(crate) fn take_moved(&mut self) -> usize {
        std::mem::take(&mut self.moved)
    }

    /// Whether it holds no byte and more may come.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_empty() && self.stage == Stage::Moving
    }

    fn is_empty(&self) -> bool {
        match &self.held {
            Held::Nothing => true,
            Held::Early(bytes) => bytes.is_empty(),
            Held::Buffer(buffer) => buffer.is_empty(),
            Held::Pipe(pipe) => pipe.is_empty(),
        }
    }

    /// From now on the kernel moves what it can; the lane has to be idle.
    pub(crate) fn join(&mut self, redirect: Redirect) {
        debug_assert!(self.is_idle() && matches!(self.beside, Beside::Nothing));
        self.beside = Beside::Redirect(Box::new(redirect));
    }

    /// From now on bytes of this direction may bypass this process.
    pub(crate) fn goes_beside(&mut self, room: Room) {
        debug_assert!(self.redirect().is_none());
        self.beside = Beside::Bypass(Box::new(room));
    }

    /// The kernel's share of the direction.
    pub(crate) fn redirect(&mut self) -> Option<&mut Redirect> {
        match &mut self.beside {
            Beside::Redirect(redirect) => Some(redirect),
            _ => None,
        }
    }

    /// Whether what it carries is not bulk, as far as it can tell.
    pub(crate) fn carries_messages(&self) -> bool {
        self.picker.engine().0 == Engine::Copy
    }

    /// Whether what it carries is bulk, as far as it can tell.
    pub(crate) fn carries_bulk(&self) -> bool {
        self.picker.engine().0 == Engine::Pipe
    }

    /// Whether the kernel may write on the socket that it leads to.
    pub(crate) fn is_redirected(&self) -> bool {
        matches!(self.beside, Beside::Redirect(_))
    }

    /// Ready when the kernel has sent everything that it was given to redirect.
    pub(crate) fn poll_clear<T: Endpoint>(
        &mut self,
        cx: &mut Context<'_>,
        to: &T,
    ) -> Poll<io::Result<()>> {
        match (&mut self.beside, to.tcp()) {
            (Beside::Redirect(redirect), Some(to)) => redirect.poll_clear(cx, to.stream()),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Ready when nothing that the kernel moves is in the way of a write, or of the end.
    fn poll_free<T: Endpoint>(
        &mut self,
        cx: &mut Context<'_>,
        to: &T,
        what: What,
    ) -> Poll<io::Result<()>> {
        match (&mut self.beside, to.tcp()) {
            (Beside::Bypass(room), Some(to)) => room.poll(cx, to.stream(), what),
            _ => self.poll_clear(cx, to),
        }
    }

    /// Lets it fetch more, or only send what it holds. To be followed by a poll.
    pub(crate) fn set_fills(&mut self, fills: bool) {
        self.fills = fills;
    }

    /// From now on the end of the source is not told to the other side: it is not a clean one.
    pub(crate) fn conceal_end(&mut self) {
        self.passes_end = false;
        if self.stage == Stage::Ending {
            self.stage = Stage::Done;
        }
    }

    /// Moves what can be moved, up to [`TURN_BYTES`]. Ready when the source has ended and
    /// the other side has been told; not to be polled again after a fault.
    pub(crate) fn poll<F: Endpoint, T: Endpoint>(
        &mut self,
        cx: &mut Context<'_>,
        from: &F,
        to: &T,
        meter: &Meter,
    ) -> Poll<Result<(), Fault>> {
        let mut turn = 0;
        loop {
            let step = match self.stage {
                Stage::Done => return Poll::Ready(Ok(())),
                Stage::Ending if without(Protection::Clear) => {
                    to.poll_shutdown(cx).map_err(Fault::To).map_ok(|()| Stage::Done)
                }
                Stage::Ending => match self.poll_free(cx, to, What::End) {
                    Poll::Ready(Ok(())) => {
                        to.poll_shutdown(cx).map_err(Fault::To).map_ok(|()| Stage::Done)
                    }
                    other => other.map_err(Fault::To).map_ok(|()| Stage::Done),
                },
                Stage::Moving => self.poll_move(cx, from, to, meter, &mut turn),
            };
            match ready!(step) {
                Ok(stage) => self.stage = stage,
                Err(fault) => {
                    self.stage = Stage::Done;
                    self.held = Held::Nothing;
                    return Poll::Ready(Err(fault));
                }
            }
        }
    }

    /// Sends what is held, then fetches more. Ready with what comes next.
    fn poll_move<F: Endpoint, T: Endpoint>(
        &mut self,
        cx: &mut Context<'_>,
        from: &F,
        to: &T,
        meter: &Meter,
        turn: &mut usize,
    ) -> Poll<Result<Stage, Fault>> {
        while let Some((engine, sent)) = ready!(self.poll_drain(cx, to)).map_err(Fault::To)? {
            meter.add(engine, sent);
            self.moved += sent;
            *turn += sent;
            if let Some(redirect) = self.redirect() {
                redirect.wrote(sent);
            }
        }
        if *turn >= TURN_BYTES {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.fills {
            return Poll::Pending;
        }
        let (engine, why) = match self.beside {
            // What the program passed is where splice(2) does not look.
            Beside::Redirect(_) => (Engine::Copy, None),
            _ => self.picker.engine(),
        };
        let filled = ready!(self.poll_fill(cx, from, engine)).map_err(Fault::From)?;
        if self.redirect().is_none() && self.picker.engine() != (engine, why) {
            let (engine, why) = self.picker.engine();
            meter.show(engine, why);
        }
        Poll::Ready(Ok(match filled {
            Filled::Some | Filled::OtherEngine => Stage::Moving,
            Filled::End if self.passes_end => Stage::Ending,
            Filled::End => Stage::Done,
        }))
    }

    /// Writes once; `None` when nothing is held.
    fn poll_drain<T: Endpoint>(
        &mut self,
        cx: &mut Context<'_>,
        to: &T,
    ) -> Poll<io::Result<Option<(Engine, usize)>>> {
        if !self.is_empty() && !without(Protection::Overtaking) {
            ready!(self.poll_free(cx, to, What::Bytes))?;
        }
        let sent = match &mut self.held {
            Held::Early(bytes) if !bytes.is_empty() => {
                let n = ready!(to.poll_write(cx, bytes))?;
                bytes.advance(n);
                (Engine::Copy, n)
            }
            Held::Buffer(buffer) if !buffer.is_empty() => {
                (Engine::Copy, ready!(copy::poll_drain(cx, to, buffer))?)
            }
            Held::Pipe(pipe) if !pipe.is_empty() => {
                let socket = to.spliced().expect("a pipe leads to a socket");
                let sent = ready!(pipe.poll_drain(cx, socket))?;
                to.gave(sent);
                (Engine::Pipe, sent)
            }
            _ => return Poll::Ready(Ok(None)),
        };
        Poll::Ready(Ok(Some(sent)))
    }

    /// Reads once. On `Pending` nothing is held: buffer or pipe are back in their pool.
    fn poll_fill<F: Endpoint>(
        &mut self,
        cx: &mut Context<'_>,
        from: &F,
        engine: Engine,
    ) -> Poll<io::Result<Filled>> {
        match (engine, std::mem::replace(&mut self.held, Held::Nothing)) {
            (Engine::Copy, held) => {
                let held = if let Held::Buffer(buffer) = held { Some(buffer) } else { None };
                let Some(buffer) = ready!(copy::poll_fill(cx, from, held))? else {
                    if let Some(redirect) = self.redirect() {
                        // The end is told while passed bytes are still on their way here.
                        ready!(redirect.poll_received(cx));
                    }
                    return Poll::Ready(match self.redirect() {
                        Some(redirect) if redirect.owes() => Ok(Filled::OtherEngine),
                        Some(redirect) if redirect.has_lost() => Err(lost()),
                        _ => Ok(Filled::End),
                    });
                };
                self.picker.filled(engine, buffer.pending().len());
                self.held = Held::Buffer(buffer);
            }
            (_, held) => {
                ready!(from.poll_readable(cx))?;
                let mut pipe = match held {
                    Held::Pipe(pipe) => pipe,
                    _ => match pipe_pool::take() {
                        Ok(pipe) => pipe,
                        Err(_) => {
                            self.picker.no_pipe();
                            return Poll::Ready(Ok(Filled::OtherEngine));
                        }
                    },
                };
                if from.has_records() && !pipe.holds_a_record() {
                    self.picker.no_pipe();
                    return Poll::Ready(Ok(Filled::OtherEngine));
                }
                let socket = from.spliced().expect("a pipe comes from a socket");
                match ready!(pipe.poll_fill(cx, socket)) {
                    // The end, or a record that is no data.
                    Ok(0) if from.has_records() => {
                        return self.poll_fill(cx, from, Engine::Copy);
                    }
                    Err(error) if from.has_records() && pipe::is_unsupported(&error) => {
                        return self.poll_fill(cx, from, Engine::Copy);
                    }
                    Err(error) if pipe::is_stuck(&error) => {
                        self.picker.no_splice(Why::Urgent);
                        return Poll::Ready(Ok(Filled::OtherEngine));
                    }
                    Ok(0) => return Poll::Ready(Ok(Filled::End)),
                    Ok(n) => self.picker.filled(engine, n),
                    Err(error) if pipe::is_unsupported(&error) => {
                        self.picker.no_splice(Why::NoSplice);
                        return Poll::Ready(Ok(Filled::OtherEngine));
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
                self.held = Held::Pipe(pipe);
            }
        }
        Poll::Ready(Ok(Filled::Some))
    }
}

/// What came of a fill.
enum Filled {
    Some,
    End,
    /// Nothing yet: the engine is not to be had, the picker knows.
    OtherEngine,
}
