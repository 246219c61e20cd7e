//! The composition root: binds, starts the control plane and the workers, follows changes of
//! the configuration, waits for a signal, drains.
//!
//! Nothing on the path of a request imports this.
//!
//! Implements: REQ-CTRL-005

use std::{io::Write as _, net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::{
    admin::{
        self,
        write::{Ask, Wanted},
    },
    config::{Config, Loaded, Sources},
    listener::inherited::Inherited,
};

mod certificates;
mod control;
mod doors;
mod fleet;
mod handover;
mod notify;
mod reload;
mod signals;
mod state_file;
mod tier;
mod watch;

use control::Control;
use handover::{Gate, take::Taking};
use notify::{State, notify};
pub use signals::Wish;
use watch::Watch;

/// Threads of the control plane. It serves one scraper and a few people.
const CONTROL_THREADS: usize = 1;

/// Where a listener was bound.
#[derive(Debug, Clone)]
pub struct Address {
    /// Its name.
    pub name: String,
    /// `http` or `tcp`; `https` or `tls` where TLS is around it.
    pub scheme: &'static str,
    /// The address.
    pub address: SocketAddr,
}

/// Where configurations come from.
pub trait Source: Clone + Send + 'static {
    /// Whether there may be another one at another time.
    const CHANGES: bool;

    /// Reads and checks it as it is now. May block.
    fn load(&self) -> Loaded;
}

/// One that was made once and stays.
impl Source for Config {
    const CHANGES: bool = false;

    fn load(&self) -> Loaded {
        Loaded { config: Ok(self.clone()), sources: Sources::default() }
    }
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
    run_from(config.clone(), config, Sources::default())
}

/// The same with a configuration that may change: `config` is what `source` gave, read from
/// `sources`.
///
/// # Errors
/// As [`run`].
pub fn run_from(source: impl Source, config: Config, sources: Sources) -> anyhow::Result<()> {
    run_with(source, (config, sources), signals::signals, |addresses| {
        let mut stdout = std::io::stdout().lock();
        for Address { name, scheme, address } in addresses {
            // Whoever closed our standard output does not want to know.
            let _ = writeln!(stdout, "listening {name} {scheme}://{address}");
        }
        let _ = stdout.flush();
    })
}

/// The same with both ends in the caller's hands: `wishes` makes what takes the place of
/// signals, and `ready` is told where the listeners are, first and after each change those that
/// are new.
///
/// # Errors
/// As [`run`], and as `wishes`.
pub fn run_with(
    source: impl Source,
    (config, sources): (Config, Sources),
    wishes: impl FnOnce() -> std::io::Result<mpsc::Receiver<Wish>>,
    ready: impl FnMut(&[Address]),
) -> anyhow::Result<()> {
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("starting the control plane")?;
    let outcome = control.block_on(async {
        // Before anything is announced: a signal from now on drains.
        let wishes = wishes().context("listening for signals")?;
        serve(source, (config, sources), wishes, ready).await
    });
    // Nothing of it is worth waiting for: the drain is over.
    control.shutdown_timeout(Duration::from_millis(100));
    outcome
}

async fn serve<S: Source>(
    source: S,
    (config, mut sources): (Config, Sources),
    mut wishes: mpsc::Receiver<Wish>,
    mut ready: impl FnMut(&[Address]),
) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let (taking, inherited) = inherit(&config).await?;
    let path = config.handover.clone();
    let (mut control, addresses) = Control::start(config, inherited).await?;
    let (asks, mut asked) = mpsc::channel(1);
    // Set once, here.
    let _ = control.process.admin.asks.set(asks);
    control.reached(admin::Stage::Ready);
    if let Some(taking) = taking {
        taking.ready().await;
    }
    // Only now: the process before may have been needed yet.
    let gate = match &path {
        Some(path) => Some(
            Gate::open(path)
                .with_context(|| format!("handover: cannot listen on {}", path.display()))?,
        ),
        None => None,
    };
    notify(State::Ready);
    ready(&addresses);

    let mut watch = Watch::default();
    let (mut renewal, mut certificates) =
        (Watch::default(), certificates::sources(&control.config()));
    let mut handed_over = false;
    let failure = loop {
        let follows = S::CHANGES && control.config().watch && !sources.is_empty();
        let wish = tokio::select! {
            wish = wishes.recv() => wish,
            // Its listeners are closed, its connections gone; the rest is better started anew.
            (index, error) = control.fleet.failed() => {
                tracing::error!("worker {index} failed, the others drain: {error:#}");
                break Some(error.context(format!("worker {index} failed")));
            }
            () = watch.changed(&sources), if follows => Some(Wish::Follow),
            () = renewal.changed(&certificates), if !certificates.is_empty() => {
                certificates = control.renew_certificates().await;
                continue;
            }
            // A folder that was not there at first is not watched.
            () = control.acme.stored() => {
                certificates = control.renew_certificates().await;
                continue;
            }
            Some(ask) = asked.recv() => {
                let Ask { wanted, answer } = ask;
                let done = match wanted {
                    Wanted::Reload => {
                        notify(State::Reloading);
                        let (done, read) = control.reload(&source).await;
                        notify(State::Ready);
                        if done.is_ok() {
                            control.acme.try_again();
                        }
                        sources = read.unwrap_or(sources);
                        done
                    }
                    Wanted::Edit(edit) => control.edit(&edit).await,
                };
                // Who asked may have gone.
                let _ = answer.send(done.map(|new| ready(&new)));
                certificates = certificates::sources(&control.config());
                continue;
            }
            stream = async { gate.as_ref()?.knocked().await.into() }, if gate.is_some() => {
                let Some(stream) = stream else { continue };
                tokio::select! {
                    done = control.hand_over(stream) => handed_over = done,
                    // Whoever takes over goes on with it, or does not; this one is to end.
                    () = control::asked_to_stop(&mut wishes) => break None,
                }
                if handed_over {
                    break None;
                }
                continue;
            }
        };
        match wish {
            // A sender that is gone asks for the end as well.
            None | Some(Wish::Stop) => break None,
            Some(Wish::Upgrade) => upgrade(gate.as_ref()),
            Some(wish @ (Wish::Reload | Wish::Follow)) => {
                notify(State::Reloading);
                let (done, read) = control.reload(&source).await;
                notify(State::Ready);
                if done.is_ok() && matches!(wish, Wish::Reload) {
                    control.acme.try_again();
                }
                // What was wrong has been told.
                ready(&done.unwrap_or_default());
                sources = read.unwrap_or(sources);
                certificates = certificates::sources(&control.config());
            }
        }
    };
    if !handed_over {
        notify(State::Stopping);
    }
    drop(gate);
    control.drain(handed_over, &mut wishes).await;
    failure.map_or(Ok(()), Err)
}

/// The sockets that another process has bound for this one.
async fn inherit(config: &Config) -> anyhow::Result<(Option<Taking>, Inherited)> {
    let inherited = Inherited::from_environment().context("socket activation")?;
    if !config.take_over {
        return Ok((None, inherited));
    }
    let Some(path) = &config.handover else {
        anyhow::bail!("--take-over needs `handover`, the socket on which processes meet");
    };
    match handover::take::take(path).await? {
        Some((taking, inherited)) => Ok((Some(taking), inherited)),
        None => {
            tracing::info!("nobody to take over from at {}", path.display());
            Ok((None, inherited))
        }
    }
}

/// Starts what is to take over.
fn upgrade(gate: Option<&Gate>) {
    let Some(gate) = gate else {
        return tracing::warn!("SIGUSR2: no `handover`, so a new process cannot take over");
    };
    match handover::spawn::spawn() {
        Ok(pid) => {
            tracing::info!("process {pid} is to take over at {}", gate.path.display());
        }
        Err(error) => tracing::error!("cannot start a process that takes over: {error}"),
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
