//! Servers behind the proxy, played by the test.
//!
//! [`Origin`] hands every accepted connection to the test. [`Served`] answers by itself
//! with a function of the request and remembers what it saw. [`Refusing`] and
//! [`Saturated`] are servers that cannot be connected to.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream as StdStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    clock::{BOUND, eventually, within},
    message::Message,
    wire::Wire,
};

/// A listening socket whose connections the test plays.
#[derive(Debug)]
pub struct Origin {
    listener: TcpListener,
}

impl Origin {
    /// Binds a free port.
    pub async fn bind() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind origin");
        Self { listener }
    }

    /// Binds a free port; connections have a small receive buffer, to stall a sender soon.
    pub fn bind_narrow() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.set_recv_buffer_size(16 * 1024).expect("SO_RCVBUF");
        socket.bind(&loopback(0).into()).expect("bind origin");
        socket.listen(64).expect("listen");
        socket.set_nonblocking(true).expect("nonblocking");
        Self { listener: TcpListener::from_std(socket.into()).expect("listener") }
    }

    /// Takes over a listener, which has to be nonblocking.
    pub fn over(listener: std::net::TcpListener) -> Self {
        Self { listener: TcpListener::from_std(listener).expect("listener") }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("origin address")
    }

    /// The next connection.
    pub async fn accept(&self) -> Wire {
        let (stream, _) =
            within(BOUND, "a connection to the origin", self.listener.accept()).await.unwrap();
        Wire::new(stream, "origin")
    }

    /// Answers by itself from now on.
    pub fn serve<R: Into<Reply>>(
        self,
        answer: impl Fn(&Seen) -> R + 'static + Send + Sync,
    ) -> Served {
        Served::new(self, Arc::new(move |seen| answer(seen).into()))
    }
}

/// A request as the origin saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The request.
    pub message: Message,
    /// On which connection, counted from 0.
    pub connection: usize,
}

/// What is sent back, byte for byte.
#[derive(Debug, Clone)]
pub struct Reply {
    bytes: Vec<u8>,
    close: bool,
}

impl Reply {
    /// 200 with this content and its length.
    pub fn ok(content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
        Self { bytes: [head.as_bytes(), content].concat(), close: false }
    }

    /// Closes the connection behind the answer.
    pub fn then_close(self) -> Self {
        Self { close: true, ..self }
    }
}

impl<B: AsRef<[u8]>> From<B> for Reply {
    fn from(bytes: B) -> Self {
        Self { bytes: bytes.as_ref().to_vec(), close: false }
    }
}

type Answer = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// An origin that answers by itself.
#[derive(Debug)]
pub struct Served {
    address: SocketAddr,
    log: Arc<Log>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Log {
    seen: Mutex<Vec<Seen>>,
    /// Requests are not kept.
    forgets: AtomicBool,
    connections: AtomicUsize,
    open: AtomicUsize,
    unreadable: AtomicUsize,
}

impl Served {
    /// An origin that says `ok` to everything.
    pub async fn ok() -> Self {
        Origin::bind().await.serve(|_| Reply::ok("ok"))
    }

    /// An origin whose every answer is this.
    pub async fn always(reply: impl Into<Reply>) -> Self {
        let reply = reply.into();
        Origin::bind().await.serve(move |_| reply.clone())
    }

    fn new(origin: Origin, answer: Answer) -> Self {
        let address = origin.addr();
        let log = Arc::new(Log::default());
        let task = tokio::spawn(accept(origin, log.clone(), answer));
        Self { address, log, task }
    }

    /// Keeps no request from now on: for so many that there is no memory for them.
    pub fn forgetting(self) -> Self {
        self.log.forgets.store(true, Ordering::SeqCst);
        self
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.log.connections.load(Ordering::SeqCst)
    }

    /// Waits until all connections have ended.
    pub async fn deserted(&self) {
        eventually("the origin's connections to end", async || {
            self.log.open.load(Ordering::SeqCst) == 0
        })
        .await;
    }

    /// Requests seen so far; none that were to be forgotten.
    pub fn seen(&self) -> Vec<Seen> {
        self.log.seen.lock().expect("log").clone()
    }

    /// The only request seen so far.
    pub fn only(&self) -> Message {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "requests at the origin: {seen:#?}");
        seen[0].message.clone()
    }

    /// Targets of the requests seen so far.
    pub fn targets(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.message.head.target().to_owned()).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
        // What our reader cannot read must not have left the proxy.
        if !std::thread::panicking() {
            let unreadable = self.log.unreadable.load(Ordering::SeqCst);
            assert_eq!(unreadable, 0, "connections that sent the origin what it could not read");
        }
    }
}

async fn accept(origin: Origin, log: Arc<Log>, answer: Answer) {
    // Connection tasks end with the listener's task.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = origin.listener.accept().await {
        let connection = log.connections.fetch_add(1, Ordering::SeqCst);
        let wire = Wire::new(stream, "origin");
        connections.spawn(converse(wire, connection, log.clone(), answer.clone()));
    }
}

/// Counts a connection as open, and as unreadable if its task fails.
struct Open(Arc<Log>);

impl Open {
    fn count(log: Arc<Log>) -> Self {
        log.open.fetch_add(1, Ordering::SeqCst);
        Self(log)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        if std::thread::panicking() {
            self.0.unreadable.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn converse(mut wire: Wire, connection: usize, log: Arc<Log>, answer: Answer) {
    let _open = Open::count(log.clone());
    while wire.readable().await {
        let message = wire.read_request().await;
        let cut = message.cut.is_some();
        let seen = Seen { message, connection };
        if !log.forgets.load(Ordering::SeqCst) {
            log.seen.lock().expect("log").push(seen.clone());
        }
        if cut {
            return;
        }
        let reply = answer(&seen);
        if wire.try_send(&reply.bytes).await.is_err() || reply.close {
            return;
        }
    }
}

/// An address where connecting is refused, kept so that nobody else gets it.
#[derive(Debug)]
pub struct Refusing {
    socket: Socket,
}

impl Refusing {
    /// Binds without listening.
    pub fn bind() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.bind(&loopback(0).into()).expect("bind");
        Self { socket }
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        address_of(&self.socket)
    }
}

/// An address whose accept queue is full: a connect hangs.
#[derive(Debug)]
pub struct Saturated {
    socket: Socket,
    _waiting: Vec<StdStream>,
}

impl Saturated {
    /// Fills the queue of a listener that never accepts.
    pub fn bind() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.bind(&loopback(0).into()).expect("bind");
        socket.listen(0).expect("listen");
        let mut waiting = Vec::new();
        // With a full queue the kernel drops SYNs, so connecting times out.
        while let Ok(stream) =
            StdStream::connect_timeout(&address_of(&socket), Duration::from_millis(200))
        {
            waiting.push(stream);
            assert!(waiting.len() < 64, "the accept queue does not fill");
        }
        Self { socket, _waiting: waiting }
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        address_of(&self.socket)
    }
}

fn address_of(socket: &Socket) -> SocketAddr {
    socket.local_addr().expect("address").as_socket().expect("internet address")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
