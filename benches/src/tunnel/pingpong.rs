//! Ping-pong: one message under way per tunnel, all tunnels by one thread and epoll(7).
//!
//! A closed loop: right for the cost and the pace of a round trip, which is what tunnels
//! are compared by; the delay of messages that come by the clock is measured by `tokens`.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::{RecvFlags, SendFlags},
};

use crate::patient;

use super::{
    ask::{Samples, Shared},
    opener::abort,
    protocol::PING_BYTES,
};

const EVENTS: usize = 256;
/// So long nothing comes at most; a tunnel that lost a message is found by it.
const SILENCE: Duration = Duration::from_secs(5);
/// So often it is asked whether to stop, at least.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

struct Tunnel {
    stream: TcpStream,
    message: [u8; PING_BYTES],
    answer: [u8; PING_BYTES],
    filled: usize,
    sent: Instant,
}

/// Plays until told to stop.
pub(super) fn run(tunnels: Vec<TcpStream>, shared: &Shared) -> anyhow::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut tunnels: Vec<Tunnel> = tunnels.into_iter().map(Tunnel::new).collect();
    for (index, tunnel) in tunnels.iter_mut().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&epoll, &tunnel.stream, data, epoll::EventFlags::IN)?;
        tunnel.send()?;
    }
    let mut samples = Samples::default();
    let mut events = Vec::with_capacity(EVENTS);
    let mut last = Instant::now();
    while !shared.stopped() {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&TICK))?;
        if events.is_empty() {
            ensure!(last.elapsed() < SILENCE, "no answer within {SILENCE:?}");
            continue;
        }
        for event in &events {
            let tunnel = &mut tunnels[event.data.u64() as usize];
            if tunnel.receive()? {
                last = Instant::now();
                samples.add(shared, last - tunnel.sent);
                tunnel.send()?;
            }
        }
    }
    // One that lost its message would hide behind the others.
    let slowest = tunnels.iter().map(|tunnel| tunnel.sent.elapsed()).max().unwrap_or_default();
    ensure!(slowest < SILENCE, "a tunnel waits for its answer since {slowest:?}");
    samples.give(shared);
    tunnels.into_iter().for_each(|tunnel| abort(tunnel.stream));
    Ok(())
}

/// One round trip, waited for.
pub(super) fn once(tunnel: &TcpStream) -> anyhow::Result<()> {
    patient::send_all(tunnel, &[b'?'; PING_BYTES], SILENCE)?;
    let mut answer = [0; PING_BYTES];
    let mut filled = 0;
    while filled < PING_BYTES {
        let n = patient::receive(tunnel, &mut answer[filled..], SILENCE)?;
        ensure!(n > 0, "a tunnel ended");
        filled += n;
    }
    ensure!(answer == [b'?'; PING_BYTES], "another answer than what was sent");
    Ok(())
}

impl Tunnel {
    fn new(stream: TcpStream) -> Self {
        let (message, answer) = ([0; PING_BYTES], [0; PING_BYTES]);
        Self { stream, message, answer, filled: 0, sent: Instant::now() }
    }

    fn send(&mut self) -> anyhow::Result<()> {
        // Another one each time: an old answer is no answer.
        let number = u64::from_le_bytes(std::array::from_fn(|index| self.message[index])) + 1;
        self.message[..8].copy_from_slice(&number.to_le_bytes());
        self.sent = Instant::now();
        let sent = rustix::net::send(&self.stream, &self.message, SendFlags::NOSIGNAL)?;
        ensure!(sent == PING_BYTES, "no room for a ping");
        Ok(())
    }

    /// Whether the answer is whole.
    fn receive(&mut self) -> anyhow::Result<bool> {
        let room = &mut self.answer[self.filled..];
        let n = match rustix::net::recv(&self.stream, room, RecvFlags::DONTWAIT) {
            // A wake-up that was for something else.
            Err(Errno::AGAIN) => return Ok(false),
            received => received.context("reading an answer")?.1,
        };
        if n == 0 {
            bail!("a tunnel ended");
        }
        self.filled += n;
        if self.filled < PING_BYTES {
            return Ok(false);
        }
        self.filled = 0;
        ensure!(self.answer == self.message, "another answer than what was sent");
        Ok(true)
    }
}
