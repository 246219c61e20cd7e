//! Which worker gets a new connection: the choice between the program in the kernel and the
//! kernel's own hash, and what a worker tells that program.
//!
//! By the kernel's hash of addresses and ports, connections are spread evenly as they come, but
//! not as they stay: a worker with many long ones gets as many new ones as any other. The
//! program (`proxy-ebpf/src/steer.rs`) chooses by what the workers say: one with the least to do,
//! or the one that is pinned to the CPU which received the SYN.
//!
//! What a worker has to do is the number of its open connections, each of the same weight. What
//! a connection costs is known when it ends, not when it comes; weighing the present (requests,
//! bytes) would send a burst to whoever happens to pause. Open connections are also what has to
//! be even for memory, and for what a worker takes with it should it fail.
//!
//! Invariant: whatever of this is missing, the kernel chooses and everything is served.

use std::cell::Cell;

use socket2::SockRef;

use crate::{
    config::{self, Steering},
    placement::Place,
    splice::kernel,
};

/// One worker's say in the choice for one listener.
#[derive(Debug)]
pub struct Seat {
    words: kernel::Seat,
    /// What was given at the last tick.
    given_before: Cell<u64>,
}

impl Seat {
    /// Around the words that the program reads.
    pub fn new(words: kernel::Seat) -> Self {
        Self { words, given_before: Cell::new(0) }
    }

    /// Its place among the sockets of its door.
    pub fn index(&self) -> usize {
        self.words.index()
    }

    /// Says what the worker has to do.
    pub fn set_load(&self, connections: usize) {
        self.words.set_load(connections as u64);
    }

    /// A connection has been accepted: it is not on its way any more.
    pub fn took_one(&self) {
        self.words.set_taken(self.words.taken().wrapping_add(1));
    }

    /// No more connections.
    pub fn close(&self) {
        self.words.close();
    }

    /// No more connections, as long as others take them: the last one stays, and what comes until
    /// its socket is closed waits there to be taken.
    pub fn close_unless_last(&self) {
        self.words.close_unless_last();
    }

    /// Once a second: forgets what was given before the last tick and has not come. A
    /// connection that is under way longer weighs nothing until it is accepted.
    pub fn tick(&self) {
        let given = self.words.given();
        let before = self.given_before.replace(given);
        let taken = self.words.taken();
        let right = settled(given, before, taken);
        if right != taken {
            self.words.set_taken(right);
        }
    }
}

/// What `taken` should be, so that `given - taken` is on its way: at most what was given since
/// the last tick, at least nothing.
fn settled(given: u64, given_before: u64, taken: u64) -> u64 {
    let recent = given.wrapping_sub(given_before);
    match given.wrapping_sub(taken) {
        // More than was given: some came by the kernel's own choice.
        on_the_way if on_the_way > u64::MAX / 2 => given,
        on_the_way => given.wrapping_sub(on_the_way.min(recent)),
    }
}

/// Has the program choose for a listener whose sockets these are, dealt out to the workers in
/// turn; or says why the kernel's hash does. The seats are in the same order.
/// Of `inherited` sockets the program is prepared only: another process may serve on them yet.
///
/// Implements: REQ-EDGE-001
pub fn steer(
    listener: &config::Listener,
    sockets: &[std::net::TcpListener],
    places: &[Place],
    inherited: bool,
) -> Result<Option<(kernel::Steering, Vec<Seat>)>, String> {
    // One worker leaves nothing to choose.
    if places.len() < 2 {
        return Ok(None);
    }
    let cpus: Vec<Option<usize>> = match listener.steering {
        Steering::Hash => return Ok(None),
        Steering::Load => Vec::new(),
        Steering::Cpu => places.iter().map(Place::cpu).cycle().take(sockets.len()).collect(),
    };
    let shared =
        |socket: &std::net::TcpListener| SockRef::from(socket).reuse_port().ok() != Some(true);
    if sockets.iter().any(shared) {
        return Err("the socket was handed in without SO_REUSEPORT".to_owned());
    }
    let begin = std::time::Instant::now();
    let started = match inherited {
        true => kernel::Steering::prepare(sockets, &cpus),
        false => kernel::Steering::start(sockets, &cpus),
    };
    let (steering, seats) = started.map_err(|reason| reason.to_string())?;
    tracing::debug!(listener = %listener.name, "steering loaded in {:?}", begin.elapsed());
    Ok(Some((steering, seats.into_iter().map(Seat::new).collect())))
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;

    #[req_test("REQ-EDGE-001")]
    #[test]
    fn what_never_arrives_is_forgotten_after_two_ticks() {
        // given, given at the last tick, taken, and what taken is set to.
        let table = [
            (0, 0, 0, 0),
            // All are on their way and fresh.
            (10, 0, 0, 0),
            // A tick later they have not come.
            (10, 10, 0, 10),
            // Some have, and some are fresh: those that are neither are forgotten.
            (14, 10, 7, 10),
            (14, 10, 12, 12),
            // More were taken than given.
            (14, 10, 20, 14),
            // Counters go round.
            (2, u64::MAX, u64::MAX - 5, u64::MAX),
        ];
        for (given, before, taken, wanted) in table {
            assert_eq!(settled(given, before, taken), wanted, "{given} {before} {taken}");
        }
    }
}
