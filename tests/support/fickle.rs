//! A server that changes its ways while a test runs: up, slow, silent, refusing, talking
//! nonsense.
//!
//! It keeps its address through all of it. Its name is the content of its answers, and what
//! it answers to is counted.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::wire::Wire;

/// How a server behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// 200 with its name.
    Up,
    /// The same after a while.
    Slow(Duration),
    /// This status.
    Status(u16),
    /// This, whatever it is, and the end of the connection.
    Raw(&'static str),
    /// Takes requests and says nothing.
    Silent,
    /// Closes a connection when a request has come.
    Closing,
    /// Does not listen; connections that are open are reset.
    Refusing,
}

/// The server.
#[derive(Debug)]
pub struct Fickle {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicUsize,
    /// To the path of health checks.
    checks: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
    connections: AtomicUsize,
}

/// Requests to this path do not count as requests.
pub const CHECK: &str = "/health";

impl Fickle {
    /// One that is up.
    pub async fn up(name: &str) -> Self {
        Self::start(name, Mode::Up).await
    }

    /// One that behaves so from the beginning.
    pub async fn start(name: &str, mode: Mode) -> Self {
        Self::at(name, mode, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// One at this address.
    pub async fn at(name: &str, mode: Mode, address: SocketAddr) -> Self {
        let held = socket(address);
        let address = held.local_addr().expect("address").as_socket().expect("internet address");
        let (sender, mode) = watch::channel(mode);
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(run(held, address, name.to_owned(), mode, counts.clone()));
        Self { address, mode: sender, counts, task }
    }

    /// Where it is, listening or not.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Behaves so from now on.
    pub fn become_(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Requests so far, health checks aside.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Health checks so far.
    pub fn checks(&self) -> usize {
        self.counts.checks.load(Ordering::SeqCst)
    }

    /// Requests that are under way.
    pub fn under_way(&self) -> usize {
        self.counts.under_way.load(Ordering::SeqCst)
    }

    /// The most requests that were under way at once.
    pub fn most_under_way(&self) -> usize {
        self.counts.most.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Fickle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Bound and not listening, so that nobody else gets the port.
fn socket(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.set_nonblocking(true).expect("nonblocking");
    socket.bind(&address.into()).expect("bind");
    socket
}

async fn run(
    held: Socket,
    address: SocketAddr,
    name: String,
    mut mode: watch::Receiver<Mode>,
    counts: Arc<Counts>,
) {
    let mut held = Some(held);
    loop {
        if *mode.borrow_and_update() == Mode::Refusing {
            // Closing a socket that listens is what refuses; a fresh one keeps the port.
            held.get_or_insert_with(|| socket(address));
            if mode.changed().await.is_err() {
                return;
            }
            continue;
        }
        let listener = held.take().unwrap_or_else(|| socket(address));
        listener.listen(128).expect("listen");
        let listener = TcpListener::from_std(listener.into()).expect("listener");
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    counts.connections.fetch_add(1, Ordering::SeqCst);
                    let wire = Wire::new(stream, "fickle server");
                    connections.spawn(converse(wire, name.clone(), mode.clone(), counts.clone()));
                }
                changed = mode.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if *mode.borrow_and_update() == Mode::Refusing {
                        break;
                    }
                }
            }
        }
        // Listener and connections end here.
        connections.shutdown().await;
        drop(listener);
    }
}

/// Counts a request as under way until it is dropped.
struct UnderWay(Arc<Counts>);

impl UnderWay {
    fn begin(counts: &Arc<Counts>) -> Self {
        let now = counts.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        counts.most.fetch_max(now, Ordering::SeqCst);
        Self(counts.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn converse(mut wire: Wire, name: String, mode: watch::Receiver<Mode>, counts: Arc<Counts>) {
    while wire.readable().await {
        let request = wire.read_request().await;
        if request.cut.is_some() {
            return;
        }
        let _under_way = UnderWay::begin(&counts);
        let count = match request.head.target() {
            CHECK => &counts.checks,
            _ => &counts.requests,
        };
        count.fetch_add(1, Ordering::SeqCst);
        let mode = mode.borrow().clone();
        let status = match mode {
            Mode::Up => 200,
            Mode::Slow(time) => {
                tokio::time::sleep(time).await;
                200
            }
            Mode::Status(status) => status,
            Mode::Raw(text) => {
                let _ = wire.try_send(text).await;
                return;
            }
            Mode::Silent => {
                // Until the other side has had enough.
                while wire.readable().await {
                    wire.read_some().await;
                }
                return;
            }
            Mode::Closing | Mode::Refusing => return,
        };
        let length = name.len();
        let answer = format!("HTTP/1.1 {status} Any\r\nContent-Length: {length}\r\n\r\n{name}");
        if wire.try_send(answer).await.is_err() {
            return;
        }
    }
}
