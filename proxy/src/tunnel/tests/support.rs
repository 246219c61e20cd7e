//! The two peers and the tunnel between them, and bytes that tell their position.

use std::{
    cell::Cell,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, LocalSet},
};

use crate::{
    config::SpliceMode,
    splice::{Ktls, Why},
    tunnel::{Downstream, Handover, Outcome, Registry, Settings, registry, run},
    watchdog::Watchdog,
};

/// Long enough for the slowest machine: a test that hangs fails, none is judged by speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test the way a worker runs its tunnels.
pub(super) fn on_worker<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(PATIENCE, test).await.expect("the test hangs")
    })
}

/// What is not as usual in a test's tunnel.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) mode: SpliceMode,
    pub(super) idle_timeout: Duration,
    pub(super) client_early: Bytes,
    pub(super) server_early: Bytes,
    /// Client to tunnel.
    pub(super) downstream: Buffers,
    /// Tunnel to server.
    pub(super) upstream: Buffers,
}

/// SO_SNDBUF and SO_RCVBUF of a connection's ends; `None` lets the kernel tune them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Buffers {
    pub(super) connecting: (Option<u32>, Option<u32>),
    pub(super) accepting: (Option<u32>, Option<u32>),
}

impl Buffers {
    fn all(bytes: u32) -> Self {
        let both = (Some(bytes), Some(bytes));
        Self { connecting: both, accepting: both }
    }
}

impl Setup {
    pub(super) fn new(mode: SpliceMode) -> Self {
        Self {
            mode,
            idle_timeout: Duration::MAX,
            client_early: Bytes::new(),
            server_early: Bytes::new(),
            downstream: Buffers::default(),
            upstream: Buffers::default(),
        }
    }

    /// With the same buffers for all four sockets, both ways.
    pub(super) fn with_buffers(mode: SpliceMode, bytes: u32) -> Self {
        let buffers = Buffers::all(bytes);
        Self { downstream: buffers, upstream: buffers, ..Self::new(mode) }
    }
}

/// A running tunnel and its peers.
pub(super) struct Rig {
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
    pub(super) registry: Registry,
    pub(super) watchdog: Rc<Watchdog>,
    pub(super) id: u64,
    pub(super) tunnel: JoinHandle<Outcome>,
    /// How often the tunnel has been polled.
    pub(super) polls: Rc<Cell<u64>>,
}

impl Rig {
    pub(super) async fn new(mode: SpliceMode) -> Self {
        Self::with(Setup::new(mode)).await
    }

    pub(super) async fn with(setup: Setup) -> Self {
        let (client, downstream) = pair(setup.downstream).await;
        let (upstream, server) = pair(setup.upstream).await;
        let registry = Registry::new();
        let watchdog = watchdog(setup.idle_timeout);
        let ticket = registry.open(info(client.local_addr().unwrap()));
        let id = ticket.id();
        let handover = Handover {
            downstream: Downstream::Tcp(downstream.into(), Default::default()),
            downstream_early: setup.client_early,
            upstream: upstream.into(),
            upstream_early: setup.server_early,
            tap: None,
        };
        let settings = Settings {
            mode: setup.mode,
            ktls: Ktls::none(Why::TlsOff),
            kernel: None,
            local_bypass: [false; 2],
            idle_timeout: setup.idle_timeout,
        };
        let polls = Rc::new(Cell::new(0));
        let tunnel = tokio::task::spawn_local(Counted {
            inner: Box::pin(run(handover, settings, ticket, watchdog.watch())),
            polls: polls.clone(),
        });
        Self { client, server, registry, watchdog, id, tunnel, polls }
    }

    /// Bytes and engines as `/tunnels` shows them.
    pub(super) fn view(&self) -> crate::tunnel::view::View {
        self.registry.snapshot().remove(0)
    }

    /// A byte there and back, so that the tunnel has been through its first poll.
    pub(super) async fn ping(&mut self) {
        self.client.write_all(b"?").await.unwrap();
        assert_eq!(self.server.read_u8().await.unwrap(), b'?');
        self.server.write_all(b"!").await.unwrap();
        assert_eq!(self.client.read_u8().await.unwrap(), b'!');
    }
}

/// A worker's deadlines, which pass while the test runs.
pub(super) fn watchdog(shortest: Duration) -> Rc<Watchdog> {
    let watchdog = Rc::new(Watchdog::new(shortest));
    let runs = Rc::clone(&watchdog);
    tokio::task::spawn_local(async move { runs.run().await });
    watchdog
}

pub(in crate::tunnel) fn info(client: SocketAddr) -> registry::Info {
    registry::Info {
        kind: registry::Kind::Connect,
        client,
        upstream: "server".into(),
        listener: "test".into(),
        log_interval: Duration::from_secs(600),
    }
}

/// Both ends of a connection: the one that connected, the one that accepted.
pub(super) async fn pair(buffers: Buffers) -> (TcpStream, TcpStream) {
    let (connecting, listening) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
    // Before connect and listen: the window is agreed upon there, and an accepted socket
    // inherits.
    for (socket, (send, receive)) in
        [(&connecting, buffers.connecting), (&listening, buffers.accepting)]
    {
        if let Some(bytes) = send {
            socket.set_send_buffer_size(bytes).unwrap();
        }
        if let Some(bytes) = receive {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
    }
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = listening.listen(1).unwrap();
    let connected = connecting.connect(listener.local_addr().unwrap());
    let (connected, accepted) = tokio::join!(connected, listener.accept());
    let (connected, accepted) = (connected.unwrap(), accepted.unwrap().0);
    connected.set_nodelay(true).unwrap();
    accepted.set_nodelay(true).unwrap();
    (connected, accepted)
}

struct Counted<F> {
    inner: Pin<Box<F>>,
    polls: Rc<Cell<u64>>,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.set(self.polls.get() + 1);
        self.inner.as_mut().poll(cx)
    }
}

/// xorshift64* (Vigna 2014): repeatable, and no two windows of it look alike.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Between 1 and `most`.
    pub(super) fn length(&mut self, most: usize) -> usize {
        1 + usize::try_from(self.next() % most as u64).unwrap()
    }
}

/// `length` bytes of the stream that `seed` names.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes in chunks of random length up to `most`.
pub(super) async fn write_in_chunks(
    to: &mut (impl AsyncWriteExt + Unpin),
    bytes: &[u8],
    seed: u64,
    most: usize,
) {
    let mut random = Random::new(seed);
    let mut left = bytes;
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(random.length(most).min(left.len()));
        to.write_all(chunk).await.unwrap();
        left = rest;
        if random.next().is_multiple_of(4) {
            tokio::task::yield_now().await;
        }
    }
}

/// Reads exactly these bytes, in reads of random length up to `most`.
pub(super) async fn expect_in_chunks(
    from: &mut (impl AsyncReadExt + Unpin),
    bytes: &[u8],
    seed: u64,
    most: usize,
) {
    let mut random = Random::new(seed);
    let mut room = vec![0; most];
    let mut at = 0;
    while at < bytes.len() {
        let length = random.length(most).min(bytes.len() - at);
        let n = from.read(&mut room[..length]).await.unwrap();
        assert!(n > 0, "ended after {at} of {} bytes", bytes.len());
        assert!(room[..n] == bytes[at..at + n], "wrong bytes within {n} from {at}");
        at += n;
    }
}

/// Asserts that the peer has said that no more will come.
pub(super) async fn expect_end(from: &mut (impl AsyncReadExt + Unpin)) {
    assert_eq!(from.read(&mut [0; 16]).await.unwrap(), 0, "expected the end");
}

/// Reads to the end, which must be a reset; what came before it.
pub(super) async fn read_to_reset(from: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let error = from.read_to_end(&mut bytes).await.expect_err("expected a reset, saw a FIN");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    bytes
}

/// Closes with a reset.
pub(super) fn reset(socket: TcpStream) {
    socket.set_zero_linger().unwrap();
}

/// Writes `bytes` until nobody takes more; how many were taken. Stops at the end of them.
pub(super) async fn write_until_stalled(to: &mut TcpStream, bytes: &[u8]) -> usize {
    // A slow machine can only make this see a stall too early, which no test minds.
    const STALL: Duration = Duration::from_millis(300);
    let mut taken = 0;
    while taken < bytes.len() {
        match tokio::time::timeout(STALL, to.write(&bytes[taken..])).await {
            Ok(n) => taken += n.unwrap(),
            Err(_) => break,
        }
    }
    taken
}
