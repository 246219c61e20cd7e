//! The admin endpoint: what the process is doing, to be looked at while it does it.
//!
//! Runs on the control plane; the data plane never waits for it. It answers from
//! memory, with bodies that are small and whole. To look takes no credentials, so it is for
//! loopback or a private address, and a browser is not let in from other sites (see
//! `guard.rs`). What changes something takes a token (`write.rs`), and is done by the control
//! plane.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering::*},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    cache::Cache, config::Token, drain, metrics::Metrics, tunnel::registry::Registry,
    upstream::directory::Directory,
};

mod answer;
mod cache;
mod certificates;
mod guard;
#[cfg(test)]
mod tests;
pub mod write;

/// Connections at once. One scraper and a few open pages need a handful.
const MAX_CONNECTIONS: usize = 64;

/// From accept, or from the end of an answer, to the end of the next head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// After this a connection may finish its answer and has to come back: a reader that
/// stalls must not hold one of the few places for ever.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(300);

/// What an answer under way gets at the end of its connection's life or of the process.
const GRACE: Duration = Duration::from_secs(1);

/// First and longest pause after accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What the endpoint shows.
#[derive(Debug)]
pub struct State {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/tunnels`.
    pub tunnels: Arc<Registry>,
    /// For `/upstreams`.
    pub upstreams: Arc<Directory>,
    /// For `/config`: the configuration in force, secrets hidden.
    pub config_text: ArcSwap<String>,
    /// For `/readyz`.
    pub readiness: Readiness,
    /// What has to be shown before anything is changed.
    pub token: ArcSwapOption<Token>,
    /// For `/cache`, where there is one.
    pub cache: OnceLock<Arc<Cache>>,
    /// Where changes are asked for, once there is somebody who makes them.
    pub asks: OnceLock<write::Asks>,
}

/// Whether new connections are welcome.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

/// Stages of the life of the process; it never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum Stage {
    /// Not all listeners are bound.
    Starting,
    /// Serving.
    Ready,
    /// Finishing what is open.
    Draining,
}

impl State {
    /// A process that is starting.
    pub fn new(
        metrics: Arc<Metrics>,
        tunnels: Arc<Registry>,
        upstreams: Arc<Directory>,
        config_text: String,
    ) -> Arc<Self> {
        let config_text = ArcSwap::from_pointee(config_text);
        let readiness = Readiness::default();
        Arc::new(Self {
            metrics,
            tunnels,
            upstreams,
            config_text,
            readiness,
            token: ArcSwapOption::empty(),
            cache: OnceLock::new(),
            asks: OnceLock::new(),
        })
    }
}

impl Readiness {
    /// Goes on to `stage`; going back has no effect.
    pub fn reach(&self, stage: Stage) {
        self.0.fetch_max(stage as u8, Release);
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        match self.0.load(Acquire) {
            0 => Stage::Starting,
            1 => Stage::Ready,
            _ => Stage::Draining,
        }
    }
}

/// Serves until `drain` begins.
///
/// Give it a watch of a drain of its own, that begins when the data plane has gone: while
/// that drains, [`Stage::Draining`] makes `/readyz` say so, and `/metrics` and `/tunnels`
/// show how far it is.
///
/// Implements: REQ-CTRL-005
pub async fn serve(listener: TcpListener, state: Arc<State>, mut drain: drain::Watch) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut pause = ACCEPT_PAUSE.0;
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.expect("never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = drain.draining() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                pause = ACCEPT_PAUSE.0;
                let (state, drain) = (state.clone(), drain.clone());
                tokio::spawn(async move {
                    connection(stream, state, drain).await;
                    drop(place);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!("admin: accept: {error}; next try in {pause:?}");
                tokio::select! {
                    () = sleep(pause) => {}
                    () = drain.draining() => return,
                }
                pause = (pause * 2).min(ACCEPT_PAUSE.1);
            }
        }
    }
}

async fn connection(stream: TcpStream, state: Arc<State>, mut drain: drain::Watch) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("admin: TCP_NODELAY: {error}");
    }
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, std::convert::Infallible>(answer::answer(&state, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(32 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Ok(ended),
        () = drain.draining() => Err(()),
        () = sleep(CONNECTION_LIFETIME) => Err(()),
    };
    let ended = match ended {
        Ok(ended) => ended,
        Err(()) => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!("admin: connection: {error}");
    }
}

/// accept(2) also reports what befell the one connection it was about to hand over.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(error.kind(), ConnectionAborted | ConnectionReset | ConnectionRefused | Interrupted)
}
