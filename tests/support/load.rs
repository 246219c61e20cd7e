//! A steady load of requests that counts every failure, for tests in which none may fail.
//!
//! What a client may expect by the protocols is no failure: a connection that says `close` with
//! an answer, or GOAWAY, is replaced before the next request is sent. Over HTTP/1 a connection
//! that ends while nothing is said is one, because a request may be on its way to it.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinHandle};

use crate::{
    clock::{BOUND, eventually, within},
    matrix::Version,
};

/// Requests of several clients, one after the other each, until they are told to stop.
#[derive(Debug)]
pub struct Load {
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    answers: AtomicUsize,
    /// By content.
    contents: Mutex<BTreeMap<String, usize>>,
    failures: Mutex<Vec<String>>,
}

/// What a load has seen.
#[derive(Debug)]
pub struct Report {
    /// Answers with status 200, by their content.
    pub contents: BTreeMap<String, usize>,
    /// Everything else.
    pub failures: Vec<String>,
}

enum Sender {
    H1(http1::SendRequest<Empty<Bytes>>),
    H2(http2::SendRequest<Empty<Bytes>>),
}

/// Why there is no answer to count.
enum Failure {
    /// The request has not left the client.
    NotSent,
    Failed(String),
}

impl Load {
    /// Begins. Each of `clients` sends `per_connection` requests on a connection, then takes
    /// another.
    pub fn start(
        address: SocketAddr,
        version: Version,
        clients: usize,
        per_connection: usize,
    ) -> Self {
        let counts = Arc::<Counts>::default();
        let client = |_| {
            let counts = Arc::clone(&counts);
            tokio::spawn(async move { counts.client(address, version, per_connection).await })
        };
        let clients = (0..clients).map(client).collect();
        Self { counts, clients }
    }

    /// Waits until so many more requests have been answered, or one has failed.
    pub async fn goes_on(&self, more: usize) {
        let wanted = self.counts.answers.load(Relaxed) + more;
        eventually("a load to go on", async || {
            let failed = !self.counts.failures.lock().expect("failures").is_empty();
            failed || self.counts.answers.load(Relaxed) >= wanted
        })
        .await;
    }

    /// Fails if anything has failed so far.
    pub fn assert_whole(&self) {
        let failures = self.counts.failures.lock().expect("failures").clone();
        Report { contents: BTreeMap::new(), failures }.assert_whole();
    }

    /// Ends when the requests that are under way have been answered.
    pub async fn stop(self) -> Report {
        self.counts.stop.store(true, Relaxed);
        for client in self.clients {
            within(BOUND, "a client of the load to end", client)
                .await
                .expect("a client of the load");
        }
        let contents = std::mem::take(&mut *self.counts.contents.lock().expect("contents"));
        let failures = std::mem::take(&mut *self.counts.failures.lock().expect("failures"));
        Report { contents, failures }
    }
}

impl Report {
    /// Fails if anything has.
    pub fn assert_whole(&self) {
        let some = &self.failures[..self.failures.len().min(10)];
        assert!(some.is_empty(), "{} requests failed: {some:#?}", self.failures.len());
    }

    /// Answers in all.
    pub fn answers(&self) -> usize {
        self.contents.values().sum()
    }
}

impl Counts {
    async fn client(&self, address: SocketAddr, version: Version, per_connection: usize) {
        let mut sender: Option<Sender> = None;
        let mut sent = 0;
        while !self.stop.load(Relaxed) {
            let open = match &mut sender {
                Some(sender) => sent < per_connection && sender.is_ready().await,
                None => false,
            };
            if !open {
                sent = 0;
                sender = match connect(address, version).await {
                    Ok(sender) => Some(sender),
                    Err(Failure::NotSent) => continue,
                    Err(Failure::Failed(error)) => {
                        self.failed(format!("connect: {error}"));
                        continue;
                    }
                };
            }
            let Some(open) = &mut sender else { continue };
            sent += 1;
            match within(BOUND, "an answer to the load", exchange(open, address)).await {
                Ok((content, goes_on)) => {
                    self.answers.fetch_add(1, Relaxed);
                    *self.contents.lock().expect("contents").entry(content).or_default() += 1;
                    if !goes_on {
                        sender = None;
                    }
                }
                Err(Failure::NotSent) => sender = None,
                Err(Failure::Failed(error)) => {
                    self.failed(error);
                    sender = None;
                }
            }
        }
    }

    fn failed(&self, what: String) {
        self.failures.lock().expect("failures").push(what);
        self.stop.store(true, Relaxed);
    }
}

impl Sender {
    /// Whether the connection takes another request.
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::H1(sender) => sender.ready().await.is_ok(),
            Self::H2(sender) => sender.ready().await.is_ok(),
        }
    }
}

/// The kernel resets what it is shaking hands on when a socket closes, whatever other one listens
/// (`inet_csk_listen_stop`). Nothing has been sent by then.
async fn connect(address: SocketAddr, version: Version) -> Result<Sender, Failure> {
    let text = |error: hyper::Error| Failure::Failed(format!("{error:?}"));
    let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        ErrorKind::ConnectionReset => Failure::NotSent,
        _ => Failure::Failed(error.to_string()),
    })?;
    stream.set_nodelay(true).map_err(|error| Failure::Failed(error.to_string()))?;
    let io = TokioIo::new(stream);
    match version {
        Version::H1 => {
            let (sender, connection) = http1::handshake(io).await.map_err(text)?;
            tokio::spawn(async { drop(connection.await) });
            Ok(Sender::H1(sender))
        }
        Version::H2 => {
            let executor = TokioExecutor::new();
            let (sender, connection) = http2::handshake(executor, io).await.map_err(text)?;
            tokio::spawn(async { drop(connection.await) });
            Ok(Sender::H2(sender))
        }
    }
}

/// Whether GOAWAY has come between the look at the connection and the request: then the server
/// has not processed it, and another connection may (RFC 9113 section 6.8).
fn is_unprocessed(error: &hyper::Error) -> bool {
    error.is_canceled() || format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)")
}

/// The content of an answer, and whether the connection may be used again.
async fn exchange(sender: &mut Sender, address: SocketAddr) -> Result<(String, bool), Failure> {
    let request = match sender {
        Sender::H1(_) => Request::get("/load").header(header::HOST, address.to_string()),
        Sender::H2(_) => Request::get(format!("http://{address}/load")),
    };
    let request = request.body(Empty::new()).expect("a request");
    let answer = match sender {
        Sender::H1(sender) => sender.send_request(request).await,
        Sender::H2(sender) => sender.send_request(request).await,
    };
    let answer: Response<Incoming> = match answer {
        Ok(answer) => answer,
        Err(error) if matches!(sender, Sender::H2(_)) && is_unprocessed(&error) => {
            return Err(Failure::NotSent);
        }
        Err(error) => return Err(Failure::Failed(format!("no answer: {error:?}"))),
    };
    let status = answer.status();
    let close = answer.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
    let body = answer.into_body().collect().await;
    let body = body.map_err(|error| Failure::Failed(format!("body: {error:?}")))?;
    let content = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    match status.as_u16() {
        200 => Ok((content, !close)),
        status => Err(Failure::Failed(format!("{status}: {content}"))),
    }
}
