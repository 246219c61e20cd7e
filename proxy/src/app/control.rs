//! What the control plane holds of a serving process: its doors and workers, its log and admin
//! endpoint, and the configuration in force.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::{net::TcpListener, sync::mpsc};

use super::{
    Address, Wish, certificates,
    doors::Doors,
    fleet::Fleet,
    state_file,
    tier::{ktls_tier, splice_tier},
};
use crate::{
    access_log::AccessLog,
    acme::Keeper,
    admin,
    cache::Cache,
    config::{Config, Overlay},
    drain,
    listener::inherited::Inherited,
    metrics::Metrics,
    placement::{self, Place},
    record::{Recorder, Shipper},
    spans::Exporter,
    splice::kernel::give_back,
    tunnel::{registry::Registry, watch},
    upstream::{directory::Directory, health, names},
    worker::{Process, Snapshot, thread},
};

/// A serving process, seen from the control plane.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) process: Arc<Process>,
    pub(super) places: Vec<Place>,
    pub(super) doors: Doors,
    pub(super) fleet: Fleet,
    pub(super) log: AccessLog,
    exporter: Option<Exporter>,
    recorder: Option<(Recorder, Option<Shipper>)>,
    pub(super) admin: Option<Admin>,
    pub(super) drain: drain::Drain,
    /// What the files say, and what was changed over it.
    pub(super) base: Config,
    pub(super) overlay: Overlay,
    /// Who orders certificates.
    pub(super) acme: Keeper,
}

/// The admin endpoint.
#[derive(Debug)]
pub(super) struct Admin {
    /// As it was asked for.
    pub(super) asked: SocketAddr,
    /// A copy, for a hand-over.
    socket: OwnedFd,
    drain: drain::Drain,
}

impl Control {
    /// Binds everything that is not `inherited` and starts the workers; returns when all of
    /// them serve, with the addresses.
    pub(super) async fn start(
        mut config: Config,
        mut inherited: Inherited,
    ) -> anyhow::Result<(Self, Vec<Address>)> {
        let base = config.clone();
        let overlay = match &config.state_file {
            Some(path) => {
                state_file::probe(path)?;
                state_file::load(path)?
            }
            None => Overlay::default(),
        };
        let told = config.warnings.len();
        overlay.apply(&mut config);
        config.warnings[told..].iter().for_each(|warning| tracing::warn!("{warning}"));
        let kernel = splice_tier(&config)?;
        let ktls = ktls_tier(&config);
        if let Some(log) = kernel.as_ref().and_then(|kernel| kernel.take_log()) {
            tokio::spawn(log.drain());
        }
        let workers = config.workers;
        let places = placement::of_workers(workers, config.pin_workers);
        let admin_socket = match config.admin {
            Some(address) => Some(match inherited.take("admin", address).pop() {
                Some(socket) => Admin::over(address, socket)?,
                None => Admin::bind(address).await?,
            }),
            None => None,
        };
        let tunnels = Arc::new(Registry::default());
        let metrics = Metrics::new(workers, Registry::clone(&tunnels));
        tokio::spawn(watch::watch(Registry::clone(&tunnels)));
        let log = AccessLog::open(&config.log, metrics.access_log_dropped())
            .context("opening the access log")?;
        let (tracer, exporter) = config
            .tracing
            .clone()
            .map(|collector| Exporter::start(collector, metrics.spans()))
            .unzip();
        let recorder = match &config.record {
            Some(record) => {
                let started = Recorder::start(record, workers, metrics.record().clone());
                let directory = record.directory.display();
                let recorder =
                    started.with_context(|| format!("record: cannot write to {directory}"))?;
                let shipper = record.ship.clone().map(|to| {
                    Shipper::start(to, record.directory.clone(), metrics.record().clone())
                });
                Some((recorder, shipper))
            }
            None => None,
        };
        let cache = config.cache.as_ref().map(|cache| Cache::new(cache, metrics.cache().clone()));
        cache.iter().for_each(|cache| cache.follow(&config));
        let mut doors = Doors::default();
        // Nothing is open, so there is nothing that could not change.
        let plan = doors.plan(&mut config, &places, &mut inherited, &mut Vec::new())?;
        give_back();
        if !inherited.is_empty() {
            let names = inherited.names().join(", ");
            tracing::warn!("sockets that no listener wants are closed: {names}");
        }
        drop(inherited);

        let directory = Arc::new(Directory::default());
        metrics.upstreams(&directory);
        tokio::spawn(health::supervise::supervise(Arc::clone(&directory)));
        tokio::spawn(names::supervise(Arc::clone(&directory)));
        let (upstreams, shown) = (Arc::clone(&directory), config.effective());
        let state = admin::State::new(metrics, Arc::clone(&tunnels), upstreams, shown);
        if let Some(cache) = &cache {
            // Set once, here.
            let _ = state.cache.set(Arc::clone(cache));
        }
        state.token.store(config.admin_token.clone().map(Arc::new));
        state.metrics.certificates().are(certificates::of(&config));
        let orders = Arc::clone(state.metrics.certificates().orders());
        let plan_of_orders = certificates::plan(&config);
        let process = Arc::new(Process {
            splice: config.splice,
            ktls,
            tracer,
            kernel,
            cache,
            snapshot: ArcSwap::from_pointee(Snapshot::new(config, &directory, None)),
            directory,
            tunnels,
            admin: Arc::clone(&state),
            answers: Arc::clone(&orders.answers),
        });
        let snapshot = process.snapshot.load_full();
        let (drain, watch) = drain::channel();
        let mut started = Vec::new();
        let (ids, mut plan) = (doors.ids(&plan), plan);
        let shares = std::mem::take(&mut plan.shares);
        for ((index, place), shares) in places.iter().cloned().enumerate().zip(shares) {
            process.admin.metrics.placed(index, &place);
            let worker = thread::spawn(
                (index, place),
                Arc::clone(&process),
                (log.worker(), recorder.as_ref().map(|(recorder, _)| recorder.lane(index))),
                watch.clone(),
                (shares, ids.clone()),
            )
            .context("starting a worker")?;
            started.push(worker);
        }
        drop(watch);
        let fleet = Fleet::assemble(started).await?;
        let mut addresses = doors.carry_out(plan, &snapshot.config, &state.metrics);
        let mut control = Self {
            process,
            places,
            doors,
            fleet,
            log,
            exporter,
            recorder,
            admin: None,
            drain,
            base,
            overlay,
            // Last: what a CA looks at is answered from here on.
            acme: Keeper::start(plan_of_orders, orders),
        };
        addresses.extend(control.admin_moves(admin_socket));
        Ok((control, addresses))
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.process.snapshot.load().config)
    }

    /// Tells who asks `/readyz`.
    pub(super) fn reached(&self, stage: admin::Stage) {
        self.process.admin.readiness.reach(stage);
    }

    /// Serves the admin endpoint at another place from now on, or nowhere.
    pub(super) fn admin_moves(&mut self, to: Option<(SocketAddr, TcpListener)>) -> Option<Address> {
        if let Some(mut old) = self.admin.take() {
            tokio::spawn(async move { old.end().await });
        }
        let (asked, socket) = to?;
        let address = socket.local_addr().ok()?;
        let copy = socket.as_fd().try_clone_to_owned().ok()?;
        let (drain, watch) = drain::channel();
        tokio::spawn(admin::serve(socket, Arc::clone(&self.process.admin), watch));
        self.admin = Some(Admin { asked, socket: copy, drain });
        Some(Address { name: "admin".into(), scheme: "http", address })
    }

    /// Finishes what is open, and ends the rest at the deadline or when asked a second time.
    /// `handed_over`: another process serves, so that kept connections may end by themselves.
    pub(super) async fn drain(mut self, handed_over: bool, wishes: &mut mpsc::Receiver<Wish>) {
        let timeout = self.config().drain_timeout;
        tracing::info!("draining, at most {timeout:?}");
        self.acme.stop();
        self.reached(admin::Stage::Draining);
        let ended = async {
            match handed_over {
                true => self.drain.left(timeout).await || self.drain.wait(Duration::ZERO).await,
                false => self.drain.wait(timeout).await,
            }
        };
        tokio::select! {
            all = ended => if !all {
                tracing::warn!("some connections did not end in time");
            },
            () = asked_to_stop(wishes) => {
                tracing::warn!("another signal, ending at once");
                self.drain.wait(Duration::ZERO).await;
            }
        }
        let cache = self.process.cache.clone();
        let Self { fleet, admin, log, exporter, recorder, .. } = self;
        let joined = tokio::task::spawn_blocking(move || fleet.join());
        if tokio::time::timeout(Duration::from_secs(2), joined).await.is_err() {
            tracing::warn!("a worker did not end");
        }
        // The admin endpoint went on while the data plane drained, to show how far it was.
        if let Some(mut admin) = admin {
            admin.end().await;
        }
        if let Some(exporter) = exporter {
            exporter.finish(Duration::from_secs(2)).await;
        }
        log.shutdown();
        if let Some(cache) = cache {
            // What waits is written, and the folder let go. Not for long.
            let _ = tokio::task::spawn_blocking(move || cache.store.close()).await;
        }
        if let Some((recorder, shipper)) = recorder {
            // It waits for the disk, if not for long.
            let _ = tokio::task::spawn_blocking(|| recorder.shutdown()).await;
            if let Some(shipper) = shipper {
                shipper.finish(Duration::from_secs(2)).await;
            }
        }
    }
}

impl Admin {
    /// The socket of an admin endpoint, with the address that was asked for.
    ///
    /// # Errors
    /// As bind(2).
    pub(super) async fn bind(asked: SocketAddr) -> anyhow::Result<(SocketAddr, TcpListener)> {
        let socket = TcpListener::bind(asked)
            .await
            .with_context(|| format!("admin: cannot listen on {asked}"))?;
        Ok((asked, socket))
    }

    /// The endpoint on a socket that another process has bound.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    fn over(
        asked: SocketAddr,
        socket: std::net::TcpListener,
    ) -> anyhow::Result<(SocketAddr, TcpListener)> {
        socket.set_nonblocking(true)?;
        Ok((asked, TcpListener::from_std(socket)?))
    }

    /// A copy of its socket; `None` if there is no descriptor to be had.
    pub(super) fn lend(&self) -> Option<OwnedFd> {
        self.socket.try_clone().ok()
    }

    pub(super) async fn end(&mut self) {
        self.drain.wait(Duration::from_secs(1)).await;
    }
}

/// Resolves at the next wish to stop; never if there is nobody left to wish.
pub(super) async fn asked_to_stop(wishes: &mut mpsc::Receiver<Wish>) {
    loop {
        match wishes.recv().await {
            Some(Wish::Stop) => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}
