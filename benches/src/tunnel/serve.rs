//! The server peer: does with each tunnel what its first bytes say.
//!
//! Echoes are served by one thread and epoll(7), bulk by a thread per tunnel,
//! token streams by one thread with a clock. It knows nothing of loads and proxies.

use std::{
    collections::BinaryHeap,
    io::{ErrorKind, Read as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use rustix::{
    buffer::spare_capacity,
    event::epoll,
    io::Errno,
    net::{RecvFlags, SendFlags},
};

use crate::patient;

use super::protocol::{
    CHUNK_BYTES, Count, Order, PREAMBLE_BYTES, Reply, Service, TOKEN_BYTES, TOKEN_PERIOD, now_ns,
    obey, say,
};

/// 10,000 tunnels are opened as fast as they are accepted.
const BACKLOG: i32 = 4096;
const EVENTS: usize = 256;
const ECHO_BYTES: usize = 16 * 1024;
/// A tunnel in bulk that moves nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// What stands for the listener among the descriptors.
const LISTENER: u64 = u64::MAX;

/// Serves until standard input ends.
///
/// # Errors
/// If it cannot listen.
pub fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    rustix::net::listen(&listener, BACKLOG)?;
    let port = listener.local_addr()?.port();
    let sunk = Arc::new(AtomicU64::new(0));
    let (to_clock, newcomers) = mpsc::channel();
    thread::spawn(move || stream_tokens(&newcomers));
    let mut echoes = Echoes { tunnels: Vec::new(), sunk: sunk.clone(), to_clock };
    thread::spawn(move || {
        // Without it nothing is measured; the parent sees that tunnels fail.
        if let Err(error) = echoes.serve(&listener) {
            eprintln!("server peer: {error:#}");
        }
    });
    say(&Reply::Listening { port })?;
    obey(|order| match order {
        Order::Count => {
            Reply::Counted(Count { at_ns: now_ns(), bytes: sunk.load(Relaxed), operations: 0 })
        }
        Order::Start { .. } | Order::Stop => Reply::Failed("only a client does that".into()),
    })
}

/// The tunnels of the epoll thread, by descriptor.
struct Echoes {
    tunnels: Vec<Option<Tunnel>>,
    sunk: Arc<AtomicU64>,
    to_clock: mpsc::Sender<(TcpStream, Duration)>,
}

struct Tunnel {
    stream: TcpStream,
    preamble: [u8; PREAMBLE_BYTES],
    filled: usize,
}

impl Echoes {
    fn serve(&mut self, listener: &TcpListener) -> anyhow::Result<()> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let readable = epoll::EventFlags::IN;
        epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), readable)?;
        let mut events = Vec::with_capacity(EVENTS);
        let mut buffer = vec![0; ECHO_BYTES];
        loop {
            events.clear();
            epoll::wait(&epoll, spare_capacity(&mut events), None).context("epoll")?;
            for event in &events {
                let key = event.data.u64();
                if key == LISTENER {
                    let (stream, _) = listener.accept()?;
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    let key = stream.as_raw_fd() as usize;
                    let data = epoll::EventData::new_u64(key as u64);
                    epoll::add(&epoll, &stream, data, readable)?;
                    if self.tunnels.len() <= key {
                        self.tunnels.resize_with(key + 1, || None);
                    }
                    self.tunnels[key] =
                        Some(Tunnel { stream, preamble: [0; PREAMBLE_BYTES], filled: 0 });
                    continue;
                }
                let Some(tunnel) = self.tunnels[key as usize].as_mut() else { continue };
                if tunnel.filled == PREAMBLE_BYTES {
                    if tunnel.echo(&mut buffer).is_none() {
                        self.tunnels[key as usize] = None;
                    }
                } else if let Some(service) = tunnel.begin().transpose()
                    && service.as_ref().ok() != Some(&Service::Echo)
                {
                    // It has another thread now, or has ended.
                    let tunnel = self.tunnels[key as usize].take().context("no tunnel")?;
                    epoll::delete(&epoll, &tunnel.stream)?;
                    match service {
                        Ok(service) => self.hand_over(tunnel.stream, service)?,
                        Err(error) => eprintln!("server peer: {error:#}"),
                    }
                }
            }
        }
    }

    fn hand_over(&self, stream: TcpStream, service: Service) -> anyhow::Result<()> {
        match service {
            Service::Echo => {}
            Service::Sink => {
                let sunk = self.sunk.clone();
                thread::spawn(move || sink(stream, &sunk));
            }
            Service::Source => {
                thread::spawn(move || source(stream));
            }
            Service::Tokens { phase } => self.to_clock.send((stream, phase))?,
        }
        Ok(())
    }
}

impl Tunnel {
    /// Reads first bytes; says what they are once they are whole.
    fn begin(&mut self) -> anyhow::Result<Option<Service>> {
        let n = match self.stream.read(&mut self.preamble[self.filled..]) {
            // A wake-up that was for something else.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            read => read?,
        };
        anyhow::ensure!(n > 0, "a tunnel ended before it began");
        self.filled += n;
        if self.filled < PREAMBLE_BYTES {
            return Ok(None);
        }
        Service::decode(self.preamble).map(Some)
    }

    /// `None` at the end.
    fn echo(&self, buffer: &mut [u8]) -> Option<()> {
        let n = match rustix::net::recv(&self.stream, &mut *buffer, RecvFlags::empty()) {
            // A wake-up that was for something else.
            Err(Errno::AGAIN) => return Some(()),
            received => received.ok()?.1,
        };
        // Small messages, one under way: there is always room.
        let sent = rustix::net::send(&self.stream, &buffer[..n], SendFlags::NOSIGNAL).ok()?;
        (n > 0 && sent == n).then_some(())
    }
}

fn sink(stream: TcpStream, sunk: &AtomicU64) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(n) = patient::receive(&stream, &mut buffer, SILENCE)
        && n > 0
    {
        sunk.fetch_add(n as u64, Relaxed);
    }
}

fn source(stream: TcpStream) {
    let chunk = vec![b'x'; CHUNK_BYTES];
    while patient::send_all(&stream, &chunk, SILENCE).is_ok() {}
}

/// A stream and when its next message is due; the earliest is the greatest.
struct Stream {
    due_ns: u64,
    tunnel: TcpStream,
}

/// Sends what is due, to whom it is due. Lateness of this thread is in no delay: a
/// message says when it was sent, not when it was due.
fn stream_tokens(newcomers: &mpsc::Receiver<(TcpStream, Duration)>) {
    let period = TOKEN_PERIOD.as_nanos() as u64;
    let mut streams = BinaryHeap::new();
    let mut message = [b't'; TOKEN_BYTES];
    loop {
        let wait = streams.peek().map_or(Duration::MAX, |next: &Stream| {
            Duration::from_nanos(next.due_ns.saturating_sub(now_ns()))
        });
        // Bounded, since a deadline at the end of time cannot be waited for.
        match newcomers.recv_timeout(wait.min(Duration::from_secs(3600))) {
            Ok((tunnel, phase)) => {
                // By the clock, not by when it was opened: the phases spread the load.
                let due_ns = (now_ns() / period + 1) * period + phase.as_nanos() as u64;
                streams.push(Stream { due_ns, tunnel });
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while streams.peek().is_some_and(|next| next.due_ns <= now_ns()) {
            let Some(mut next) = streams.pop() else { break };
            message[..8].copy_from_slice(&now_ns().to_le_bytes());
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            if rustix::net::send(&next.tunnel, &message, flags) == Ok(TOKEN_BYTES) {
                next.due_ns += period;
                streams.push(next);
            }
        }
    }
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        self.due_ns == other.due_ns
    }
}

impl Eq for Stream {}

impl PartialOrd for Stream {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Stream {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.due_ns.cmp(&self.due_ns)
    }
}
