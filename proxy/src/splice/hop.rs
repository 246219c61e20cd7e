//! One connection of a tunnel, seen from both ends: whether the application at the other
//! end is on this host, and how its socket comes under the programs.
//!
//! **Whose sockets.** The program finds the other end by our own connection's addresses the
//! other way round, and compares sequence numbers; so what is enrolled is connected to us.
//!
//! **Only sockets with O_NONBLOCK.** A call to `recv` that began before its socket was
//! enrolled waits for TCP's queue and never sees what bypasses it; and one that begins
//! later returns EAGAIN at the first wake-up that brings it nothing, of which a connection
//! in use both ways has many (`tcp_bpf_recvmsg`, seen on 6.18). No application expects that
//! of a socket in blocking mode. With O_NONBLOCK nobody waits inside `recv`. A connection
//! that is not accepted yet has no descriptor to tell by, and many applications set the
//! flag only then: it is asked about again for a while.
//!
//! **Not one that waits for more than a byte (SO_RCVLOWAT).** It would be woken for any byte that
//! bypasses TCP, and under `up_pass` read nothing before as many are there. The gate sees to those
//! that set it later.
//!
//! **One queue.** Kernels 6.6.128, 6.12.75, 6.18.14, 6.19 and later answer FIONREAD from the psock
//! alone (929e30f93125), some of the latest from both queues. And a read takes from one of them:
//! readers that take a short one for the last (tokio, nginx) would leave what came by TCP behind
//! what bypassed it. So the whole input goes by the psock (`up_pass`), where the probe finds that
//! it helps. A segment
//! read in part must not meet that program, or it is delivered again: such a socket is
//! enrolled at a moment when its application has read everything that we have written;
//! nobody but us writes to it.

use std::{io, net::SocketAddr};

use proxy_ebpf::{HopReport, Protection, SocketKey, hop};
use rustix::fs::OFlags;
use tokio::net::TcpStream;

use super::{
    kernel::{Kernel, Set},
    without::without,
};

/// A connection of ours and the application at its other end.
#[derive(Debug)]
pub(super) struct Hop {
    own: SocketAddr,
    peer: SocketAddr,
    key: SocketKey,
    state: State,
    /// Address of the application's socket in the kernel.
    application: u64,
}

/// How far the application's socket is enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Never will be.
    Excluded(Excluded),
    /// Not yet.
    New,
    /// May send and receive past TCP.
    Ready,
}

/// Why an application's socket stays out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excluded {
    /// Bypass was not asked for on this hop.
    NotAllowed,
    /// The other end is on another host or in another network namespace.
    Remote,
    /// The socket found has other sequence numbers: there is address translation between.
    Translated,
    /// The kernel refused: another sockmap has it, or TLS is in the kernel.
    Refused,
    /// The application uses the socket in blocking mode.
    Blocking,
    /// The application wants to be woken for more than a byte (SO_RCVLOWAT).
    LowWater,
}

/// What one step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// State changed, or there is nothing to do.
    Done,
    /// The application has not accepted the connection, or not set O_NONBLOCK, yet.
    NotReady,
    /// The application has not read everything yet.
    NotQuiet,
}

impl Hop {
    /// The hop of `socket`, one of ours.
    pub(super) fn new(socket: &TcpStream, allowed: bool) -> io::Result<Self> {
        let (own, peer) = (socket.local_addr()?, socket.peer_addr()?);
        let key = rustix::net::sockopt::socket_cookie(socket)?;
        let (own_ip, peer_ip) = (own.ip().to_canonical(), peer.ip().to_canonical());
        // A connection within a host has both ends on loopback, or one address twice.
        let state = if !(peer_ip.is_loopback() || peer_ip == own_ip) {
            State::Excluded(Excluded::Remote)
        } else if !allowed {
            State::Excluded(Excluded::NotAllowed)
        } else {
            State::New
        };
        Ok(Self { own, peer, key, state, application: 0 })
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn key(&self) -> SocketKey {
        self.key
    }

    /// Address of the application's socket, once it was found.
    pub(super) fn application(&self) -> u64 {
        self.application
    }

    /// Where both ends stand.
    pub(super) fn look(&self, kernel: &Kernel) -> io::Result<HopReport> {
        kernel.look(self.own, self.peer, 0, self.key)
    }

    /// Ends the waiting for an application that does not get ready.
    pub(super) fn give_up(&mut self) {
        if self.state == State::New {
            self.state = State::Excluded(Excluded::Blocking);
        }
    }

    /// Goes on towards `Ready`. `pass`: whether its input is to go by `up_pass`.
    pub(super) fn advance(&mut self, kernel: &Kernel, pass: bool) -> io::Result<Step> {
        if self.state != State::New {
            return Ok(Step::Done);
        }
        let report = self.look(kernel)?;
        if let Some(excluded) = verdict(&report) {
            self.state = State::Excluded(excluded);
            return Ok(Step::Done);
        }
        if report.peer_accepted == 0 {
            return Ok(Step::NotReady);
        }
        let blocks = report.peer_file_flags & OFlags::NONBLOCK.bits() == 0;
        if blocks && !without(Protection::Nonblocking) {
            // Many applications set it right after accept(2).
            return Ok(Step::NotReady);
        }
        if report.peer_receive_low_water > 1 && !without(Protection::LowWater) {
            self.state = State::Excluded(Excluded::LowWater);
            return Ok(Step::Done);
        }
        self.application = report.peer.address;
        let action = match pass && !without(Protection::Pass) {
            true => hop::ENROLL_MSG | hop::ENROLL_PASS | hop::IF_QUIET,
            false => hop::ENROLL_MSG,
        };
        let report = kernel.look(self.own, self.peer, action, self.key)?;
        match report.status {
            hop::NOT_QUIET => return Ok(Step::NotQuiet),
            // Gone since the look before: a listener is what is left to be found, and nothing was done.
            hop::NOT_YET => return Ok(Step::NotReady),
            _ => {}
        }
        self.state = match verdict(&report) {
            Some(excluded) if !without(Protection::Refusal) => {
                // Nothing has been redirected to it, so what was done may be undone.
                kernel.expel(Set::Passed, self.key);
                kernel.expel(Set::Apps, self.key);
                State::Excluded(excluded)
            }
            _ => State::Ready,
        };
        Ok(Step::Done)
    }
}

fn verdict(report: &HopReport) -> Option<Excluded> {
    match report.status {
        // One that is not there yet has not been accepted either.
        0 | hop::NOT_QUIET | hop::NOT_YET => None,
        hop::NO_OWN | hop::NO_PEER => Some(Excluded::Remote),
        hop::NOT_OURS => Some(Excluded::Translated),
        _ => Some(Excluded::Refused),
    }
}
