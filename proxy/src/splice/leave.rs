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
//! first, and what was decided by then has been counted after [`REST`]. If the bulk is over before
//! it could leave, they are opened again: the gate goes by sequence numbers, and has lost nothing.
//!
//! **And only while nothing is on its way to it**: what arrives just then is dropped where it is
//! under the program for `FIONREAD`, and what that program has passed and nobody has read goes with
//! the entry. Its one peer is this process, whose thread is here, and which holds nothing for it.
//! Where the kernel writes on our socket, too (`redirect.rs`), it stays.

use std::{
    io,
    time::{Duration, Instant},
};

use proxy_ebpf::{Protection, SocketKey};
use tokio::net::TcpStream;

use super::{
    bypass::{Direction, Settled},
    kernel::{Kernel, Set},
    meter::{Cause, Meter, Outside},
    without::without,
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
    /// Since when nothing of a direction bypasses: messages that had bypassed before, and bytes
    /// that userspace had moved.
    since: [Option<(u64, u64)>; 2],
    stage: Stage,
}

#[derive(Debug, Default, Clone, Copy)]
enum Stage {
    #[default]
    Watching,
    /// Nothing is redirected any more, because of this direction; its sender leaves not before
    /// this time.
    Closed(Direction, Instant),
    Left,
}

/// What it goes by, of both directions: towards the server, towards the client.
pub(super) struct Seen<'a> {
    pub(super) kernel: &'a Kernel,
    /// `None`: something may be opened yet.
    pub(super) settled: Option<&'a Settled>,
    /// Downstream, upstream: by which key the application's socket is under the programs.
    pub(super) enrolled: [Option<SocketKey>; 2],
    /// Downstream, upstream.
    pub(super) sockets: [&'a TcpStream; 2],
    /// Lanes that carry bulk.
    pub(super) bulk: [bool; 2],
    /// Lanes that hold nothing and have not ended.
    pub(super) idle: [bool; 2],
    /// Lanes beside which the kernel writes on our socket.
    pub(super) redirected: [bool; 2],
    pub(super) meters: [&'a Meter; 2],
}

impl Leave {
    /// Whether nobody is looked after any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Left)
    }

    /// Before a turn of the lanes. True: bypass is to be given up where it has not been opened.
    pub(super) fn turn(&mut self, seen: &Seen<'_>) -> bool {
        match self.stage {
            Stage::Watching => return self.watch(seen),
            Stage::Closed(direction, due) => {
                if let Some(settled) = seen.settled {
                    self.stage = seen.after_closing(settled, direction, due);
                }
            }
            Stage::Left => {}
        }
        false
    }

    fn watch(&mut self, seen: &Seen<'_>) -> bool {
        for direction in Direction::ALL {
            let at = direction as usize;
            if seen.enrolled[direction.ends().0].is_none() {
                continue;
            }
            let meter = seen.meters[at];
            let now = (meter.kernel_messages(), meter.by_userspace());
            let (messages, bytes) = *self.since[at].get_or_insert(now);
            if now.0 != messages {
                self.since[at] = Some(now);
            } else if now.1 - bytes < LEAVE_BYTES || !seen.bulk[at] {
                continue;
            } else if !seen.may_leave(direction) {
                // Another look after as much again costs nothing.
                self.since[at] = Some(now);
            } else if let Some(settled) = seen.settled {
                settled.set_open(false);
                self.since = [None; 2];
                self.stage = Stage::Closed(direction, Instant::now() + REST);
                return false;
            } else {
                return true;
            }
        }
        false
    }
}

impl Seen<'_> {
    /// Whether nothing was ever redirected to the sender of this direction, and nobody but this
    /// thread writes to it.
    fn may_leave(&self, direction: Direction) -> bool {
        let back = 1 - direction as usize;
        let given = self.meters[back].kernel_messages() > 0 && !without(Protection::Given);
        !given && !self.redirected[back]
    }

    /// What comes next, once both directions are closed.
    fn after_closing(&self, settled: &Settled, direction: Direction, due: Instant) -> Stage {
        let now = Instant::now();
        if now < due {
            return Stage::Closed(direction, due);
        }
        let key = self.enrolled[direction.ends().0];
        let stays = !self.bulk[direction as usize] || !self.may_leave(direction);
        let Some(key) = key.filter(|_| !stays) else {
            settled.set_open(true);
            return Stage::Watching;
        };
        match self.leave(direction, key) {
            Ok(true) => Stage::Left,
            Ok(false) => Stage::Closed(direction, now + AGAIN),
            Err(error) => {
                tracing::debug!(%error, "leaving local bypass");
                settled.set_open(true);
                Stage::Watching
            }
        }
    }

    /// Takes the sender out if nothing is on its way to it. Whether it was.
    fn leave(&self, direction: Direction, key: SocketKey) -> io::Result<bool> {
        let socket = self.sockets[direction.ends().0];
        if !without(Protection::Unread) {
            if !self.idle[1 - direction as usize] {
                return Ok(false);
            }
            let report = self.kernel.look(socket.local_addr()?, socket.peer_addr()?, 0, key)?;
            if report.status != 0 || report.peer.copied_seq != report.own.write_seq {
                return Ok(false);
            }
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
