//! Bulk that local bypass passes instead of moving: its sender leaves the programs.
//!
//! A sender in bulk that was refused once, because its receiver did not get a CPU in time, stays
//! on TCP's way for as long as it never pauses: the gate waits for the moment at which nothing is
//! on its way. An enrolled socket pays for that way more than another (each message goes into pages
//! of its own first, and from there to TCP), and what arrives here is in smaller pieces. So after
//! [`LEAVE_BYTES`] that went by userspace without one message past it, the sending application's
//! socket is taken out, and the tunnel goes on as one without bypass.
//!
//! **Only a sender to which nothing was ever redirected**: what it has not read would go with its
//! entry, and a redirect to it that was decided before would find nobody. Both directions are closed
//! first, and what was decided by then is over after [`REST`]. And only while nothing is on its way
//! to it: what arrives just then is dropped where it is under the program for `FIONREAD`. Its one
//! peer is this process, whose thread is here, and which holds nothing for it.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use super::{
    bypass::{Direction, Settled},
    kernel::{Kernel, Set},
    meter::{Cause, Meter, Outside},
};

/// Bytes of one direction in bulk, by userspace, after which bypass is given up: some hundredths of
/// a second, and more than what can be on its way of a sender that has paused.
const LEAVE_BYTES: u64 = 64 * 1024 * 1024;

/// As long as a lane's slot rests (`kernel/lanes.rs`): programs run for microseconds.
const REST: Duration = Duration::from_secs(1);

/// Time between two looks at a sender that has bytes to read: each takes some microseconds.
const AGAIN: Duration = Duration::from_millis(10);

/// Looks after both directions of one tunnel.
#[derive(Debug, Default)]
pub(super) struct Leave {
    /// When a direction was last seen to bypass, or to carry no bulk: messages that had
    /// bypassed, and bytes that userspace had moved.
    seen: [(u64, u64); 2],
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Watching,
    /// Nothing is redirected any more, because of this direction; its sender leaves not before
    /// this time.
    Closed(Direction, Instant),
    /// It has left, or never will.
    Over,
}

/// What it goes by, of both directions.
pub(super) struct Seen<'a> {
    pub(super) kernel: &'a Kernel,
    /// `None`: something may be opened yet.
    pub(super) settled: Option<&'a Settled>,
    /// Downstream, upstream.
    pub(super) sockets: [&'a TcpStream; 2],
    /// Lanes that carry bulk, and lanes that hold nothing and have not ended.
    pub(super) bulk: [bool; 2],
    pub(super) idle: [bool; 2],
    pub(super) meters: [&'a Meter; 2],
}

impl Leave {
    /// Before a turn of the lanes. True: bypass is to be given up where it has not been opened.
    pub(super) fn turn(&mut self, seen: &Seen<'_>) -> bool {
        match (&self.stage, seen.settled) {
            (Stage::Watching, _) => return self.watch(seen),
            (Stage::Closed(direction, due), Some(settled)) if *due <= Instant::now() => {
                match seen.finish(settled, *direction) {
                    Ok(true) => self.stage = Stage::Over,
                    Ok(false) => self.stage = Stage::Closed(*direction, Instant::now() + AGAIN),
                    Err(error) => {
                        tracing::debug!(%error, "leaving local bypass");
                        self.stage = Stage::Over;
                    }
                }
            }
            _ => {}
        }
        false
    }

    fn watch(&mut self, seen: &Seen<'_>) -> bool {
        for direction in Direction::ALL {
            let at = direction as usize;
            let meter = seen.meters[at];
            let now = (meter.kernel_messages(), meter.by_userspace());
            let (messages, bytes) = self.seen[at];
            if !seen.bulk[at] || now.0 != messages {
                self.seen[at] = now;
                continue;
            }
            if now.1.saturating_sub(bytes) < LEAVE_BYTES {
                continue;
            }
            let Some(settled) = seen.settled else { return true };
            if seen.may_leave(settled, direction) {
                settled.set_open(false);
                self.stage = Stage::Closed(direction, Instant::now() + REST);
            } else {
                self.stage = Stage::Over;
            }
            break;
        }
        false
    }
}

impl Seen<'_> {
    /// Whether the sender of this direction is enrolled, and nothing was ever redirected to it.
    fn may_leave(&self, settled: &Settled, direction: Direction) -> bool {
        let (from, _) = direction.ends();
        settled.enrolled[from].is_some()
            && self.meters[1 - direction as usize].kernel_messages() == 0
    }

    /// Whether it is decided.
    fn finish(&self, settled: &Settled, direction: Direction) -> io::Result<bool> {
        let (from, _) = direction.ends();
        let Some(key) = settled.enrolled[from].filter(|_| self.may_leave(settled, direction))
        else {
            // One that had been decided when the direction was closed.
            settled.set_open(true);
            return Ok(true);
        };
        if !self.idle[1 - direction as usize] {
            return Ok(false);
        }
        let (own, peer) = (self.sockets[from].local_addr()?, self.sockets[from].peer_addr()?);
        let report = self.kernel.look(own, peer, 0, key)?;
        if report.status != 0 || report.peer.copied_seq != report.own.write_seq {
            return Ok(false);
        }
        self.kernel.expel(Set::Passed, key);
        self.kernel.expel(Set::Apps, key);
        for meter in self.meters {
            meter.show_kernel(None, Cause::Bulk);
            meter.show_outside(Some(Outside::Bulk));
        }
        Ok(true)
    }
}
