//! Local bypass of one tunnel: brings its applications' sockets under the programs and
//! opens each direction when it may be.
//!
//! Runs in the tunnel's task, between two turns of its lanes, while bytes still go by
//! userspace; once a direction is open its bytes wake nobody here. The lanes go on beside
//! it, and carry what the gate sends the slow way.
//!
//! **Opening.** `k` (see [`proxy_ebpf::Route`]) is taken while the lane holds no byte. The
//! own sockets' sequence numbers change by this thread alone, so they may be read one after
//! the other.
//!
//! **When.** At once: as long as a tunnel is quiet there is nothing on the slow way that
//! has to arrive first, and a sender in bulk never leaves it empty again. Then by the
//! clock ([`MOST_TRIES`]), and as bytes move. For a tunnel that is never quiet, from the
//! [`HOLD_AFTER`]th turn on the lane towards an application that has unread bytes fetches
//! no more until it has read them, for at most [`MOST_HELD`].

use std::{future::Future as _, io, pin::Pin, sync::Arc, task::Context, time::Duration};

use proxy_ebpf::{Form, Protection, Route, SocketKey};
use tokio::{
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{
    anchor::{self, Anchors},
    hop::{Excluded, Hop, State, Step},
    kernel::{Kernel, LaneSlot, RouteGuard, Set},
    meter::{Cause, Engine, Meter, Outside},
    room::Room,
    without::without,
};

/// Tries by the clock, each after twice the time of the one before, from [`HOLD`] up to a
/// second, some seconds in all: an application that was just answered (101, 200) has to read
/// that first, and one that was connected to has to accept.
const MOST_TRIES: u32 = 15;

/// Turns after which a lane is held for a tunnel that is never quiet.
const HOLD_AFTER: u32 = 8;

/// First wait while a lane is held; the next ones are longer, up to sixteen times.
const HOLD: Duration = Duration::from_millis(1);

/// Longest that a lane is held. A reader that needs longer for what is queued is not sped up
/// by another way to it.
const MOST_HELD: Duration = Duration::from_millis(100);

/// Turns before the next try after a hold that did not help.
const AFTER_HOLDING: u32 = 4096;

/// Bytes that an application may be given beyond what it has read, even if its receive
/// buffer is smaller: a new connection's holds two sends, and each time it is full the
/// sender goes the slow way until everything there has been read, which a sender in bulk rarely
/// lets come about. With the send that begins below it, about 4 MiB.
const UNREAD_BYTES: u32 = 7 << 19;

/// Most turns between two looks at an application that has yet to accept.
const MOST_BETWEEN: u32 = 256;

/// The two directions of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToUpstream = 0,
    ToDownstream = 1,
}

/// Local bypass of one tunnel.
#[derive(Debug)]
pub(crate) struct Bypass {
    kernel: Arc<Kernel>,
    /// Downstream, upstream.
    hops: [Hop; 2],
    open: [Option<Open>; 2],
    turns: u32,
    /// Tries right after the beginning.
    tries: u32,
    next_turn: u32,
    /// Lanes that fetch no more: towards the server, towards the client.
    holds: [bool; 2],
    held: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    over: bool,
}

/// A direction that bypasses, until this is dropped.
#[derive(Debug)]
pub(crate) struct Open {
    slot: Arc<LaneSlot>,
    /// For the lane beside it, until that has it.
    room: Option<Room>,
    _route: RouteGuard,
}

/// What came of it, once there is nothing left to try.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) open: [Option<Open>; 2],
    pub(crate) excluded: [Option<Excluded>; 2],
    /// Downstream, upstream: by which key the application's socket is under the programs.
    pub(super) enrolled: [Option<SocketKey>; 2],
}

impl Settled {
    /// Has the programs redirect, or pass all that comes.
    pub(super) fn set_open(&self, open: bool) {
        self.open.iter().flatten().for_each(|direction| direction.slot.set_open(open));
    }
}

impl Direction {
    /// Each at its own index.
    pub(super) const ALL: [Self; 2] = [Self::ToUpstream, Self::ToDownstream];

    /// The sending hop and the receiving one.
    pub(super) fn ends(self) -> (usize, usize) {
        match self {
            Direction::ToUpstream => (0, 1),
            Direction::ToDownstream => (1, 0),
        }
    }
}

impl Bypass {
    /// `None` where there is nothing to bypass: no hop is allowed to, or this kernel cannot.
    pub(crate) fn new(
        kernel: Arc<Kernel>,
        downstream: (&TcpStream, bool),
        upstream: (&TcpStream, bool),
        meters: [&Meter; 2],
    ) -> io::Result<Option<Self>> {
        if !downstream.1 && !upstream.1 {
            return Ok(None);
        }
        let hops = [Hop::new(downstream.0, downstream.1)?, Hop::new(upstream.0, upstream.1)?];
        let excluded = hops.iter().filter(|hop| matches!(hop.state(), State::Excluded(_))).count();
        let can = match excluded {
            0 => &kernel.abilities().bypass,
            1 => &kernel.abilities().half_bypass,
            _ => {
                show_outside(&hops, false, meters);
                return Ok(None);
            }
        };
        if can.is_err() {
            show_outside(&hops, true, meters);
            return Ok(None);
        }
        Ok(Some(Self {
            kernel,
            hops,
            open: [None, None],
            turns: 0,
            tries: 0,
            next_turn: 1,
            holds: [false; 2],
            held: Duration::ZERO,
            timer: None,
            over: false,
        }))
    }

    /// To be called before each turn of the lanes. `idle` says of each direction (towards
    /// the server, towards the client) whether its lane holds nothing and may bypass.
    /// Returns which lanes may fetch more.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        anchors: &Anchors,
        sockets: [&TcpStream; 2],
        idle: [bool; 2],
        meters: [&Meter; 2],
    ) -> [bool; 2] {
        if self.over {
            return [true; 2];
        }
        let fired = match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx).is_ready(),
            None => false,
        };
        if fired {
            self.timer = None;
            if self.holds == [false; 2] {
                self.next_turn = 0;
            }
        }
        self.turns = self.turns.saturating_add(1);
        let due = match self.holds {
            [false, false] => self.turns >= self.next_turn,
            _ => fired,
        };
        if due {
            let step = self.attempt(anchors, sockets, idle, meters).unwrap_or_else(|error| {
                tracing::debug!(%error, "local bypass");
                self.over = true;
                Step::Done
            });
            show_outside(&self.hops, false, meters);
            self.after(cx, step);
        }
        self.holds.map(|hold| !hold)
    }

    /// What comes after a try.
    fn after(&mut self, cx: &mut Context<'_>, step: Step) {
        let decided = !self.hops.iter().any(|hop| hop.state() == State::New);
        self.over |= decided
            && Direction::ALL.into_iter().all(|direction| {
                self.open[direction as usize].is_some() || self.form(direction).is_none()
            });
        if self.over {
            return self.end();
        }
        if self.holds != [false; 2] {
            if self.held < MOST_HELD {
                let wait = self.held.clamp(HOLD, 16 * HOLD);
                self.held += wait;
                self.start_timer(cx, wait);
                return;
            }
            self.holds = [false; 2];
            self.held = Duration::ZERO;
            self.next_turn = self.turns.saturating_add(AFTER_HOLDING);
            return;
        }
        self.held = Duration::ZERO;
        // A step that was taken: the next one soon.
        self.next_turn = match step {
            Step::Done => self.turns + 1,
            Step::NotReady => self.turns + (self.turns / 2).clamp(1, MOST_BETWEEN),
            Step::NotQuiet => self.turns + self.turns.clamp(1, HOLD_AFTER),
        };
        if step == Step::NotReady && self.tries == MOST_TRIES {
            self.hops.iter_mut().for_each(Hop::give_up);
            self.next_turn = 0;
        }
        if self.timer.is_none() && self.tries < MOST_TRIES {
            self.start_timer(cx, HOLD * (1 << self.tries.min(10)));
            self.tries += 1;
        }
    }

    fn start_timer(&mut self, cx: &mut Context<'_>, time: Duration) {
        let mut timer = Box::pin(sleep(time));
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.timer = Some(timer);
    }

    fn attempt(
        &mut self,
        anchors: &Anchors,
        sockets: [&TcpStream; 2],
        idle: [bool; 2],
        meters: [&Meter; 2],
    ) -> io::Result<Step> {
        let mut step = Step::Done;
        let pass = self.kernel.needs_pass();
        let mut holds = [false; 2];
        for (hop, hold) in
            self.hops.iter_mut().zip([Direction::ToDownstream, Direction::ToUpstream])
        {
            let taken = hop.advance(&self.kernel, pass)?;
            step = step.max(taken);
            holds[hold as usize] = taken == Step::NotQuiet && self.turns >= HOLD_AFTER;
        }
        for direction in Direction::ALL {
            let at = direction as usize;
            if self.open[at].is_some() {
                continue;
            }
            if idle[at] {
                self.open[at] = self.open(anchors, direction, sockets, meters[at])?;
            } else {
                holds[at] |= self.form(direction).is_some();
            }
        }
        self.holds = holds;
        Ok(step)
    }

    /// How a direction can be moved as things stand.
    fn form(&self, direction: Direction) -> Option<Form> {
        let (from, to) = direction.ends();
        let can = self.kernel.abilities();
        match (self.hops[from].state(), self.hops[to].state()) {
            (State::Ready, State::Ready) if can.bypass.is_ok() => Some(Form::Bypass),
            (State::Ready, State::Excluded(_)) if can.half_bypass.is_ok() => Some(Form::HalfBypass),
            _ => None,
        }
    }

    /// Opens a direction whose applications are ready, and whose lane holds nothing.
    fn open(
        &self,
        anchors: &Anchors,
        direction: Direction,
        sockets: [&TcpStream; 2],
        meter: &Meter,
    ) -> io::Result<Option<Open>> {
        let Some(form) = self.form(direction) else { return Ok(None) };
        let (from, to) = direction.ends();
        let (sender, receiver) = (&self.hops[from], &self.hops[to]);
        let Some(slot) = meter.slot(&self.kernel) else { return Ok(None) };
        if form == Form::HalfBypass {
            anchors.hold(to, sockets[to])?;
            anchor::widen(sockets[to])?;
        }
        let (near, far) = (sender.look(&self.kernel)?, receiver.look(&self.kernel)?);
        if near.own.address == 0 || far.own.address == 0 {
            return Ok(None);
        }
        let moved = slot.moved_bytes() as u32;
        let (address, k) = match form {
            Form::HalfBypass => {
                let arrived = far.own.write_seq.wrapping_sub(moved);
                (far.own.address, near.own.copied_seq.wrapping_sub(arrived))
            }
            _ => (receiver.application(), near.own.copied_seq.wrapping_sub(far.own.write_seq)),
        };
        let route = Route {
            target: receiver.key(),
            receiver: address,
            sender: sender.application(),
            form: form as u32,
            lane: slot.index(),
            k,
            budget_bytes: UNREAD_BYTES,
        };
        let route = self.kernel.route(route)?;
        // Before the first message: each one counts.
        let room = (form == Form::Bypass)
            .then(|| Room::new(Arc::clone(&self.kernel), Arc::clone(&slot), address));
        slot.set_open(true);
        let engine = match form {
            Form::HalfBypass => Engine::HalfBypass,
            _ => Engine::Bypass,
        };
        meter.show_kernel(Some(engine), Cause::Local);
        Ok(Some(Open { slot, room, _route: route }))
    }

    /// What the lane of a direction has to heed from now on, once.
    pub(super) fn take_room(&mut self, direction: Direction) -> Option<Room> {
        self.open[direction as usize].as_mut()?.room.take()
    }

    /// What there is, if nothing more will come.
    pub(crate) fn settled(&mut self) -> Option<Settled> {
        // A protection that is taken away at the end needs all of this then.
        if !self.over || without(Protection::Entry) {
            return None;
        }
        let (excluded, enrolled) = (self.excluded(), self.enrolled());
        Some(Settled { open: std::mem::take(&mut self.open), excluded, enrolled })
    }

    /// By which keys the applications' sockets are under the programs.
    pub(super) fn enrolled(&self) -> [Option<SocketKey>; 2] {
        self.hops.each_ref().map(|hop| (hop.state() == State::Ready).then(|| hop.key()))
    }

    /// What has not been opened by now stays closed.
    pub(super) fn end(&mut self) {
        self.over = true;
        self.holds = [false; 2];
        self.timer = None;
    }

    /// Why a hop stays out, for `/tunnels`.
    pub(crate) fn excluded(&self) -> [Option<Excluded>; 2] {
        [0, 1].map(|at| match self.hops[at].state() {
            State::Excluded(excluded) => Some(excluded),
            _ => None,
        })
    }
}

/// Says of each direction why it is not bypassed: for want of its sender's socket, or else
/// of its receiver's.
fn show_outside(hops: &[Hop; 2], unable: bool, meters: [&Meter; 2]) {
    let excluded = |at: usize| match hops[at].state() {
        State::Excluded(excluded) if at == 0 => Some(Outside::Client(excluded)),
        State::Excluded(excluded) => Some(Outside::Server(excluded)),
        _ => None,
    };
    for direction in Direction::ALL {
        let (from, to) = direction.ends();
        let outside = match unable {
            true => Some(Outside::Unable),
            false => excluded(from).or_else(|| excluded(to)),
        };
        meters[direction as usize].show_outside(outside);
    }
}

impl Open {
    /// Messages that have bypassed.
    pub(super) fn messages(&self) -> u64 {
        self.slot.moved_messages()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Before the route goes: a redirect that is decided now still finds its receiver.
        self.slot.set_open(false);
    }
}

impl Drop for Bypass {
    fn drop(&mut self) {
        if without(Protection::Entry) {
            for key in self.hops.each_ref().map(Hop::key) {
                self.kernel.expel(Set::Passed, key);
                self.kernel.expel(Set::Apps, key);
            }
        }
    }
}
