//! A tunnel in small: client, proxy and server in one thread, over private loopback
//! connections.
//!
//! The middle is what tunnels run on ([`Tier`] and two [`Lane`]s), so that a probe tries the
//! engines themselves, not a copy of them. It moves only while the probe lets it
//! ([`Rig::pump`]): between two pumps bytes stay exactly where they were put.

use std::{
    fmt,
    future::poll_fn,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::Arc,
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use proxy_ebpf::hop;
use socket2::SockRef;

use crate::config::SpliceMode;

use super::{
    super::{
        Endpoint as _, Lane, Meter,
        kernel::{Kernel, LaneSlot},
        meter::Engine,
        tcp_end::TcpEnd,
        tier::{Parts, Tier},
    },
    sent::{PIECE, Sent},
    sockets::Pair,
};

/// Longest wait without a byte that gets further, for what takes microseconds. Redirects go by a
/// worker of the kernel, which on a machine with five processes to each CPU was seen to take
/// more than a second to get its turn.
const PATIENCE: Duration = Duration::from_secs(4);

/// Longest wait where bytes do get further: a few megabytes, which an emulated processor
/// takes seconds for. What the kernel can do must not be denied for the machine's slowness.
const LONGEST: Duration = Duration::from_secs(10);

/// Wait between two turns.
const PAUSE: Duration = Duration::from_micros(10);

/// Buffers of each socket, bytes: enough for what a probe sends at once, and soon full.
const BUFFER_BYTES: usize = 128 * 1024;

/// Messages after which a direction has to be with its engine.
const SETTLING: usize = 64;

/// An application at one end.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) socket: TcpStream,
    /// What was sent and has not been read at the other end.
    sent: Sent,
    /// Bytes that its socket has taken and given.
    exchanged: u64,
}

/// The tunnel. Directions and ends by number: 0 is the client, and towards the server.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) kernel: Arc<Kernel>,
    pub(super) peers: [Peer; 2],
    sockets: [TcpEnd; 2],
    lanes: [Lane; 2],
    meters: [Meter; 2],
    tier: Box<Tier>,
}

impl Rig {
    /// Opens a tunnel. To be called on a runtime with I/O and time.
    pub(super) fn open(
        kernel: &Arc<Kernel>,
        mode: SpliceMode,
        local_bypass: [bool; 2],
    ) -> Result<Self, String> {
        let open = || -> io::Result<Option<Self>> {
            let (client, downstream) = ends()?;
            let (server, upstream) = ends()?;
            let sockets = [downstream, upstream];
            for socket in &sockets {
                found(kernel, socket)?;
            }
            let sockets = sockets.map(TcpEnd::new);
            let meters = [Meter::default(), Meter::default()];
            let ends = [&sockets[0], &sockets[1]];
            let seen = [&meters[0], &meters[1]];
            let tier = Tier::new(Arc::clone(kernel), mode, ends, local_bypass, seen)?;
            let Some(tier) = tier else { return Ok(None) };
            let lane = |meter| Lane::new(SpliceMode::Copy, None, Bytes::new(), meter);
            let lanes = [lane(&meters[0]), lane(&meters[1])];
            let peers = [Peer::new(client, 1), Peer::new(server, 2)];
            Ok(Some(Self { kernel: Arc::clone(kernel), peers, sockets, lanes, meters, tier }))
        };
        open().map_err(text)?.ok_or_else(|| "the kernel has no part in this tunnel".to_owned())
    }

    /// Sends messages to and fro until each direction is moved by the engine named for it.
    pub(super) async fn settle(&mut self, engines: [Option<Engine>; 2]) -> Result<(), String> {
        for _ in 0..SETTLING {
            let settled = |(meter, engine): (&Meter, Option<Engine>)| {
                engine.is_none_or(|engine| meter.standing().0 == engine)
            };
            if self.meters.iter().zip(engines).all(settled) {
                return Ok(());
            }
            for end in [0, 1] {
                self.send(end, 100)?;
                self.arrives(end).await?;
            }
        }
        Err(match self.tier.excluded() {
            [Some(excluded), _] | [_, Some(excluded)] if !engines.contains(&None) => {
                format!("a private connection was left out: {excluded:?}")
            }
            _ => "a direction did not come to be moved by the programs".to_owned(),
        })
    }

    /// Sends so many bytes from an end. They fit into its socket's buffer.
    pub(super) fn send(&mut self, end: usize, bytes: usize) -> Result<(), String> {
        let taken = self.peers[end].send(bytes).map_err(text)?;
        if taken < bytes {
            return Err(format!("a sender was held back after {taken} bytes of {bytes}"));
        }
        Ok(())
    }

    /// Sends from an end until its socket takes no more, at most `most` bytes.
    pub(super) fn flood(&mut self, end: usize, most: usize) -> Result<usize, String> {
        self.peers[end].send(most).map_err(text)
    }

    /// No more will come from this end.
    pub(super) fn finish(&mut self, end: usize) -> Result<(), String> {
        self.peers[end].socket.shutdown(Shutdown::Write).map_err(text)
    }

    /// Lets the tunnel run until the other end has read all that this one has sent.
    pub(super) async fn arrives(&mut self, end: usize) -> Result<(), String> {
        let arrived = self.pump("bytes were sent and did not arrive", |rig| {
            let [client, server] = &mut rig.peers;
            let (from, to) = if end == 0 { (client, server) } else { (server, client) };
            let (left, mut are_those) = (from.sent.left(), true);
            to.read(left, |bytes| are_those &= from.sent.matches(bytes))?;
            Ok((!are_those || from.sent.left() == 0).then_some(are_those))
        });
        if arrived.await? {
            Ok(())
        } else {
            Err("bytes arrived changed or out of order".to_owned())
        }
    }

    /// Lets it run until the other end has read the end of this one, with nothing before it.
    pub(super) async fn ends(&mut self, end: usize) -> Result<(), String> {
        let came = self.pump("the end was sent and did not arrive", |rig| {
            let mut came = false;
            let ended = rig.peers[1 - end].read(1, |_| came = true)?;
            Ok((ended || came).then_some(came))
        });
        if came.await? { Err("bytes arrived twice".to_owned()) } else { Ok(()) }
    }

    /// Lets the tunnel run until `done` returns something.
    pub(super) async fn pump<T>(
        &mut self,
        overdue: &str,
        mut done: impl FnMut(&mut Self) -> io::Result<Option<T>>,
    ) -> Result<T, String> {
        let begin = Instant::now();
        let (mut progress, mut last) = (self.progress(), begin);
        loop {
            poll_fn(|cx| Poll::Ready(self.turn(cx))).await?;
            if let Some(done) = done(self).map_err(text)? {
                return Ok(done);
            }
            let now = self.progress();
            if now != progress {
                (progress, last) = (now, Instant::now());
            }
            if last.elapsed() > PATIENCE || begin.elapsed() > LONGEST {
                return Err(overdue.to_owned());
            }
            // The thread is the probe's own; the kernel's worker needs the processor, too.
            thread::sleep(PAUSE);
            tokio::task::yield_now().await;
        }
    }

    /// One turn, as in `tunnel/relay.rs`.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), String> {
        let [downstream, upstream] = &self.sockets;
        let sockets = [downstream, upstream];
        let meters = [&self.meters[0], &self.meters[1]];
        let [to_upstream, to_downstream] = &mut self.lanes;
        let mut parts = Parts { sockets, lanes: [to_upstream, to_downstream], meters };
        self.tier.before(cx, &mut parts);
        for (at, lane) in parts.lanes.iter_mut().enumerate() {
            if let Poll::Ready(Err(fault)) = lane.poll(cx, sockets[at], sockets[1 - at], meters[at])
            {
                return Err(format!("the tunnel broke: {fault:?}"));
            }
        }
        let moved = [parts.lanes[0].take_moved(), parts.lanes[1].take_moved()];
        self.tier.after(moved, &mut parts);
        Ok(())
    }

    /// Changes with every byte that gets further.
    fn progress(&self) -> u64 {
        let carried = self.carried(0) + self.carried(1);
        self.peers.iter().fold(carried, |sum, peer| sum + peer.exchanged)
    }

    /// Bytes that the programs have moved.
    pub(super) fn moved(&self, direction: usize) -> u64 {
        self.meters[direction].kernel_bytes()
    }

    /// Bytes that have been moved by anybody.
    pub(super) fn carried(&self, direction: usize) -> u64 {
        self.meters[direction].bytes()
    }

    /// What the programs count for a direction that is settled.
    pub(super) fn slot(&self, direction: usize) -> Result<Arc<LaneSlot>, String> {
        self.meters[direction].slot(&self.kernel).ok_or_else(|| "no lane is free".to_owned())
    }

    /// Bytes on their way out of our socket towards an end.
    pub(super) fn queued(&self, end: usize) -> usize {
        self.sockets[end].queued()
    }
}

impl Peer {
    fn new(socket: TcpStream, seed: u64) -> Self {
        Self { socket, sent: Sent::new(seed), exchanged: 0 }
    }

    /// Sends so many bytes, or as many as are taken.
    fn send(&mut self, bytes: usize) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes {
            let size = PIECE.min(bytes - taken);
            let written = self.sent.next(size, |piece| match (&self.socket).write(piece) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
                written => written,
            })?;
            taken += written;
            self.exchanged += written as u64;
            if written < size {
                break;
            }
        }
        Ok(taken)
    }

    /// Reads at most `most` bytes of what is there, and shows them; true at the end.
    fn read(&mut self, most: usize, mut show: impl FnMut(&[u8])) -> io::Result<bool> {
        let (mut left, mut room) = (most, [0; PIECE]);
        while left > 0 {
            let size = PIECE.min(left);
            match (&self.socket).read(&mut room[..size]) {
                Ok(0) => return Ok(true),
                Ok(read) => {
                    show(&room[..read]);
                    left -= read;
                    self.exchanged += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// A connection: the application's end and ours.
fn ends() -> io::Result<(TcpStream, tokio::net::TcpStream)> {
    let Pair { near, far } = Pair::connect(PATIENCE)?;
    for socket in [&near, &far] {
        socket.set_nonblocking(true)?;
        SockRef::from(socket).set_recv_buffer_size(BUFFER_BYTES)?;
        SockRef::from(socket).set_send_buffer_size(BUFFER_BYTES)?;
    }
    Ok((far, tokio::net::TcpStream::from_std(near)?))
}

/// Whether the program finds both ends of a connection; else every direction would just stay
/// with userspace, and nobody knew why.
fn found(kernel: &Kernel, socket: &tokio::net::TcpStream) -> io::Result<()> {
    let report = kernel.look(socket.local_addr()?, socket.peer_addr()?, 0, 0);
    let failed = |why: &dyn fmt::Display| {
        io::Error::other(format!("looking at a connection from both ends: {why}"))
    };
    match report.map_err(|error| failed(&error))?.status {
        0 => Ok(()),
        hop::NO_OWN | hop::NO_PEER => Err(failed(&"an end was not found by its addresses")),
        hop::NOT_OURS => Err(failed(&"the ends do not agree on what was sent")),
        status => Err(failed(&format_args!("status {status}"))),
    }
}

pub(super) fn text(error: io::Error) -> String {
    error.to_string()
}
