//! Load inside TLS 1.3 with X25519, which every proxy has: rustls and OpenSSL from 3.5 on would
//! agree on X25519MLKEM768, which costs both sides more.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Body, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, HandshakeKind, client::Resumption, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Files, files::NAME};
use crate::{client, load::runtime, origin::grpc};

/// What takes longer is a hang.
const GRACE: Duration = Duration::from_secs(10);
/// Streams at once on a connection of HTTP/2.
const STREAMS: usize = 8;

/// Clients that trust the certificate of the bench.
#[derive(Debug)]
pub(crate) struct Clients<'a> {
    files: &'a Files,
    address: SocketAddr,
}

/// What was done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    /// Connections, requests or bytes.
    pub(crate) count: u64,
    pub(crate) elapsed: Duration,
}

impl<'a> Clients<'a> {
    pub(crate) fn new(files: &'a Files, address: SocketAddr) -> Self {
        Self { files, address }
    }

    fn config(&self, alpn: &str, resumes: bool) -> anyhow::Result<Arc<ClientConfig>> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut config =
            builder.with_root_certificates(Arc::clone(&self.files.roots)).with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        config.resumption =
            if resumes { Resumption::in_memory_sessions(4096) } else { Resumption::disabled() };
        Ok(Arc::new(config))
    }

    /// A connection for each request, so many at a time; `resumes`: with an abbreviated handshake.
    ///
    /// # Errors
    /// If one is not answered, or sessions are not resumed as they are to be.
    pub(crate) fn fresh(
        &self,
        resumes: bool,
        at_once: usize,
        duration: Duration,
    ) -> anyhow::Result<Done> {
        let config = self.config("http/1.1", resumes)?;
        let address = self.address;
        run(duration, at_once, |deadline| {
            let config = Arc::clone(&config);
            async move {
                let request = client::get_and_close("/");
                let (mut answer, mut count, mut resumed) = (Vec::with_capacity(4096), 0_u64, 0_u64);
                while Instant::now() < deadline {
                    let mut stream = open(address, &config).await?;
                    stream.write_all(&request).await?;
                    answer.clear();
                    stream.read_to_end(&mut answer).await.context("an end without close_notify")?;
                    ensure!(answer.starts_with(b"HTTP/1.1 200"), "not a 200");
                    let kind = stream.get_ref().1.handshake_kind();
                    resumed += u64::from(kind == Some(HandshakeKind::Resumed));
                    count += 1;
                }
                // The first of each task finds no ticket yet.
                let enough = if resumes { resumed + 2 >= count } else { resumed == 0 };
                ensure!(enough, "{resumed} of {count} sessions were resumed");
                Ok(count)
            }
        })
    }

    /// HTTP/1.1 over kept connections, one request under way in each.
    ///
    /// # Errors
    /// If one is not answered.
    pub(crate) fn http1(&self, connections: usize, duration: Duration) -> anyhow::Result<Done> {
        let config = self.config("http/1.1", false)?;
        let address = self.address;
        run(duration, connections, |deadline| {
            let config = Arc::clone(&config);
            async move {
                let mut stream = open(address, &config).await?;
                let request = client::get("/");
                // As long as the first.
                stream.write_all(&request).await?;
                let mut answer = vec![0; 4096];
                let mut length = 0;
                while !answer[..length].ends_with(&[b'x'; 100]) {
                    let read = stream.read(&mut answer[length..]).await?;
                    ensure!(read > 0, "closed");
                    length += read;
                }
                answer.truncate(length);
                let mut count = 0;
                while Instant::now() < deadline {
                    stream.write_all(&request).await?;
                    stream.read_exact(&mut answer).await?;
                    count += 1;
                }
                ensure!(answer.starts_with(b"HTTP/1.1 200"), "not a 200");
                Ok(count)
            }
        })
    }

    /// HTTP/2, some streams under way in each connection.
    ///
    /// # Errors
    /// If one is not answered.
    pub(crate) fn http2(&self, connections: usize, duration: Duration) -> anyhow::Result<Done> {
        self.streams(connections, duration, |mut sender: SendRequest<Empty<Bytes>>| async move {
            let request = http::Request::get(format!("https://{NAME}/")).body(Empty::new())?;
            let answer = sender.send_request(request).await?;
            ensure!(answer.status() == 200, "not a 200");
            answer.into_body().collect().await?;
            Ok(())
        })
    }

    /// Unary calls of gRPC, likewise.
    ///
    /// # Errors
    /// If one is not answered as it has to be.
    pub(crate) fn grpc(&self, connections: usize, duration: Duration) -> anyhow::Result<Done> {
        self.streams(connections, duration, |mut sender| async move {
            grpc::call(&mut sender, NAME).await
        })
    }

    /// Does something over and over, some times at once in each connection.
    fn streams<B, F>(
        &self,
        connections: usize,
        duration: Duration,
        once: impl Fn(SendRequest<B>) -> F + Copy + Send + 'static,
    ) -> anyhow::Result<Done>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
        F: Future<Output = anyhow::Result<()>> + Send,
    {
        let config = self.config("h2", false)?;
        let address = self.address;
        run(duration, connections, move |deadline| {
            let config = Arc::clone(&config);
            async move {
                let stream = open(address, &config).await?;
                ensure!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), "no HTTP/2");
                let io = TokioIo::new(stream);
                let executor = TokioExecutor::new();
                let (sender, connection) =
                    hyper::client::conn::http2::handshake::<_, _, B>(executor, io).await?;
                tokio::spawn(connection);
                let mut streams = JoinSet::new();
                for _ in 0..STREAMS {
                    let sender = sender.clone();
                    streams.spawn(async move {
                        let mut count = 0_u64;
                        while Instant::now() < deadline {
                            once(sender.clone()).await?;
                            count += 1;
                        }
                        anyhow::Ok(count)
                    });
                }
                let mut count = 0;
                while let Some(done) = streams.join_next().await {
                    count += done??;
                }
                Ok(count)
            }
        })
    }

    /// One answer of so many bytes.
    ///
    /// # Errors
    /// If it is not whole.
    pub(crate) fn download(&self, bytes: u64) -> anyhow::Result<Done> {
        let config = self.config("http/1.1", false)?;
        runtime()?.block_on(async {
            let mut stream = open(self.address, &config).await?;
            let started = Instant::now();
            stream.write_all(&client::get_and_close(&format!("/stream/{bytes}"))).await?;
            let (mut room, mut count) = (vec![0; 1 << 17], 0);
            loop {
                match timeout(GRACE, stream.read(&mut room)).await?? {
                    0 => break,
                    read => count += read as u64,
                }
            }
            ensure!(count > bytes, "{count} bytes of {bytes}");
            Ok(Done { count: bytes, elapsed: started.elapsed() })
        })
    }
}

async fn open(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::clone(config));
    let handshake = connector.connect(ServerName::try_from(NAME)?, stream);
    timeout(GRACE, handshake).await.context("a handshake")?.context("a handshake")
}

/// Has so many tasks work until a deadline; each says how much it has done.
fn run<F: Future<Output = anyhow::Result<u64>> + Send + 'static>(
    duration: Duration,
    tasks: usize,
    work: impl Fn(Instant) -> F,
) -> anyhow::Result<Done> {
    runtime()?.block_on(async {
        let started = Instant::now();
        let mut set = JoinSet::new();
        for _ in 0..tasks {
            set.spawn(work(started + duration));
        }
        let mut count = 0;
        let all = async {
            while let Some(done) = set.join_next().await {
                count += done??;
            }
            anyhow::Ok(())
        };
        timeout(duration + GRACE, all).await.context("something was not answered")??;
        Ok(Done { count, elapsed: started.elapsed() })
    })
}
