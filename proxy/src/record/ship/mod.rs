//! Records for a server elsewhere: lines as they are stored, or as logs of OTLP, posted in batches,
//! off the path.
//!
//! What waits to be sent is what is in the folder: the segments are the buffer, for as long as
//! they are kept. How far each has been sent is in a file beside them (`shipped.json`), written
//! after the server has taken a batch; so after a restart it goes on where it was, and a batch
//! whose answer was lost is sent twice, never not at all. Whoever removes segments to make room
//! counts those that had not been sent by that file: this may be waiting for the server for hours.
//!
//! Implements: REQ-REC-006

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};

use super::metrics::Counters;
use crate::{
    config::{Server, ServerTls},
    post::Poster,
};

mod cursor;
mod otlp;

pub(super) use cursor::Cursor;

/// Connecting, sending and the answer.
const ATTEMPT: Duration = Duration::from_secs(30);
/// Pause before the second attempt; doubled each time, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// In which form they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShipFormat {
    /// Lines of JSON.
    Ndjson,
    /// Logs of OTLP/HTTP, in JSON.
    Otlp,
}

impl ShipFormat {
    fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Otlp => "application/json",
        }
    }
}

/// Where records go.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// Its address.
    pub server: Server,
    /// TLS to it, where that is asked for.
    pub tls: Option<ServerTls>,
    /// In which form.
    pub form: ShipFormat,
    /// What this process is called in OTLP.
    pub service: String,
    /// The path that takes them.
    pub path: String,
    /// For a token, say.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Bytes of one batch, about.
    pub batch_bytes: usize,
    /// How often is looked whether there is more.
    pub interval: Duration,
}

/// The task that sends.
#[derive(Debug)]
pub struct Shipper {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Shipper {
    /// Starts it on the runtime of the caller, for the segments of a folder.
    pub fn start(destination: Destination, directory: PathBuf, counters: Counters) -> Self {
        let (stop, stopping) = watch::channel(false);
        let Destination { server, tls, path, headers, form, .. } = &destination;
        let to = (server, tls.as_ref());
        let poster = Poster::new(to, path, headers, form.content_type());
        let shipping =
            Shipping { destination, directory, counters, poster, stopping, complained: false };
        Self { task: tokio::spawn(shipping.run()), stop }
    }

    /// Ends it after what has been written by now has been sent, once; at most `limit`. What is
    /// left is sent by the next process that records in this folder.
    pub async fn finish(self, limit: Duration) {
        self.stop.send_replace(true);
        let mut task = self.task;
        if timeout(limit, &mut task).await.is_err() {
            task.abort();
        }
    }
}

struct Shipping {
    destination: Destination,
    directory: PathBuf,
    counters: Counters,
    poster: Poster,
    stopping: watch::Receiver<bool>,
    complained: bool,
}

impl Shipping {
    async fn run(mut self) {
        let mut cursor = Cursor::load(&self.directory);
        loop {
            // Read before the pass: what was written before the stop is then in it.
            let last = *self.stopping.borrow();
            while let Some((ahead, batch)) = self.next(&cursor).await {
                if !self.send(batch).await {
                    return;
                }
                cursor = ahead;
                let stored = cursor.clone();
                let done = spawn_blocking(move || stored.store()).await;
                if !matches!(done, Ok(Ok(()))) {
                    // Then some of it is sent again after a restart.
                    tracing::debug!("how far records were sent cannot be stored");
                }
            }
            if last {
                return;
            }
            let interval = self.destination.interval;
            let mut stopping = self.stopping.clone();
            tokio::select! {
                () = sleep(interval) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// The next lines, and how far they are. `None`: there are no more, or they cannot be read.
    async fn next(&self, cursor: &Cursor) -> Option<(Cursor, Vec<u8>)> {
        let mut ahead = cursor.clone();
        let most = self.destination.batch_bytes;
        let read = spawn_blocking(move || {
            let mut batch = Vec::new();
            ahead.read(most, &mut batch)?;
            std::io::Result::Ok((ahead, batch))
        });
        match read.await {
            Ok(Ok((ahead, batch))) if !batch.is_empty() => Some((ahead, batch)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "reading records that are to be sent");
                None
            }
            _ => None,
        }
    }

    /// Sends a batch until it is taken or refused for good. False: the process ends.
    async fn send(&mut self, batch: Vec<u8>) -> bool {
        let lines = memchr::memchr_iter(b'\n', &batch).count() as u64;
        let body = Bytes::from(match self.destination.form {
            ShipFormat::Ndjson => batch,
            ShipFormat::Otlp => otlp::batch(&self.destination.service, &batch, SystemTime::now()),
        });
        let mut pause = PAUSE;
        loop {
            let sent = timeout(ATTEMPT, self.poster.post(body.clone())).await;
            let failure = match sent {
                Ok(Ok(())) => {
                    if std::mem::take(&mut self.complained) {
                        tracing::info!("records are sent again");
                    }
                    self.counters.ship_sent.inc_by(lines);
                    return true;
                }
                Ok(Err(failure)) => failure,
                Err(_) => crate::post::Failure::again("no answer in time"),
            };
            self.poster.begin_anew();
            if !std::mem::replace(&mut self.complained, true) {
                let server = &self.destination.server;
                tracing::warn!("records cannot be sent to {server}: {}", failure.why);
            }
            if !failure.again {
                // It would be refused for ever, and all behind it would wait.
                self.counters.ship_refused.inc_by(lines);
                return true;
            }
            if *self.stopping.borrow() {
                return false;
            }
            let mut stopping = self.stopping.clone();
            tokio::select! {
                () = sleep(pause) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
