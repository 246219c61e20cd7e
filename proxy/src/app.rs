//! The composition root: binds, starts the control plane and the workers, waits for a
//! signal, drains.
//!
//! Nothing on the path of a request imports this.
//!
//! Implements: REQ-CTRL-005

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    access_log::AccessLog,
    admin,
    config::{Config, SpliceMode},
    drain,
    listener::{bind, slots::Slots},
    metrics::Metrics,
    tunnel::registry::Registry,
    worker::{self, Bound, Process, Snapshot},
};

/// Threads of the control plane. It serves one scraper and a few people.
const CONTROL_THREADS: usize = 1;

/// Serves until a signal asks for the end and the drain is over.
///
/// Prints one line for each listener to standard output when all are bound.
///
/// # Errors
/// If an address cannot be bound, or `--splice kernel` cannot be had.
pub fn run(config: Config) -> anyhow::Result<()> {
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("starting the control plane")?;
    let outcome = control.block_on(serve(config));
    // Nothing of it is worth waiting for: the drain is over.
    control.shutdown_timeout(Duration::from_millis(100));
    outcome
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Before anything is announced: a signal from now on drains.
    let mut signals = Signals::new().context("listening for signals")?;
    raise_descriptor_limit();
    splice_tier(config.splice)?;
    let drain_timeout = config.drain_timeout;
    let workers = config.workers;
    let admin_address = config.admin;
    let mut bound = bind_all(&config)?;
    let admin_socket = match admin_address {
        Some(address) => Some(
            tokio::net::TcpListener::bind(address)
                .await
                .with_context(|| format!("admin: cannot listen on {address}"))?,
        ),
        None => None,
    };

    let metrics = Metrics::new(workers);
    let log = AccessLog::open(&config.log, metrics.access_log_dropped())
        .context("opening the access log")?;
    let tunnels = Arc::new(Registry::default());
    let state = admin::State::new(metrics, Arc::clone(&tunnels), config.effective());
    let process = Arc::new(Process {
        splice: config.splice,
        snapshot: ArcSwap::from_pointee(Snapshot::new(config)),
        tunnels,
        admin: Arc::clone(&state),
    });
    let (mut drain, watch) = drain::channel();
    let mut threads = Vec::new();
    for index in 0..workers {
        let sockets = bound
            .iter_mut()
            .filter_map(|bound| {
                let socket = bound.sockets.pop()?;
                Some((bound.index, bound.address, Arc::clone(&bound.slots), socket))
            })
            .collect();
        let thread =
            worker::spawn(index, Arc::clone(&process), log.worker(), watch.clone(), sockets)
                .context("starting a worker")?;
        threads.push(thread);
    }
    drop(watch);
    // The admin endpoint goes on while the data plane drains, to show how far it is.
    let (mut admin_drain, admin_watch) = drain::channel();
    announce(&process, &bound, admin_socket.as_ref())?;
    if let Some(socket) = admin_socket {
        tokio::spawn(admin::serve(socket, Arc::clone(&state), admin_watch));
    } else {
        drop(admin_watch);
    }
    state.readiness.reach(admin::Stage::Ready);

    signals.wait().await;
    tracing::info!("draining, at most {drain_timeout:?}");
    state.readiness.reach(admin::Stage::Draining);
    tokio::select! {
        all = drain.wait(drain_timeout) => if !all {
            tracing::warn!("some connections did not end in time");
        },
        () = signals.wait() => tracing::warn!("second signal, ending at once"),
    }
    drop(drain);
    let joined = tokio::task::spawn_blocking(move || join(threads));
    if tokio::time::timeout(Duration::from_secs(2), joined).await.is_err() {
        tracing::warn!("a worker did not end");
    }
    admin_drain.wait(Duration::from_secs(1)).await;
    log.shutdown();
    Ok(())
}

fn join(threads: Vec<JoinHandle<std::io::Result<()>>>) {
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a worker failed"),
            Err(_) => tracing::error!("a worker panicked"),
        }
    }
}

fn bind_all(config: &Config) -> anyhow::Result<Vec<Bound>> {
    let bind = |(index, listener): (usize, &crate::config::Listener)| {
        let sockets = bind::bind(listener.address, config.workers)
            .with_context(|| format!("{}: cannot listen on {}", listener.name, listener.address))?;
        let address = sockets[0].local_addr()?;
        let slots = Slots::new(listener.limits.max_connections);
        Ok(Bound { index, address, slots, sockets })
    };
    config.listeners.iter().enumerate().map(bind).collect()
}

/// The lines that scripts wait for.
fn announce(
    process: &Process,
    bound: &[Bound],
    admin: Option<&tokio::net::TcpListener>,
) -> anyhow::Result<()> {
    let snapshot = process.snapshot.load();
    let mut lines: Vec<(String, SocketAddr)> = bound
        .iter()
        .map(|bound| (snapshot.config.listeners[bound.index].name.clone(), bound.address))
        .collect();
    if let Some(admin) = admin {
        lines.push(("admin".into(), admin.local_addr()?));
    }
    let mut stdout = std::io::stdout().lock();
    for (name, address) in lines {
        // Whoever closed our standard output does not want to know.
        let _ = writeln!(stdout, "listening {name} http://{address}");
    }
    let _ = stdout.flush();
    Ok(())
}

/// `--splice kernel` is a demand, `auto` a wish.
fn splice_tier(mode: SpliceMode) -> anyhow::Result<()> {
    match (mode, crate::splice::probe::kernel_tier()) {
        (SpliceMode::Kernel, Err(reason)) => {
            anyhow::bail!("--splice kernel: {reason}; --splice auto serves without it")
        }
        (SpliceMode::Auto, Err(reason)) => {
            tracing::info!("tunnels stay in userspace: {reason}");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A proxy needs two descriptors per connection; the soft limit is made for shells.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "raising the limit of open files");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves when the process is asked to end.
    async fn wait(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP: this version does not reload, restart it instead");
                }
            }
        }
    }
}
