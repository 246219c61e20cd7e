//! Load: as many requests as the other side takes, over a fixed number of connections.
//!
//! Each connection has one request under way (closed loop): good for throughput and cost
//! per request, wrong for latencies, which `schedule.rs` measures by the clock.
//! An answer is known by its length, so that the generator does next to nothing.
//! [`fresh`] has a connection for each request instead.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::{client, origin::content_length};

/// Requests before it begins, over all connections; two of each at least.
const WARM_UP: usize = 100;
/// A request that takes longer is a hang.
const GRACE: Duration = Duration::from_secs(10);

/// Open connections, warmed up.
#[derive(Debug)]
pub struct Load {
    runtime: tokio::runtime::Runtime,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// What was done, in what time.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Whole answers.
    pub requests: u64,
    /// From the first to the last.
    pub elapsed: Duration,
}

impl Load {
    /// Opens `connections` and sends some requests for `target` over each.
    ///
    /// # Errors
    /// If one cannot be opened or is not answered.
    pub fn open(address: SocketAddr, connections: usize, target: &str) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let warm_up = (WARM_UP / connections).max(2);
        let connections = runtime.block_on(async {
            let mut open = Vec::new();
            for _ in 0..connections {
                let connect = Connection::open(address, target, warm_up);
                open.push(tokio::time::timeout(GRACE, connect).await.context("warming up")??);
            }
            anyhow::Ok(open)
        })?;
        Ok(Self { runtime, connections })
    }

    /// Sends requests for `duration`.
    ///
    /// # Errors
    /// If one is not answered as those before it.
    pub fn run(&mut self, duration: Duration) -> anyhow::Result<Done> {
        let connections = std::mem::take(&mut self.connections);
        let started = Instant::now();
        let deadline = started + duration;
        let work = async {
            let mut tasks = JoinSet::new();
            for mut connection in connections {
                tasks.spawn(async move {
                    let mut requests = 0;
                    while Instant::now() < deadline {
                        connection.exchange().await?;
                        requests += 1;
                    }
                    anyhow::Ok((connection, requests))
                });
            }
            let mut requests = 0;
            let mut back = Vec::new();
            while let Some(task) = tasks.join_next().await {
                let (connection, done) = task??;
                back.push(connection);
                requests += done;
            }
            anyhow::Ok((back, requests))
        };
        let bounded = async { tokio::time::timeout(duration + GRACE, work).await };
        let (connections, requests) =
            self.runtime.block_on(bounded).context("a request was not answered")??;
        self.connections = connections;
        Ok(Done { requests, elapsed: started.elapsed() })
    }
}

impl Connection {
    async fn open(address: SocketAddr, target: &str, warm_up: usize) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = client::get(target);
        stream.write_all(&request).await?;
        let mut answer = Vec::with_capacity(4096);
        let length = loop {
            ensure!(stream.read_buf(&mut answer).await? > 0, "closed");
            if let Some(at) = memmem::find(&answer, b"\r\n\r\n") {
                break at + 4 + content_length(&answer).context("no Content-Length")?;
            }
        };
        let missing = length.checked_sub(answer.len()).context("more than one answer")?;
        answer.resize(length, 0);
        stream.read_exact(&mut answer[length - missing..]).await?;
        let mut this = Self { stream, request, answer };
        for _ in 0..warm_up {
            this.exchange().await?;
        }
        Ok(this)
    }

    async fn exchange(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.request).await?;
        self.stream.read_exact(&mut self.answer).await?;
        ensure!(self.answer.starts_with(b"HTTP/1.1 200"), "answers changed their length");
        Ok(())
    }
}

/// Requests with a connection for each, `at_once` at a time, for `duration`.
///
/// # Errors
/// If one is not answered.
pub fn fresh(address: SocketAddr, at_once: usize, duration: Duration) -> anyhow::Result<Done> {
    let request = client::get_and_close("/");
    let started = Instant::now();
    let deadline = started + duration;
    let work = async {
        let mut tasks = JoinSet::new();
        for _ in 0..at_once {
            let request = request.clone();
            tasks.spawn(async move {
                let mut requests = 0;
                let mut answer = Vec::with_capacity(4096);
                while Instant::now() < deadline {
                    let mut stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    stream.write_all(&request).await?;
                    answer.clear();
                    stream.read_to_end(&mut answer).await?;
                    ensure!(answer.starts_with(b"HTTP/1.1 200"), "not a 200");
                    requests += 1;
                }
                anyhow::Ok(requests)
            });
        }
        let mut requests = 0;
        while let Some(task) = tasks.join_next().await {
            requests += task??;
        }
        anyhow::Ok(requests)
    };
    let bounded = async { tokio::time::timeout(duration + GRACE, work).await };
    let requests = runtime()?.block_on(bounded).context("a request was not answered")??;
    Ok(Done { requests, elapsed: started.elapsed() })
}

pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
