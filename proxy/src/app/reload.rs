//! From one configuration to the next while the process serves: all of it, or nothing.
//!
//! What can fail is done first and touches nothing that serves: the files are read and
//! checked, addresses bound, files opened, sockets registered by the workers. Then every worker
//! goes by the new configuration, which cannot fail. Requests that are under way keep what they
//! began with.
//!
//! Some settings are those of threads, programs or sockets that exist. Where such a one has
//! changed, the rest is carried out, the setting stays, and a warning names it: an operator
//! who changed ten things does not want nine of them held back until the next restart, and
//! `/config` shows what is in force.
//!
//! Implements: REQ-EDGE-008, REQ-CTRL-005

use std::sync::Arc;

use anyhow::Context as _;
use tokio::{net::TcpListener, sync::oneshot, task::spawn_blocking};

use super::{
    Address, Source, certificates,
    control::{Admin, Control},
    doors::Plan,
    state_file,
    tier::wants_bypass,
};
use crate::{
    access_log::AccessLog,
    admin::write::NotDone,
    config::{Config, Edit, Loaded, Overlay, Sources, value},
    listener::inherited::Inherited,
    worker::{
        Snapshot,
        orders::{Change, Order},
    },
};

/// The addresses that are new, or why nothing is.
pub(super) type Done = Result<Vec<Address>, NotDone>;

/// What has been made for a configuration that is not in force yet.
struct Ready {
    config: Config,
    plan: Plan,
    log: Option<Option<std::fs::File>>,
    /// `None`: it stays where it is.
    admin: Option<Option<(std::net::SocketAddr, TcpListener)>>,
}

impl Control {
    /// Goes by the configuration as it is now, or stays with the one in force. Returns the
    /// addresses that are new or what was wrong, and what has been read.
    pub(super) async fn reload<S: Source>(&mut self, source: &S) -> (Done, Option<Sources>) {
        if !S::CHANGES {
            let what = "nothing to reload: the configuration came by flags alone";
            tracing::warn!("{what}");
            return (Err(NotDone::Failed(what.to_owned())), None);
        }
        let source = source.clone();
        let Ok(Loaded { config, sources }) = spawn_blocking(move || source.load()).await else {
            // Its panic has been told by the hook.
            self.process.admin.metrics.configuration().refused();
            return (Err(NotDone::Failed("it could not be read".to_owned())), None);
        };
        let changed = match config {
            Ok(base) => self.come_to(base, self.overlay.clone()).await,
            Err(errors) => Err(errors.into()),
        };
        let metrics = self.process.admin.metrics.configuration();
        match changed {
            Ok(new) => {
                metrics.reloaded();
                (Ok(new), Some(sources))
            }
            Err(error) => {
                metrics.refused();
                // One line, however many problems.
                let problems = format!("{error:#}").replace('\n', " | ");
                tracing::error!("configuration refused, the one before stays: {problems}");
                (Err(NotDone::Failed(problems)), Some(sources))
            }
        }
    }

    /// Makes a change of upstreams, and stores it where changes are stored.
    pub(super) async fn edit(&mut self, edit: &Edit) -> Done {
        let mut overlay = self.overlay.clone();
        overlay.edit(edit, &self.base).map_err(NotDone::Refused)?;
        let failed = |error: anyhow::Error| {
            tracing::error!("not changed: {error:#}");
            NotDone::Failed(format!("{error:#}"))
        };
        let new = self.come_to(self.base.clone(), overlay).await.map_err(failed)?;
        tracing::info!("changed by hand: {edit:?}");
        if let Some(path) = self.config().state_file.as_deref()
            && let Err(error) = state_file::store(path, &self.overlay)
        {
            let what = format!("{}: {error}", path.display());
            tracing::error!("in force, but not stored: {what}");
            return Err(NotDone::Unstored(what));
        }
        Ok(new)
    }

    /// Goes by what the files say with an overlay over it.
    async fn come_to(&mut self, base: Config, overlay: Overlay) -> anyhow::Result<Vec<Address>> {
        let mut config = base.clone();
        overlay.apply(&mut config);
        let new = self.change(config).await?;
        (self.base, self.overlay) = (base, overlay);
        Ok(new)
    }

    async fn change(&mut self, config: Config) -> anyhow::Result<Vec<Address>> {
        let mut warnings = config.warnings.clone();
        let mut ready = self.make_ready(config, &mut warnings).await?;
        if let Err(error) = self.prepare(&mut ready.plan).await {
            self.fleet.order(|| Order::Forget);
            return Err(error);
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let new = self.put_in_force(ready).await;
        let opened: Vec<_> =
            new.iter().map(|Address { name, address, .. }| format!("{name} {address}")).collect();
        let opened = if opened.is_empty() { "none".to_owned() } else { opened.join(", ") };
        tracing::info!("configuration reloaded; new addresses: {opened}");
        Ok(new)
    }

    /// Binds and opens what the configuration needs.
    async fn make_ready(
        &mut self,
        mut config: Config,
        warnings: &mut Vec<String>,
    ) -> anyhow::Result<Ready> {
        let running = self.config();
        keep(&running, &mut config, warnings);
        if self.process.kernel.is_none() && wants_bypass(&config) && !wants_bypass(&running) {
            warnings
                .push("`local_bypass` needs a restart: the programs are loaded at start".into());
        }
        if let Some(path) = config.state_file.as_deref()
            && config.state_file != running.state_file
        {
            state_file::probe(path)?;
        }
        let plan =
            self.doors.plan(&mut config, &self.places, &mut Inherited::default(), warnings)?;
        // A file is opened anew even under its old name: it may have been moved away.
        let log = match config.log.access == running.log.access && !is_file(&config) {
            true => None,
            false => Some(AccessLog::sink(&config.log).context("opening the access log")?),
        };
        let admin = match (config.admin, self.admin.as_ref().map(|admin| admin.asked)) {
            (wanted, has) if wanted == has => None,
            (Some(address), _) => Some(Some(Admin::bind(address).await?)),
            (None, _) => Some(None),
        };
        Ok(Ready { config, plan, log, admin })
    }

    /// Has every worker register its new sockets.
    async fn prepare(&self, plan: &mut Plan) -> anyhow::Result<()> {
        let mut answers = Vec::new();
        let mut shares = std::mem::take(&mut plan.shares).into_iter();
        self.fleet.order(|| {
            let (done, answer) = oneshot::channel();
            answers.push(answer);
            Order::Prepare(shares.next().unwrap_or_default(), done)
        });
        for (index, answer) in answers.into_iter().enumerate() {
            let prepared = answer.await.unwrap_or_else(|_| Err(std::io::Error::other("it ended")));
            prepared.with_context(|| format!("worker {index} cannot take the sockets"))?;
        }
        Ok(())
    }

    async fn put_in_force(&mut self, ready: Ready) -> Vec<Address> {
        let Ready { config, plan, log, admin } = ready;
        let before = self.process.snapshot.load_full();
        let snapshot = Arc::new(Snapshot::new(config, &self.process.directory, Some(&before)));
        let change = Change { snapshot: Arc::clone(&snapshot), doors: self.doors.ids(&plan) };
        self.process.snapshot.store(Arc::clone(&snapshot));
        // Before the workers: what they store by new routes can be forgotten from the first on.
        self.process.admin.cache.get().inspect(|cache| cache.follow(&snapshot.config));
        let mut answers = Vec::new();
        self.fleet.order(|| {
            let (done, answer) = oneshot::channel();
            answers.push(answer);
            Order::Apply(change.clone(), done)
        });
        for answer in answers {
            // One that has ended serves nobody by the old one either.
            let _ = answer.await;
        }
        let state = Arc::clone(&self.process.admin);
        let mut new = self.doors.carry_out(plan, &snapshot.config, &state.metrics);
        if let Some(sink) = log {
            self.log.switch(sink);
        }
        if let Some(admin) = admin {
            new.extend(self.admin_moves(admin));
        }
        state.metrics.certificates().are(certificates::of(&snapshot.config));
        self.acme.follow(certificates::plan(&snapshot.config));
        state.token.store(snapshot.config.admin_token.clone().map(Arc::new));
        state.config_text.store(Arc::new(snapshot.config.effective()));
        new
    }
}

/// Sets back what needs a restart, and says so.
fn keep(running: &Config, config: &mut Config, warnings: &mut Vec<String>) {
    fn keep<T: PartialEq + Copy>(
        key: &str,
        running: T,
        new: &mut T,
        show: impl Fn(T) -> String,
        warnings: &mut Vec<String>,
    ) {
        if running != *new {
            let (wanted, stays) = (show(*new), show(running));
            warnings.push(format!("`{key} = {wanted}` needs a restart, it stays {stays}"));
            *new = running;
        }
    }
    let splice = |mode| format!("\"{}\"", value::word(&mode, value::SPLICE));
    let format = |form| format!("\"{}\"", value::word(&form, value::LOG_FORMAT));
    let number = |n: usize| n.to_string();
    let switch = |on: bool| on.to_string();
    keep("workers", running.workers, &mut config.workers, number, warnings);
    keep("pin_workers", running.pin_workers, &mut config.pin_workers, switch, warnings);
    keep("splice", running.splice, &mut config.splice, splice, warnings);
    keep("ktls", running.ktls, &mut config.ktls, switch, warnings);
    let lines = |log: &crate::config::Log| (log.fields.clone(), log.sample_ratio);
    if lines(&running.log) != lines(&config.log) {
        warnings
            .push("other `access_fields` or another `access_sample_ratio` need a restart".into());
        (config.log.fields, config.log.sample_ratio) = lines(&running.log);
    }
    if running.tracing != config.tracing {
        warnings.push("another `[tracing]` needs a restart, it stays as it is".into());
        config.tracing.clone_from(&running.tracing);
    }
    if running.record != config.record {
        warnings.push("another `[record]` needs a restart, it stays as it is".into());
        config.record.clone_from(&running.record);
    }
    if !hold_alike(running.cache.as_ref(), config.cache.as_ref()) {
        warnings.push(
            "another size, folder or `fleet` of `[cache]` needs a restart, it stays as it is"
                .into(),
        );
        match (&running.cache, &mut config.cache) {
            (Some(before), Some(cache)) => {
                (cache.memory_bytes, cache.block_bytes) = (before.memory_bytes, before.block_bytes);
                cache.disk.clone_from(&before.disk);
                cache.fleet.clone_from(&before.fleet);
                cache.uncacheable_ttl = before.uncacheable_ttl;
            }
            (before, cache) => cache.clone_from(before),
        }
    }
    if running.handover != config.handover {
        config.handover.clone_from(&running.handover);
        warnings.push("another `handover` needs a restart, it stays".to_owned());
    }
    keep("[log] format", running.log.format, &mut config.log.format, format, warnings);
}

/// Whether these want the same of what is made at the start.
fn hold_alike(one: Option<&crate::config::Cache>, other: Option<&crate::config::Cache>) -> bool {
    let held = |cache: &crate::config::Cache| {
        let sizes = (cache.memory_bytes, cache.block_bytes, cache.uncacheable_ttl);
        (sizes, cache.disk.clone(), cache.fleet.clone())
    };
    one.map(held) == other.map(held)
}

fn is_file(config: &Config) -> bool {
    matches!(config.log.access, crate::config::AccessLog::File(_))
}
