//! Batches of spans on their way to a collector, on the control plane.
//!
//! A batch that is not taken is sent again, later each time; meanwhile the queue fills and what
//! finds no place there is counted. Memory is the queue and one batch.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    config::{Server, ServerTls},
    post::{Failure, Poster},
};

use super::{Counters, Span, Tracer, otlp};

/// Spans of one batch.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// Connecting, sending and the answer.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Pause before the second attempt; doubled each time.
const PAUSE: Duration = Duration::from_millis(500);
/// Attempts of a batch: half a minute. What is older is given up for what is new.
const ATTEMPTS: u32 = 6;

/// Where spans go.
#[derive(Debug, Clone, PartialEq)]
pub struct Collector {
    /// Its address.
    pub server: Server,
    /// TLS to it, where that is asked for.
    pub tls: Option<ServerTls>,
    /// The path of its receiver of traces.
    pub path: String,
    /// For a token, say.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What this process is called there.
    pub service: String,
    /// Of traces that begin here, how many are told: 0 to 1.
    pub ratio: f64,
    /// Whether a request may bring its trace.
    pub trust_parent: bool,
}

/// The task that sends.
#[derive(Debug)]
pub struct Exporter {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Exporter {
    /// Starts it on the runtime of the caller.
    pub fn start(collector: Collector, counters: &Counters) -> (Tracer, Self) {
        let Collector { ratio, trust_parent, .. } = collector;
        let (tracer, spans) = Tracer::new(ratio, trust_parent, counters.clone());
        let (stop, stopping) = watch::channel(false);
        let Collector { server, tls, path, headers, .. } = &collector;
        let poster = Poster::new((server, tls.as_ref()), path, headers, "application/json");
        let run = Sending {
            collector,
            counters: counters.clone(),
            spans,
            stopping,
            poster,
            complained: false,
        };
        (tracer, Self { task: tokio::spawn(run.run()), stop })
    }

    /// Sends what there is, once, and ends; at most `limit`.
    pub async fn finish(self, limit: Duration) {
        self.stop.send_replace(true);
        let mut task = self.task;
        if timeout(limit, &mut task).await.is_err() {
            task.abort();
        }
    }
}

struct Sending {
    collector: Collector,
    counters: Counters,
    spans: mpsc::Receiver<Span>,
    stopping: watch::Receiver<bool>,
    poster: Poster,
    complained: bool,
}

impl Sending {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.gather(&mut batch).await;
            if batch.is_empty() {
                return;
            }
            self.send(&batch).await;
            batch.clear();
        }
    }

    /// Waits for a batch; empty: there will be no more.
    async fn gather(&mut self, batch: &mut Vec<Span>) {
        let stopped = |stopping: &mut watch::Receiver<bool>| {
            let mut stopping = stopping.clone();
            async move {
                // A sender that is gone stops as well.
                let _ = stopping.wait_for(|stop| *stop).await;
            }
        };
        tokio::select! {
            biased;
            _ = self.spans.recv_many(batch, BATCH) => {}
            () = stopped(&mut self.stopping) => {}
        }
        let until = Instant::now() + GATHER;
        while !batch.is_empty() && batch.len() < BATCH {
            tokio::select! {
                () = stopped(&mut self.stopping) => break,
                more = timeout_at(until, self.spans.recv_many(batch, BATCH)) => match more {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
            }
        }
        while batch.len() < BATCH
            && let Ok(span) = self.spans.try_recv()
        {
            batch.push(span);
        }
    }

    async fn send(&mut self, batch: &[Span]) {
        let body = Bytes::from(otlp::batch(&self.collector.service, batch));
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS {
            let sent = timeout(ATTEMPT, self.poster.post(body.clone())).await;
            let failure = match sent.unwrap_or_else(|_| Err(Failure::again("no answer in time"))) {
                Ok(()) => {
                    if std::mem::take(&mut self.complained) {
                        tracing::info!("the collector takes spans again");
                    }
                    self.counters.exported.inc_by(batch.len() as u64);
                    return;
                }
                Err(failure) => failure,
            };
            self.poster.begin_anew();
            if !std::mem::replace(&mut self.complained, true) {
                let server = &self.collector.server;
                tracing::warn!("spans cannot be sent to {server}: {}", failure.why);
            }
            if !failure.again || attempt == ATTEMPTS || *self.stopping.borrow() {
                break;
            }
            let mut stopping = self.stopping.clone();
            tokio::select! {
                () = sleep(pause) => {}
                _ = stopping.wait_for(|stop| *stop) => {}
            }
            pause *= 2;
        }
        self.counters.dropped.inc_by(batch.len() as u64);
    }
}
