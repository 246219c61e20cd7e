//! The old process's side of a hand-over.

use std::{collections::BTreeMap, io, os::fd::OwnedFd, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    time::timeout,
};

use super::{Hello, Offer, PROTOCOL, wire};
use crate::{
    app::control::Control,
    worker::orders::{Lent, Order},
};

/// How long the new process may take to say what it wants, and to take what it is given.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to start.
const START: Duration = Duration::from_secs(120);

/// How long the workers may take to close their sockets.
const CLOSING: Duration = Duration::from_secs(2);

/// The sockets of each door, by its number.
pub(in crate::app) type Lents = BTreeMap<u64, Vec<Lent>>;

impl Control {
    /// Gives what it listens on to the process behind `stream`. True: that process serves, and
    /// this one takes nothing new any more.
    pub(in crate::app) async fn hand_over(&mut self, mut stream: UnixStream) -> bool {
        let lent = match self.lend().await {
            Ok(lent) => lent,
            Err(error) => {
                tracing::error!("hand-over refused: {error:#}");
                return false;
            }
        };
        let heard = timeout(PATIENCE, wire::hear::<Hello>(&mut stream)).await;
        let Ok(Ok(hello)) = heard else {
            tracing::warn!("hand-over: who connected has not said what it wants");
            return false;
        };
        if hello.protocol != PROTOCOL {
            // It is told by what it would have got.
            tracing::error!("hand-over refused: version {} does it in another way", hello.version);
        } else {
            tracing::info!("handing over to process {} ({})", hello.pid, hello.version);
            self.doors.let_go(&lent);
        }
        match self.give(&mut stream, &lent).await {
            Ok(()) => {
                self.leave(&mut stream).await;
                tracing::info!("handed over to process {}", hello.pid);
                true
            }
            Err(error) => {
                tracing::error!("not handed over, serving on: {error:#}");
                self.doors.take_back(&lent).await;
                false
            }
        }
    }

    /// Copies of the listening sockets that the workers have.
    async fn lend(&self) -> anyhow::Result<Lents> {
        let mut answers = Vec::new();
        self.fleet.order(|| {
            let (lent, answer) = oneshot::channel();
            answers.push(answer);
            Order::Lend(lent)
        });
        let mut lents = Lents::new();
        for answer in answers {
            for lent in answer.await.context("a worker has ended")?? {
                lents.entry(lent.door).or_default().push(lent);
            }
        }
        Ok(lents)
    }

    /// Sends the sockets and waits until the other side serves.
    async fn give(&self, stream: &mut UnixStream, lents: &Lents) -> anyhow::Result<()> {
        let doors = self.doors.offered(lents);
        let mut descriptors = Vec::<OwnedFd>::new();
        for lent in lents.values().flatten() {
            descriptors.push(lent.socket.try_clone()?);
        }
        let admin = self.admin.as_ref().and_then(|admin| Some((admin.asked, admin.lend()?)));
        let asked = admin.as_ref().map(|(asked, _)| *asked);
        descriptors.extend(admin.map(|(_, socket)| socket));
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let pid = std::process::id();
        let offer = Offer { protocol: PROTOCOL, version, pid, doors, admin: asked };
        let sent = async {
            wire::say(stream, &offer).await?;
            wire::send(stream, &descriptors).await
        };
        let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
        timeout(PATIENCE, sent).await.unwrap_or_else(late).context("sending the sockets")?;
        drop(descriptors);
        let ready = timeout(START, stream.read_u8()).await;
        match ready.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(_) => Ok(()),
            Err(error) => Err(error).context("the new process has not become ready"),
        }
    }

    /// Takes nothing new from now on, and says so when that is done.
    async fn leave(&mut self, stream: &mut UnixStream) {
        self.drain.leave();
        // Before it says so: a listener of the admin endpoint that nobody serves would answer
        // nobody.
        if let Some(mut admin) = self.admin.take() {
            admin.end().await;
        }
        if timeout(CLOSING, self.fleet.closed()).await.is_err() {
            tracing::warn!("a worker has not closed its sockets yet");
        }
        // The new process serves, whether it hears this or not.
        let _ = stream.write_all(b"G").await;
    }
}
