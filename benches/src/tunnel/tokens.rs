//! Token streams: small messages from the server by the clock, and how late they come.

use std::{net::TcpStream, time::Duration, time::Instant};

use anyhow::{bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::RecvFlags,
};

use super::{
    ask::{Samples, Shared},
    opener::abort,
    protocol::{TOKEN_BYTES, now_ns},
};

const EVENTS: usize = 256;
/// A stream of which nothing comes for so long has lost something.
const SILENCE: Duration = Duration::from_secs(2);
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

struct Stream {
    tunnel: TcpStream,
    message: [u8; TOKEN_BYTES],
    filled: usize,
}

/// Reads until told to stop.
pub(super) fn run(tunnels: Vec<TcpStream>, shared: &Shared) -> anyhow::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut streams: Vec<Stream> = tunnels
        .into_iter()
        .map(|tunnel| Stream { tunnel, message: [0; TOKEN_BYTES], filled: 0 })
        .collect();
    for (index, stream) in streams.iter().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&epoll, &stream.tunnel, data, epoll::EventFlags::IN)?;
    }
    let mut samples = Samples::default();
    let mut events = Vec::with_capacity(EVENTS);
    let mut last = Instant::now();
    while !shared.stopped() {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&TICK))?;
        if events.is_empty() {
            ensure!(last.elapsed() < SILENCE, "no message within {SILENCE:?}");
            continue;
        }
        last = Instant::now();
        for event in &events {
            streams[event.data.u64() as usize].receive(&mut samples, shared)?;
        }
    }
    samples.give(shared);
    streams.into_iter().for_each(|stream| abort(stream.tunnel));
    Ok(())
}

impl Stream {
    /// Reads one message, or what there is of it.
    fn receive(&mut self, samples: &mut Samples, shared: &Shared) -> anyhow::Result<()> {
        let room = &mut self.message[self.filled..];
        let n = match rustix::net::recv(&self.tunnel, room, RecvFlags::DONTWAIT) {
            // A wake-up that was for something else.
            Err(Errno::AGAIN) => return Ok(()),
            received => received?.1,
        };
        if n == 0 {
            bail!("a stream ended");
        }
        self.filled += n;
        if self.filled == TOKEN_BYTES {
            self.filled = 0;
            let sent = u64::from_le_bytes(std::array::from_fn(|index| self.message[index]));
            let late = now_ns().checked_sub(sent);
            ensure!(self.message[8..].iter().all(|&byte| byte == b't'), "a damaged message");
            let Some(late) = late else { bail!("a message from the future") };
            samples.add(shared, Duration::from_nanos(late));
        }
        Ok(())
    }
}
