//! The client peer: opens tunnels, sends through them, counts what came.

use std::{
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;

use crate::stats::Percentiles;

use super::{
    bulk,
    cells::Load,
    opener::{Opener, abort},
    pingpong,
    protocol::{Count, Order, Outcome, Reply, Service, TOKEN_PERIOD, now_ns, obey},
    tokens,
};

/// What the threads of a load share with whoever asks.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    /// Whether latencies are kept.
    measuring: AtomicBool,
    pub(super) bytes: AtomicU64,
    pub(super) operations: AtomicU64,
    samples: Mutex<Vec<Duration>>,
}

/// Latencies of one thread.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<Duration>);

/// A load that is under way.
struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
    /// Of threads that may wait for their tunnel.
    bulk: Vec<TcpStream>,
    idle: Vec<TcpStream>,
}

/// Obeys until standard input ends.
///
/// # Errors
/// If it cannot be understood.
pub fn run() -> anyhow::Result<()> {
    let mut running: Option<Running> = None;
    obey(|order| {
        let answer = match (order, running.as_ref()) {
            (Order::Start { opener, load }, _) => Running::start(opener, load).map(|started| {
                running = Some(started);
                Reply::Started
            }),
            (Order::Count, Some(running)) => Ok(Reply::Counted(running.shared.count())),
            (Order::Stop, Some(_)) => {
                running.take().context("nothing is running").and_then(Running::stop)
            }
            _ => Err(anyhow::anyhow!("nothing is running")),
        };
        answer.unwrap_or_else(|error| Reply::Failed(format!("{error:#}")))
    })
}

impl Running {
    fn start(opener: Opener, load: Load) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut this = Self {
            shared: shared.clone(),
            threads: Vec::new(),
            bulk: Vec::new(),
            idle: Vec::new(),
        };
        let open = |count: u32, service: &dyn Fn(u32) -> Service| {
            (0..count).map(|index| opener.open(service(index))).collect::<anyhow::Result<Vec<_>>>()
        };
        let echoes = |count| open(count, &|_| Service::Echo);
        match load {
            Load::Up(n) => {
                for tunnel in open(n, &|_| Service::Sink)? {
                    this.bulk.push(tunnel.try_clone()?);
                    this.spawn(move |shared| bulk::send(tunnel, shared));
                }
            }
            Load::Down(n) => {
                for tunnel in open(n, &|_| Service::Source)? {
                    this.receive(tunnel)?;
                }
            }
            Load::PingPong(n) => {
                let tunnels = echoes(n)?;
                this.spawn(move |shared| pingpong::run(tunnels, shared));
            }
            Load::Mixed(n) => {
                let tunnels = echoes(n)?;
                this.receive(opener.open(Service::Source)?)?;
                this.spawn(move |shared| pingpong::run(tunnels, shared));
            }
            Load::Tokens(n) => {
                let tunnels =
                    open(n, &|index| Service::Tokens { phase: TOKEN_PERIOD * index / n })?;
                this.spawn(move |shared| tokens::run(tunnels, shared));
            }
            Load::Idle(n) => {
                for _ in 0..n {
                    // A tunnel is one when something has come through it and back.
                    let tunnel = opener.open(Service::Echo)?;
                    pingpong::once(&tunnel).context("the first ping of an idle tunnel")?;
                    this.idle.push(tunnel);
                }
            }
        }
        Ok(this)
    }

    fn receive(&mut self, tunnel: TcpStream) -> anyhow::Result<()> {
        self.bulk.push(tunnel.try_clone()?);
        self.spawn(move |shared| bulk::receive(tunnel, shared));
        Ok(())
    }

    fn spawn(&mut self, work: impl FnOnce(&Shared) -> anyhow::Result<()> + Send + 'static) {
        let shared = self.shared.clone();
        self.threads.push(thread::spawn(move || work(&shared)));
    }

    fn stop(mut self) -> anyhow::Result<Reply> {
        self.shared.stop.store(true, Relaxed);
        for tunnel in &self.bulk {
            // Wakes the thread that is in it. It may be gone by itself.
            let _ = tunnel.shutdown(std::net::Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            thread.join().ok().context("a load panicked")??;
        }
        let mut outcome = Outcome::default();
        for tunnel in self.idle.drain(..) {
            outcome.answered += u32::from(pingpong::once(&tunnel).is_ok());
            abort(tunnel);
        }
        let mut samples = self.shared.samples.lock().ok().context("a load panicked")?;
        if !samples.is_empty() {
            let latency = Percentiles::of(&mut samples);
            outcome.p50_us = Some(latency.p50);
            outcome.p99_us = Some(latency.p99);
        }
        Ok(Reply::Stopped(outcome))
    }
}

impl Shared {
    fn count(&self) -> Count {
        self.measuring.store(true, Relaxed);
        Count {
            at_ns: now_ns(),
            bytes: self.bytes.load(Relaxed),
            operations: self.operations.load(Relaxed),
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

impl Samples {
    /// One more operation, and how long it took.
    pub(super) fn add(&mut self, shared: &Shared, took: Duration) {
        shared.operations.fetch_add(1, Relaxed);
        if shared.measuring.load(Relaxed) {
            self.0.push(took);
        }
    }

    pub(super) fn give(self, shared: &Shared) {
        if let Ok(mut all) = shared.samples.lock() {
            all.extend(self.0);
        }
    }
}
