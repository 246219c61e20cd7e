//! The composition root: binds, starts the control plane and the workers, waits for a
//! signal, drains.
//!
//! Nothing on the path of a request imports this.
//!
//! Implements: REQ-CTRL-005

use std::{io::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    access_log::AccessLog,
    admin,
    config::{Config, Protocol, SpliceMode, Steering},
    drain,
    listener::{bind, slots::Slots, steer},
    metrics::Metrics,
    placement::{self, Place},
    splice::{
        kernel::{self, Kernel, give_back},
        probe,
    },
    tunnel::{registry::Registry, watch},
    upstream::directory::Directory,
    worker::{
        Process, Snapshot,
        thread::{self, Bound},
    },
};

mod fleet;

use fleet::Fleet;

/// Threads of the control plane. It serves one scraper and a few people.
const CONTROL_THREADS: usize = 1;

/// Where a listener was bound.
#[derive(Debug, Clone)]
pub struct Address {
    /// Its name.
    pub name: String,
    /// `http` or `tcp`.
    pub scheme: &'static str,
    /// The address.
    pub address: SocketAddr,
}

/// Serves until a signal asks for the end and the drain is over. A second signal ends the
/// drain at once.
///
/// Prints one line for each listener to standard output when all are bound.
///
/// # Errors
/// If an address cannot be bound, a worker cannot serve or `--splice kernel` cannot be had;
/// later, if a worker failed.
pub fn run(config: Config) -> anyhow::Result<()> {
    run_with(config, signals, |addresses| {
        let mut stdout = std::io::stdout().lock();
        for Address { name, scheme, address } in addresses {
            // Whoever closed our standard output does not want to know.
            let _ = writeln!(stdout, "listening {name} {scheme}://{address}");
        }
        let _ = stdout.flush();
    })
}

/// The same with both ends in the caller's hands: each message of the receiver that `stops`
/// makes counts as a signal, and `ready` is told where the listeners are.
///
/// # Errors
/// As [`run`], and as `stops`.
pub fn run_with(
    config: Config,
    stops: impl FnOnce() -> std::io::Result<mpsc::Receiver<()>>,
    ready: impl FnOnce(&[Address]),
) -> anyhow::Result<()> {
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("starting the control plane")?;
    let outcome = control.block_on(async {
        // Before anything is announced: a signal from now on drains.
        let stops = stops().context("listening for signals")?;
        serve(config, stops, ready).await
    });
    // Nothing of it is worth waiting for: the drain is over.
    control.shutdown_timeout(Duration::from_millis(100));
    outcome
}

async fn serve(
    config: Config,
    mut stops: mpsc::Receiver<()>,
    ready: impl FnOnce(&[Address]),
) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let kernel = splice_tier(&config)?;
    if let Some(log) = kernel.as_ref().and_then(|kernel| kernel.take_log()) {
        tokio::spawn(log.drain());
    }
    let drain_timeout = config.drain_timeout;
    let workers = config.workers;
    let admin_address = config.admin;
    let places = placement::of_workers(workers, config.pin_workers);
    let mut bound = bind_all(&config)?;
    let steerings = steer_all(&config, &mut bound, &places);
    give_back();
    let mut addresses: Vec<Address> = bound
        .iter()
        .map(|bound| {
            let listener = &config.listeners[bound.index];
            let scheme = match listener.protocol {
                Protocol::Http | Protocol::Forward(_) => "http",
                Protocol::Tcp => "tcp",
            };
            Address { name: listener.name.clone(), scheme, address: bound.address }
        })
        .collect();
    let admin_socket = match admin_address {
        Some(address) => {
            let socket = tokio::net::TcpListener::bind(address)
                .await
                .with_context(|| format!("admin: cannot listen on {address}"))?;
            let address = socket.local_addr()?;
            addresses.push(Address { name: "admin".into(), scheme: "http", address });
            Some(socket)
        }
        None => None,
    };

    let tunnels = Arc::new(Registry::default());
    let metrics = Metrics::new(workers, Registry::clone(&tunnels));
    tokio::spawn(watch::watch(Registry::clone(&tunnels)));
    for (listener, steering) in steerings {
        metrics.steering(&listener, steering);
    }
    let log = AccessLog::open(&config.log, metrics.access_log_dropped())
        .context("opening the access log")?;
    let directory = Arc::new(Directory::default());
    let (upstreams, shown) = (Arc::clone(&directory), config.effective());
    let state = admin::State::new(metrics, Arc::clone(&tunnels), upstreams, shown);
    let process = Arc::new(Process {
        splice: config.splice,
        kernel,
        snapshot: ArcSwap::from_pointee(Snapshot::new(config, &directory, None)),
        directory,
        tunnels,
        admin: Arc::clone(&state),
    });
    let (mut drain, watch) = drain::channel();
    let mut started = Vec::new();
    for (index, place) in places.into_iter().enumerate() {
        process.admin.metrics.placed(index, &place);
        let sockets = bound.iter_mut().filter_map(Bound::take).collect();
        let worker = thread::spawn(
            (index, place),
            Arc::clone(&process),
            log.worker(),
            watch.clone(),
            sockets,
        )
        .context("starting a worker")?;
        started.push(worker);
    }
    drop(watch);
    let mut fleet = Fleet::assemble(started).await?;
    // The admin endpoint goes on while the data plane drains, to show how far it is.
    let (mut admin_drain, admin_watch) = drain::channel();
    if let Some(socket) = admin_socket {
        tokio::spawn(admin::serve(socket, Arc::clone(&state), admin_watch));
    } else {
        drop(admin_watch);
    }
    state.readiness.reach(admin::Stage::Ready);
    ready(&addresses);

    let failure = tokio::select! {
        // A sender that is gone asks for the end as well.
        _ = stops.recv() => None,
        // Its listeners are closed, its connections gone; the rest is better started anew.
        (index, error) = fleet.failed() => {
            tracing::error!("worker {index} failed, the others drain: {error:#}");
            Some(error.context(format!("worker {index} failed")))
        }
    };
    tracing::info!("draining, at most {drain_timeout:?}");
    state.readiness.reach(admin::Stage::Draining);
    tokio::select! {
        all = drain.wait(drain_timeout) => if !all {
            tracing::warn!("some connections did not end in time");
        },
        Some(()) = stops.recv() => {
            tracing::warn!("second signal, ending at once");
            drain.wait(Duration::ZERO).await;
        }
    }
    let joined = tokio::task::spawn_blocking(move || fleet.join());
    if tokio::time::timeout(Duration::from_secs(2), joined).await.is_err() {
        tracing::warn!("a worker did not end");
    }
    admin_drain.wait(Duration::from_secs(1)).await;
    log.shutdown();
    failure.map_or(Ok(()), Err)
}

fn bind_all(config: &Config) -> anyhow::Result<Vec<Bound>> {
    let bind = |(index, listener): (usize, &crate::config::Listener)| {
        let sockets = bind::bind(listener.address, listener.ipv6_only, config.workers)
            .with_context(|| format!("{}: cannot listen on {}", listener.name, listener.address))?;
        let address = sockets[0].local_addr()?;
        let slots = Slots::new(listener.limits.max_connections);
        let (sockets, seats) = (sockets.into_iter(), Vec::new().into_iter());
        Ok(Bound { index, address, slots, sockets, seats })
    };
    config.listeners.iter().enumerate().map(bind).collect()
}

/// Has the program choose the worker of a connection where it can, and returns what counts its
/// choices. Where it cannot, the kernel's hash does, and the reason is told once.
///
/// Implements: REQ-EDGE-001
fn steer_all(
    config: &Config,
    bound: &mut [Bound],
    places: &[Place],
) -> Vec<(String, kernel::Steering)> {
    let mut steerings = Vec::new();
    let mut without: Vec<&str> = Vec::new();
    let (mut reason, mut asked_for) = (None, false);
    for bound in bound {
        let listener = &config.listeners[bound.index];
        match steer::steer(listener, bound.sockets.as_slice(), places) {
            Ok(None) => {}
            Ok(Some((steering, seats))) => {
                bound.seats = seats.into_iter();
                steerings.push((listener.name.clone(), steering));
            }
            // What one of them lacks the others lack, if not always in the same words.
            Err(first) => {
                without.push(&listener.name);
                reason.get_or_insert(first);
                asked_for |= listener.steering == Steering::Cpu;
            }
        }
    }
    if let Some(reason) = reason {
        let names = without.join(", ");
        match asked_for {
            true => tracing::warn!("the kernel's hash chooses the worker ({names}): {reason}"),
            false => tracing::info!("the kernel's hash chooses the worker ({names}): {reason}"),
        }
    }
    steerings
}

/// `--splice kernel` is a demand, `auto` a wish, and so is local bypass. What is not to be
/// had is told once, in one line.
///
/// Implements: REQ-TUN-002, REQ-TUN-003
fn splice_tier(config: &Config) -> anyhow::Result<Option<Arc<Kernel>>> {
    let demanded = config.splice == SpliceMode::Kernel;
    let bypass = config.listeners.iter().any(|listener| listener.local_bypass)
        || config.upstreams.iter().any(|upstream| upstream.local_bypass);
    if matches!(config.splice, SpliceMode::Copy | SpliceMode::Pipe) {
        if bypass {
            let mode = config.splice;
            tracing::warn!("no local bypass: it needs --splice auto or kernel, not {mode:?}");
        }
        return Ok(None);
    }
    let tier = probe::kernel_tier().and_then(|kernel| {
        let able = kernel.abilities();
        let bypasses = bypass && (able.bypass.is_ok() || able.half_bypass.is_ok());
        match &able.redirect {
            Err(reason) if demanded || !bypasses => Err(reason.clone()),
            _ => Ok(kernel),
        }
    });
    let kernel = match tier {
        Ok(kernel) => kernel,
        Err(reason) if demanded => {
            anyhow::bail!("--splice kernel: {reason}; --splice auto serves without it")
        }
        Err(reason) if bypass => {
            tracing::warn!("no local bypass, tunnels stay in userspace: {reason}");
            return Ok(None);
        }
        Err(reason) => {
            tracing::info!("tunnels stay in userspace: {reason}");
            return Ok(None);
        }
    };
    let able = kernel.abilities();
    if let Err(reason) = &able.redirect {
        tracing::info!("no redirects between the proxy's own sockets: {reason}");
    }
    match (&able.bypass, &able.half_bypass) {
        _ if !bypass => {}
        (Ok(()), Ok(())) => {}
        (Err(reason), Err(_)) => tracing::warn!("no local bypass: {reason}"),
        (Err(reason), Ok(())) => {
            tracing::warn!("no local bypass between two applications: {reason}");
        }
        (Ok(()), Err(reason)) => {
            tracing::warn!("no local bypass from a server to a remote client: {reason}");
        }
    }
    Ok(Some(kernel))
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

/// SIGTERM and SIGINT as messages.
fn signals() -> std::io::Result<mpsc::Receiver<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (stop, stops) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    tracing::warn!("SIGHUP: this version does not reload, restart it instead");
                    continue;
                }
            }
            if stop.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(stops)
}
