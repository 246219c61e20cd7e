//! One connection of a tunnel, seen from both ends: whether the application at the other
//! end is on this host, and how its socket comes under the programs.
//!
//! **Whose sockets.** The program finds the other end by our own connection's addresses the
//! other way round, and compares sequence numbers; so what is enrolled is connected to us.
//!
//! **Readers.** A call to `recv` that began before its socket was enrolled waits for TCP's
//! queue and would never see what bypasses it. So nothing is redirected to a receiver before
//! it is known to have come back: a descriptor with O_NONBLOCK never waits inside `recv`;
//! a connection that is not accepted yet has no reader; any other has to read something after it was enrolled (its `copied_seq` moves), and its
//! next call is the new kind.
//!
//! **FIONREAD.** Kernels 6.6.128, 6.12.75, 6.18.14, 6.19 and later answer it from the psock
//! alone (929e30f93125). There the whole input has to go by the psock (`up_pass`). A segment
//! read in part must not meet that program, or it is delivered again: such a socket is
//! enrolled at a moment when its application has read everything that we have written;
//! nobody but us writes to it.

use std::{io, net::SocketAddr, sync::Arc};

use proxy_ebpf::{HopReport, SocketKey, hop};
use rustix::fs::OFlags;
use tokio::net::TcpStream;

use super::kernel::{Kernel, Set};

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
    /// Under `up_msg`; its reader has to come back from a call that may have begun before.
    Entered {
        /// What it had read then.
        copied_seq: u32,
    },
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
    /// The application did not read while it was being enrolled.
    Stalled,
}

/// What one step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// State changed, or there is nothing to do.
    Done,
    /// The application has not read anything since it was enrolled.
    NotRead,
    /// The application has not read everything yet.
    NotQuiet,
}

impl State {
    /// Whether what it sends may be redirected.
    pub(super) fn sends(self) -> bool {
        matches!(self, State::Entered { .. } | State::Ready)
    }
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

    /// Goes one step towards `Ready`. `pass`: this kernel's FIONREAD wants `up_pass`.
    /// `receives`: bytes may be redirected to the application.
    pub(super) fn advance(
        &mut self,
        kernel: &Arc<Kernel>,
        pass: bool,
        receives: bool,
    ) -> io::Result<Step> {
        match self.state {
            State::Excluded(_) | State::Ready => Ok(Step::Done),
            State::New => self.enter(kernel, pass, receives),
            State::Entered { copied_seq } => {
                let report = self.look(kernel)?;
                if let Some(excluded) = verdict(&report) {
                    self.exclude(kernel, excluded);
                    return Ok(Step::Done);
                }
                if report.peer.copied_seq == copied_seq {
                    return Ok(Step::NotRead);
                }
                if pass {
                    return self.apply(kernel, hop::ENROLL_PASS | hop::IF_QUIET, State::Ready);
                }
                self.state = State::Ready;
                Ok(Step::Done)
            }
        }
    }

    /// Whether the application was enrolled and has left bytes unread since: it may be
    /// asking FIONREAD, which does not tell it of them before it is `Ready`.
    pub(super) fn release_if_stalled(&mut self, kernel: &Arc<Kernel>) -> io::Result<()> {
        if let State::Entered { copied_seq } = self.state {
            let report = self.look(kernel)?;
            if report.peer.copied_seq == copied_seq && report.peer.rcv_nxt != copied_seq {
                self.exclude(kernel, Excluded::Stalled);
            }
        }
        Ok(())
    }

    fn enter(&mut self, kernel: &Arc<Kernel>, pass: bool, receives: bool) -> io::Result<Step> {
        let report = self.look(kernel)?;
        if let Some(excluded) = verdict(&report) {
            self.exclude(kernel, excluded);
            return Ok(Step::Done);
        }
        self.application = report.peer.address;
        let nonblocking = report.peer_file_flags & OFlags::NONBLOCK.bits() != 0;
        let waits_in_recv = report.peer_accepted == 1 && !nonblocking;
        let (action, next) = match (waits_in_recv && (receives || pass), pass) {
            (true, _) => {
                let copied_seq = report.peer.copied_seq;
                (hop::ENROLL_MSG, State::Entered { copied_seq })
            }
            (false, true) => (hop::ENROLL_MSG | hop::ENROLL_PASS | hop::IF_QUIET, State::Ready),
            (false, false) => (hop::ENROLL_MSG, State::Ready),
        };
        let step = self.apply(kernel, action, next)?;
        if let State::Entered { .. } = self.state {
            // What it has read may have changed before it was enrolled.
            self.state = State::Entered { copied_seq: self.look(kernel)?.peer.copied_seq };
        }
        Ok(step)
    }

    fn apply(&mut self, kernel: &Arc<Kernel>, action: u32, next: State) -> io::Result<Step> {
        let report = kernel.look(self.own, self.peer, action, self.key)?;
        if report.status == hop::NOT_QUIET {
            return Ok(Step::NotQuiet);
        }
        match verdict(&report) {
            Some(excluded) => self.exclude(kernel, excluded),
            None => self.state = next,
        }
        Ok(Step::Done)
    }

    /// Nothing has been redirected to it so far, so its entries may go.
    fn exclude(&mut self, kernel: &Kernel, excluded: Excluded) {
        if self.state != State::New {
            kernel.expel(Set::Passed, self.key);
            kernel.expel(Set::Apps, self.key);
        }
        self.state = State::Excluded(excluded);
    }
}

fn verdict(report: &HopReport) -> Option<Excluded> {
    match report.status {
        0 | hop::NOT_QUIET => None,
        hop::NO_OWN | hop::NO_PEER => Some(Excluded::Remote),
        hop::NOT_OURS => Some(Excluded::Translated),
        _ => Some(Excluded::Refused),
    }
}
