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
    admin,
    config::{Config, Loaded, Sources},
};

mod control;
mod doors;
mod fleet;
mod reload;
mod signals;
mod tier;
mod watch;

use control::Control;
pub use signals::Wish;
use watch::Watch;

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
    let (mut control, addresses) = Control::start(config).await?;
    control.reached(admin::Stage::Ready);
    ready(&addresses);

    let mut watch = Watch::default();
    let failure = loop {
        let follows = S::CHANGES && control.config().watch && !sources.is_empty();
        let wish = tokio::select! {
            wish = wishes.recv() => wish,
            // Its listeners are closed, its connections gone; the rest is better started anew.
            (index, error) = control.fleet.failed() => {
                tracing::error!("worker {index} failed, the others drain: {error:#}");
                break Some(error.context(format!("worker {index} failed")));
            }
            () = watch.changed(&sources), if follows => Some(Wish::Reload),
        };
        match wish {
            // A sender that is gone asks for the end as well.
            None | Some(Wish::Stop) => break None,
            Some(Wish::Reload) => {
                let (new, read) = control.reload(&source).await;
                ready(&new);
                sources = read.unwrap_or(sources);
            }
        }
    };
    control.drain(&mut wishes).await;
    failure.map_or(Ok(()), Err)
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
