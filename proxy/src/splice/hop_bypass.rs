//! Local bypass of one connection: between this process and an application of this host,
//! inspected HTTP goes past TCP.
//!
//! Both ends of the connection come under `up_msg`, the application's as for a tunnel
//! (`hop.rs`), ours beside it, and each is the other's target. The gate is that of tunnels with
//! `k = 0`: bytes bypass TCP only when everything sent before has been read. What it refuses
//! takes TCP's way, as if nothing were there; neither side has to know.
//!
//! **When.** Enrolment takes several system calls and pays only for a connection that is kept,
//! so it is tried before the second message of ours, then before the fourth, the eighth and so
//! on up to the 256th: an application may have yet to accept, or to read. At the beginning
//! of a message a peer that speaks HTTP in turns has read what came before. HTTP/2 has no turns: each
//! write may be such a beginning, and the programs tell whether it is.
//!
//! **Reading.** Our socket has two queues from then on, TCP's and the psock's, and a read takes
//! from one of them only, the psock's first: one that comes short does not show that nothing is
//! left. That both hold something takes a message that was refused behind one that was not. The
//! program counts those ([`HopBypass::one_queue_is_empty`]), which saves the reader the call
//! that would only find EAGAIN.
//!
//! **The end.** The application's socket stays where it is until that closes it, as for
//! tunnels; our end goes with our socket, which has to be closed first.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use proxy_ebpf::{Form, Protection, Route, SocketKey};
use tokio::net::TcpStream;

use super::{
    hop::{Hop, State, Step},
    kernel::{Enrolled, Kernel, LaneSlot, RouteGuard, Set},
    without::without,
};

/// Our own messages before the one that enrolment is tried at first.
const FIRST_TURN: u32 = 2;

/// And the last that it is tried at.
const LAST_TURN: u32 = 256;

/// Makes of a cookie the key of the end that is ours: the application's goes by the cookie
/// itself. Cookies are counted from 1 and never get there.
const OWN_END: SocketKey = 1 << 63;

/// Which connection of a proxied exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// With a client.
    Downstream = 0,
    /// With a server.
    Upstream = 1,
}

/// What all connections of a side have done.
#[derive(Debug)]
pub struct Figures {
    open: AtomicI64,
    opened: AtomicU64,
    bytes: [AtomicU64; 2],
}

static FIGURES: [Figures; 2] = [const {
    Figures {
        open: AtomicI64::new(0),
        opened: AtomicU64::new(0),
        bytes: [const { AtomicU64::new(0) }; 2],
    }
}; 2];

impl Figures {
    /// Those of a side.
    pub fn of(side: Side) -> &'static Self {
        &FIGURES[side as usize]
    }

    /// Connections that bypass TCP now.
    pub fn open(&self) -> i64 {
        self.open.load(Relaxed)
    }

    /// Connections that have begun to.
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Bytes received by us past TCP, and sent. Those of open connections are added now and
    /// then, every 64 messages.
    pub fn bytes(&self) -> [u64; 2] {
        self.bytes.each_ref().map(|bytes| bytes.load(Relaxed))
    }
}

/// Messages between two additions to the [`Figures`].
const REPORT: u32 = 64;

/// One connection's share.
#[derive(Debug, Default)]
pub struct HopBypass(Stage);

#[derive(Debug, Default)]
enum Stage {
    /// Not allowed, not to be had, or given up.
    #[default]
    Off,
    /// Not yet.
    Waiting {
        kernel: Arc<Kernel>,
        side: Side,
        turns: u32,
    },
    On(Box<On>),
}

/// Dropped in this order: first nothing new is redirected, then our end leaves.
#[derive(Debug)]
struct On {
    side: Side,
    turns: u32,
    /// To us, from us.
    paths: [Path; 2],
    /// Messages that came by TCP when both queues were found empty last.
    by_tcp: Option<u64>,
    _own: Enrolled,
}

/// One direction.
#[derive(Debug)]
struct Path {
    slot: LaneSlot,
    reported: u64,
    _route: RouteGuard,
}

impl HopBypass {
    /// For a fresh connection. `kernel` where bypass is allowed on it.
    pub fn new(kernel: Option<&Arc<Kernel>>, side: Side) -> Self {
        match kernel {
            Some(kernel) if kernel.abilities().bypass.is_ok() => {
                Self(Stage::Waiting { kernel: Arc::clone(kernel), side, turns: 0 })
            }
            _ => Self::default(),
        }
    }

    /// Whether bytes may bypass TCP on it.
    pub fn is_on(&self) -> bool {
        matches!(self.0, Stage::On(_))
    }

    /// Messages to us that the program has sent by TCP.
    pub fn received_by_tcp(&self) -> u64 {
        match &self.0 {
            Stage::On(on) => on.paths[0].slot.refused().iter().sum(),
            _ => 0,
        }
    }

    /// A read has found EAGAIN. `by_tcp`: [`Self::received_by_tcp`] before it.
    pub fn both_queues_are_empty(&mut self, by_tcp: u64) {
        if let Stage::On(on) = &mut self.0 {
            on.by_tcp = Some(by_tcp);
        }
    }

    /// Whether a read that came short has left nothing behind.
    pub fn one_queue_is_empty(&self) -> bool {
        match &self.0 {
            Stage::On(on) => on.by_tcp == Some(self.received_by_tcp()),
            _ => false,
        }
    }

    /// To be called before a message of ours begins on `stream`.
    pub fn turn(&mut self, stream: &TcpStream) {
        match &mut self.0 {
            Stage::Off => {}
            Stage::On(on) => on.turn(),
            Stage::Waiting { kernel, side, turns } => {
                *turns += 1;
                let is_due = *turns >= FIRST_TURN && turns.is_power_of_two();
                if !is_due && !without(Protection::Kept) {
                    return;
                }
                match On::begin(kernel, *side, stream) {
                    Ok(Some(on)) => self.0 = Stage::On(Box::new(on)),
                    Ok(None) if *turns < LAST_TURN => {}
                    Ok(None) => self.0 = Stage::Off,
                    Err(error) => {
                        tracing::debug!(%error, "local bypass of a connection");
                        self.0 = Stage::Off;
                    }
                }
            }
        }
    }
}

impl On {
    /// `None`: not now.
    ///
    /// # Errors
    /// Where it never will be: why the application stays out, or what the kernel said.
    fn begin(kernel: &Arc<Kernel>, side: Side, stream: &TcpStream) -> io::Result<Option<Self>> {
        let mut hop = Hop::new(stream, true)?;
        let step = hop.advance(kernel, kernel.needs_pass())?;
        match (hop.state(), step) {
            (State::Excluded(excluded), _) => {
                return Err(io::Error::other(format!("{excluded:?}")));
            }
            (State::New, Step::NotReady | Step::NotQuiet | Step::Done) => return Ok(None),
            (State::Ready, _) => {}
        }
        let (Some(to_us), Some(from_us)) = (kernel.lane(), kernel.lane()) else {
            return Err(io::Error::other("all lanes are in use"));
        };
        let own = hop.look(kernel)?.own.address;
        if own == 0 {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let own_key = hop.key() | OWN_END;
        let enrolled = kernel.enroll_as(own_key, Set::Apps, stream)?;
        let path = |slot: LaneSlot, sender, receiver, target| {
            let route = kernel.route(Route {
                target,
                receiver,
                sender,
                form: Form::Hop as u32,
                lane: slot.index(),
                k: 0,
                budget_bytes: 0,
            })?;
            slot.set_open(true);
            io::Result::Ok(Path { slot, reported: 0, _route: route })
        };
        let paths = [
            path(to_us, hop.application(), own, own_key)?,
            path(from_us, own, hop.application(), hop.key())?,
        ];
        let figures = Figures::of(side);
        figures.open.fetch_add(1, Relaxed);
        figures.opened.fetch_add(1, Relaxed);
        Ok(Some(Self { side, turns: 0, paths, by_tcp: None, _own: enrolled }))
    }

    fn turn(&mut self) {
        self.turns += 1;
        if self.turns.is_multiple_of(REPORT) {
            self.report();
        }
    }

    fn report(&mut self) {
        for (path, total) in self.paths.iter_mut().zip(&Figures::of(self.side).bytes) {
            let moved = path.slot.moved_bytes();
            total.fetch_add(moved - std::mem::replace(&mut path.reported, moved), Relaxed);
        }
    }
}

impl Drop for On {
    fn drop(&mut self) {
        self.report();
        Figures::of(self.side).open.fetch_sub(1, Relaxed);
        for path in &self.paths {
            path.slot.set_open(false);
        }
    }
}
