//! An origin of our own, for `underpass demo` and for tests: every kind of traffic that
//! the proxy is made for, without anything else to install.
//!
//! It stands at the far end of the path, on loopback and on a thread of its own, and is
//! no part of the data plane. Everything it sends is bounded, and is made only as fast as
//! the client takes it: when the client goes, so does the stream.

use std::{convert::Infallible, io, net::SocketAddr, sync::mpsc, thread, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    task::JoinSet,
    time::sleep,
};

mod answer;
mod body;
mod language;
mod page;
#[cfg(test)]
mod tests;
mod websocket;

pub use body::download_byte;

/// Longer than proxies keep idle connections, so that it is they who close them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Pause after accept failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Starts the origin on a free loopback port. It lasts as long as the process.
pub fn start() -> io::Result<SocketAddr> {
    // The runtime is made and stays on the new thread: the caller may be on one of its
    // own, where tokio allows no other to be entered or dropped.
    let (started, outcome) = mpsc::sync_channel(1);
    thread::Builder::new().name("demo-origin".into()).spawn(move || {
        let bound =
            runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
                let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
                Ok((listener.local_addr()?, listener, runtime))
            });
        let (outcome, bound) = match bound {
            Ok((address, listener, runtime)) => (Ok(address), Some((listener, runtime))),
            Err(error) => (Err(error), None),
        };
        // The caller waits for it below.
        let _ = started.send(outcome);
        if let Some((listener, runtime)) = bound {
            runtime.block_on(origin(listener));
        }
    })?;
    outcome.recv().map_err(|_| io::Error::other("the demo origin's thread ended"))?
}

/// Serves the origin on `listener`, on the runtime of the caller, until dropped.
pub async fn origin(listener: TcpListener) {
    // Dropping the set ends the connections with the origin.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream));
                }
                Err(error) => {
                    tracing::warn!("demo: accept: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("demo: TCP_NODELAY: {error}");
    }
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(answer::answer(request).await) });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!("demo: connection: {error}");
    }
}
