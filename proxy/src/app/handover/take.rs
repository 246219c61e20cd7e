//! The new process's side of a hand-over.

use std::{io, net::TcpListener, os::fd::OwnedFd, path::Path, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use super::{Hello, Offer, PROTOCOL, wire};
use crate::listener::inherited::Inherited;

/// How long the old process may take for its part, each time.
const PATIENCE: Duration = Duration::from_secs(10);

/// A hand-over that is under way. Dropping it before [`Taking::ready`] leaves the old process
/// serving.
#[derive(Debug)]
pub(in crate::app) struct Taking {
    stream: UnixStream,
    from: u32,
}

/// Asks the process that serves for its sockets. `None`: there is none, nobody listens there.
///
/// # Errors
/// If it does not speak as this one does, or breaks off.
pub(in crate::app) async fn take(path: &Path) -> anyhow::Result<Option<(Taking, Inherited)>> {
    let mut stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) => {
            use io::ErrorKind::{ConnectionRefused, NotFound};
            if matches!(error.kind(), ConnectionRefused | NotFound) {
                return Ok(None);
            }
            return Err(error).with_context(|| format!("hand-over: {}", path.display()));
        }
    };
    let asked = timeout(PATIENCE, ask(&mut stream)).await;
    let (from, inherited) = asked
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        .context("hand-over: asking the process that serves")?;
    Ok(Some((Taking { stream, from }, inherited)))
}

async fn ask(stream: &mut UnixStream) -> anyhow::Result<(u32, Inherited)> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    wire::say(stream, &Hello { protocol: PROTOCOL, version, pid: std::process::id() }).await?;
    let offer: Offer = wire::hear(stream).await?;
    if offer.protocol != PROTOCOL {
        anyhow::bail!("version {} of the proxy hands over in another way", offer.version);
    }
    let of_doors = offer.doors.iter().map(|door| door.sockets).sum::<usize>();
    let count = of_doors + usize::from(offer.admin.is_some());
    let mut descriptors = wire::receive(stream, count).await?.into_iter();
    let mut inherited = Inherited::default();
    for door in offer.doors {
        let sockets = descriptors.by_ref().take(door.sockets).map(TcpListener::from).collect();
        inherited.add(door.name, Some(door.asked), sockets);
    }
    if let Some(asked) = offer.admin {
        let sockets = descriptors.map(|descriptor: OwnedFd| descriptor.into()).collect();
        inherited.add("admin".to_owned(), Some(asked), sockets);
    }
    Ok((offer.pid, inherited))
}

impl Taking {
    /// This process serves: returns when the old one accepts nothing more.
    pub(in crate::app) async fn ready(mut self) {
        let from = self.from;
        let told = async {
            self.stream.write_all(b"R").await?;
            self.stream.read_u8().await
        };
        match timeout(PATIENCE, told).await {
            Ok(Ok(_)) => tracing::info!("taken over from process {from}"),
            // It serves no worse than this one does; both accept.
            Ok(Err(error)) => tracing::warn!("process {from} has not said that it leaves: {error}"),
            Err(_) => tracing::warn!("process {from} has not left after {PATIENCE:?}"),
        }
    }
}
