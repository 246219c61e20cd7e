//! The traffic of a soak: many kinds of it at once, each at its own steady rate.
//!
//! Whatever a kind does is done with in a few seconds, then it does it again; how many are
//! under way is bounded. A kind counts what went as it should, which for some of them is a
//! failure: an origin that cuts its answer off has to reach the client as a cut.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::{JoinSet, LocalSet},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{http2, tunnels};
use crate::{client, load, origin::tokens::Reader};

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of one kind under way at once.
const AT_ONCE: usize = 200;
/// A stream is listened to for so long.
const LISTEN: Duration = Duration::from_secs(2);

/// Where the proxy listens, and the origin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Targets {
    pub(crate) web: SocketAddr,
    pub(crate) forward: SocketAddr,
    pub(crate) raw: SocketAddr,
    pub(crate) origin: SocketAddr,
}

/// A kind of traffic.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Small answers over a connection that is kept for ten of them.
    Kept,
    /// A connection for one request.
    Fresh,
    /// A short stream of events, to its end.
    Events,
    /// A stream without an end, left after a while.
    Tokens,
    /// A large answer, left in its midst.
    Aborted,
    NotFound,
    Failing,
    /// An answer that the origin cuts off.
    Cut,
    /// A server that is not there.
    Nobody,
    Upgrade,
    Connect,
    Raw,
    /// Twenty requests at once over an HTTP/2 connection.
    Http2,
}

impl Kind {
    /// With how often a second each begins, and its name.
    const ALL: [(Self, u32, &'static str); 13] = [
        (Self::Kept, 20, "kept connections"),
        (Self::Fresh, 40, "new connections"),
        (Self::Events, 5, "event streams"),
        (Self::Tokens, 5, "endless streams"),
        (Self::Aborted, 10, "aborted answers"),
        (Self::NotFound, 10, "404"),
        (Self::Failing, 5, "500"),
        (Self::Cut, 5, "cut answers"),
        (Self::Nobody, 5, "absent server"),
        (Self::Upgrade, 5, "upgrades"),
        (Self::Connect, 5, "CONNECT"),
        (Self::Raw, 5, "TCP"),
        (Self::Http2, 3, "HTTP/2"),
    ];

    async fn once(self, to: Targets) -> anyhow::Result<()> {
        match self {
            Self::Kept => {
                let mut stream = TcpStream::connect(to.web).await?;
                for _ in 0..10 {
                    tunnels::get(&mut stream).await?;
                }
                Ok(())
            }
            Self::Fresh => whole(to.web, "/", 200).await,
            Self::Events => whole(to.web, "/sse/100", 200).await,
            Self::Tokens => listen(to.web).await,
            Self::Aborted => abort(to.web).await,
            Self::NotFound => whole(to.web, "/status/404", 404).await,
            Self::Failing => whole(to.web, "/status/500", 500).await,
            Self::Nobody => whole(to.web, "/nobody", 502).await,
            Self::Cut => match whole(to.web, "/cut", 200).await {
                Err(_) => Ok(()),
                Ok(()) => bail!("a cut answer came as a whole one"),
            },
            Self::Upgrade => tunnels::upgrade(to.web).await,
            Self::Connect => tunnels::connect(to.forward, to.origin).await,
            Self::Raw => tunnels::raw(to.raw).await,
            Self::Http2 => http2::once(to.web).await,
        }
    }
}

/// What has become of a kind.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// The last failure.
    pub(crate) reason: Option<String>,
}

/// Sends all kinds until `stop` changes, and waits for what is under way. `share` of the
/// full rate is sent.
///
/// # Errors
/// If there is no runtime to be had.
pub(crate) fn run(
    to: Targets,
    share: f64,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<Vec<Outcome>> {
    let local = LocalSet::new();
    load::runtime()?.block_on(local.run_until(async {
        let kinds: Vec<_> = Kind::ALL
            .into_iter()
            .map(|(kind, per_second, name)| {
                let period = Duration::from_secs_f64(1.0 / (f64::from(per_second) * share));
                tokio::task::spawn_local(repeat(kind, name, period, to, stop.clone()))
            })
            .collect();
        let mut outcomes = Vec::new();
        for kind in kinds {
            outcomes.push(kind.await?);
        }
        Ok(outcomes)
    }))
}

async fn repeat(
    kind: Kind,
    name: &'static str,
    period: Duration,
    to: Targets,
    mut stop: watch::Receiver<bool>,
) -> Outcome {
    let (done, failed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let reason = Rc::new(RefCell::new(None));
    let mut clock = interval(period);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            _ = stop.changed() => break,
        }
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= AT_ONCE {
            continue;
        }
        let (done, failed, reason) = (done.clone(), failed.clone(), reason.clone());
        under_way.spawn_local(async move {
            let once = tokio::time::timeout(PATIENCE, kind.once(to)).await;
            match once.context("it took too long").and_then(|once| once) {
                Ok(()) => done.set(done.get() + 1),
                Err(error) => {
                    failed.set(failed.get() + 1);
                    *reason.borrow_mut() = Some(format!("{error:#}"));
                }
            }
        });
    }
    while under_way.join_next().await.is_some() {}
    Outcome { name, done: done.get(), failed: failed.get(), reason: reason.take() }
}

/// One request and its answer to the end of the connection, with this status and as long
/// as it says.
async fn whole(address: SocketAddr, target: &str, status: u16) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&client::get_and_close(target)).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("no whole head")?;
    ensure!(head.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {head}");
    match crate::origin::content_length(head.as_bytes()) {
        Some(length) => ensure!(body.len() == length, "{} of {length} bytes", body.len()),
        None => ensure!(body.ends_with("0\r\n\r\n"), "no last chunk"),
    }
    Ok(())
}

/// Reads tokens for a while, each of which has to come, and goes.
async fn listen(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&client::get("/tokens/0")).await?;
    let until = Instant::now() + LISTEN;
    let mut reader = Reader::default();
    let mut tokens = 0;
    while Instant::now() < until {
        ensure!(stream.read_buf(&mut reader.buf).await? > 0, "a stream ended");
        while reader.token()?.is_some() {
            tokens += 1;
        }
    }
    ensure!(tokens > 0, "no token came");
    Ok(())
}

/// Reads a little of a large answer, and resets the connection.
async fn abort(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&client::get("/stream/100000000")).await?;
    let mut some = vec![0; 64 * 1024];
    stream.read_exact(&mut some).await?;
    ensure!(some.starts_with(b"HTTP/1.1 200"), "not a 200");
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(())
}
