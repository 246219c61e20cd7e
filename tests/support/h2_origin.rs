//! A server of HTTP/2 whose streams the test plays, by the h2 crate: each request is handed to
//! the test, which answers, resets or lets it wait, one by one and in any order.
//!
//! What no library lets a server send is said with [`crate::h2_frames::Frames`].

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, Request, Response};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use crate::{
    clock::{BOUND, within},
    wire::Wire,
};

/// A listening socket whose connections the test plays.
#[derive(Debug)]
pub struct H2Origin(TcpListener);

/// A connection of the proxy.
#[derive(Debug)]
pub struct H2Peer {
    streams: mpsc::UnboundedReceiver<H2Stream>,
    shutdown: mpsc::UnboundedSender<Option<Reason>>,
    driver: JoinHandle<()>,
}

/// A request, and the way to answer it.
#[derive(Debug)]
pub struct H2Stream {
    /// The request; its body is read by [`H2Stream::body`].
    pub request: Request<RecvStream>,
    answer: SendResponse<Bytes>,
}

impl H2Origin {
    /// Binds a free port.
    pub async fn bind() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind"))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("address")
    }

    /// The next connection, for frames by hand.
    pub async fn accept_raw(&self) -> Wire {
        let accepted = within(BOUND, "a connection to the origin", self.0.accept()).await;
        Wire::new(accepted.expect("accept").0, "origin")
    }

    /// The next connection.
    pub async fn accept(&self) -> H2Peer {
        self.accept_with(&Builder::new()).await
    }

    /// The next connection, with settings of its own.
    pub async fn accept_with(&self, builder: &Builder) -> H2Peer {
        let accepted = within(BOUND, "a connection to the origin", self.0.accept()).await;
        H2Peer::over(accepted.expect("accept").0, builder).await
    }

    /// Whether a further connection has come.
    pub async fn is_connected_to_again(&self) -> bool {
        tokio::time::timeout(crate::clock::STALL, self.0.accept()).await.is_ok()
    }

    /// Answers all requests with `answer` from now on.
    pub fn serve<F: Future<Output = ()> + Send>(
        self,
        builder: Builder,
        answer: impl Fn(H2Stream) -> F + Send + Sync + Clone + 'static,
    ) -> H2Served {
        let address = self.addr();
        let [connections, open] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (counted, counting) = (Arc::clone(&connections), Arc::clone(&open));
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((stream, _)) = self.0.accept().await {
                counted.fetch_add(1, SeqCst);
                let (builder, answer) = (builder.clone(), answer.clone());
                let open = Open::count(&counting);
                tasks.spawn(async move {
                    let _open = open;
                    let mut peer = H2Peer::over(stream, &builder).await;
                    let mut streams = JoinSet::new();
                    while let Some(stream) = peer.streams.recv().await {
                        let answer = answer.clone();
                        streams.spawn(async move { answer(stream).await });
                    }
                });
            }
        });
        H2Served { address, connections, open, task }
    }
}

/// A server that answers by itself.
#[derive(Debug)]
pub struct H2Served {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl H2Served {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// Those that are open.
    pub fn open(&self) -> usize {
        self.open.load(SeqCst)
    }
}

/// One of the open connections.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Drop for H2Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl H2Peer {
    async fn over(stream: tokio::net::TcpStream, builder: &Builder) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let mut connection: h2::server::Connection<_, Bytes> =
            within(BOUND, "the preface", builder.handshake(stream)).await.expect("HTTP/2");
        let (give, streams) = mpsc::unbounded_channel();
        let (shutdown, mut asked) = mpsc::unbounded_channel::<Option<Reason>>();
        let driver = tokio::spawn(async move {
            loop {
                tokio::select! {
                    accepted = connection.accept() => match accepted {
                        Some(Ok((request, answer))) => {
                            let _ = give.send(H2Stream { request, answer });
                        }
                        _ => return,
                    },
                    Some(how) = asked.recv() => match how {
                        None => connection.graceful_shutdown(),
                        Some(reason) => connection.abrupt_shutdown(reason),
                    },
                }
            }
        });
        Self { streams, shutdown, driver }
    }

    /// The next request.
    pub async fn next(&mut self) -> H2Stream {
        within(BOUND, "a request at the origin", self.streams.recv()).await.expect("a request")
    }

    /// Says that no more streams are wanted (GOAWAY, NO_ERROR); those that are there go on.
    pub fn go_away(&self) {
        self.shutdown.send(None).expect("an open connection");
    }

    /// Ends the connection with this reason (GOAWAY).
    pub fn give_up(&self, reason: Reason) {
        self.shutdown.send(Some(reason)).expect("an open connection");
    }

    /// Closes the socket.
    pub fn cut(&self) {
        self.driver.abort();
    }

    /// Waits until the proxy has closed the connection.
    pub async fn closed(self) {
        within(BOUND, "the connection to be closed", self.driver).await.ok();
    }
}

impl H2Stream {
    /// The request's path.
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Reads the request's body: content and trailers.
    pub async fn body(&mut self) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
        let (body, mut content) = (self.request.body_mut(), Vec::new());
        while let Some(chunk) = within(BOUND, "more of a request", body.data()).await {
            let chunk = chunk?;
            content.extend_from_slice(&chunk);
            let _ = body.flow_control().release_capacity(chunk.len());
        }
        Ok((content, within(BOUND, "trailers of a request", body.trailers()).await?))
    }

    /// Answers with a head; the body follows.
    pub fn begin(&mut self, head: Response<()>) -> SendStream<Bytes> {
        self.answer.send_response(head, false).expect("a stream that is open")
    }

    /// Answers 200 with this content.
    pub fn ok(&mut self, content: &'static str) {
        let mut body = self.begin(Response::new(()));
        body.send_data(Bytes::from_static(content.as_bytes()), true).expect("an open stream");
    }

    /// Resets the stream.
    pub fn reset(mut self, reason: Reason) {
        self.answer.send_reset(reason);
    }

    /// Answers with a head and nothing else.
    pub fn end(&mut self, head: Response<()>) {
        self.answer.send_response(head, true).expect("a stream that is open");
    }

    /// Waits until the proxy resets the stream, which has not been answered.
    pub async fn is_reset(&mut self) -> Reason {
        let reset = std::future::poll_fn(|cx| self.answer.poll_reset(cx));
        within(BOUND, "the stream to be reset", reset).await.expect("a reset")
    }
}

/// Waits until the proxy resets the stream of this body.
pub async fn is_reset(body: &mut SendStream<Bytes>) -> Reason {
    let reset = std::future::poll_fn(|cx| body.poll_reset(cx));
    within(BOUND, "the stream to be reset", reset).await.expect("a reset")
}

/// Sends a body as fast as the proxy takes it. False: it was reset.
pub async fn send_all(body: &mut SendStream<Bytes>, mut content: Bytes, end: bool) -> bool {
    while !content.is_empty() {
        body.reserve_capacity(content.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else {
            return false;
        };
        let chunk = content.split_to(room.min(content.len()));
        if body.send_data(chunk, end && content.is_empty()).is_err() {
            return false;
        }
    }
    true
}
