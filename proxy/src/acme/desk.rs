//! What keeps certificates good: one order at a time, for whatever is due first.
//!
//! It looks at what is stored, at the clock and at the CA's wishes at least once a minute, so
//! that a clock that jumps or a machine that slept makes no more of it than an order that is
//! late: what is due then is done one after the other. What another process has stored meanwhile
//! is taken as our own, and while another one orders nothing is done.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::{
    Names, Plan, Settings, Status, Store,
    fault::Fault,
    order::Office,
    schedule::{self, Class, LONGEST_PAUSE, Suggested, Validity},
    status::State,
    store::Failed,
};
use crate::{access_log::timestamp::Rfc3339, tls::certificate::Certificate};

/// How often everything is looked at, whatever happens.
const LOOK: Duration = Duration::from_secs(60);

/// How long another process that orders is left alone before its lock is looked at again.
const BUSY: Duration = Duration::from_secs(5);

/// For the whole of an order. What it has begun is gone on with by the next one.
const ORDER_TIMEOUT: Duration = Duration::from_secs(600);

/// How often the CA's wishes are asked for, at least and at most, and where it has none.
const WISHES: [Duration; 3] =
    [Duration::from_secs(60), Duration::from_secs(24 * 3600), Duration::from_secs(6 * 3600)];

/// The least time between two accounts: a CA that knows none of them gets no more, and the keys
/// of those before are worth keeping.
const LEAST_BETWEEN_ACCOUNTS: Duration = Duration::from_secs(24 * 3600);

/// The least time between two orders for one certificate where the first came to something, and
/// what came of it is due at once: by a window of the CA that is over before it begins, say.
const LEAST_BETWEEN: Duration = Duration::from_secs(3600);

/// Now, in Unix time, by the clock on the wall.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn date(unix: i64) -> Rfc3339 {
    Rfc3339(UNIX_EPOCH + Duration::from_secs(u64::try_from(unix).unwrap_or_default()))
}

/// One certificate.
struct Entry {
    names: Names,
    validity: Option<Validity>,
    leaf: Option<CertificateDer<'static>>,
    window: Option<Suggested>,
    /// When the CA's wishes are asked for next.
    ask: Instant,
    failed: Failed,
    /// Nothing before this.
    pause: Option<Instant>,
    /// Until this the CA's wishes are not minded: it has had its way just now.
    rest: Option<Instant>,
    ordering: bool,
}

/// What came of an order.
enum Outcome {
    Stored,
    /// Another process has been there before.
    Fresh,
    /// Another process orders.
    Busy,
    Failed(Fault),
}

/// The work on one plan.
pub(super) struct Desk<'a> {
    office: Arc<Office>,
    entries: Vec<Entry>,
    status: &'a Status,
    stored: &'a Notify,
    /// This process's part of every jitter.
    share: f64,
    /// When the account was given up, if no order has come to something since.
    retired: Option<Instant>,
}

impl<'a> Desk<'a> {
    /// `first`: this process has just begun, and minds what one before it has failed of.
    pub(super) fn open(
        settings: Settings,
        wanted: Vec<Names>,
        status: &'a Arc<Status>,
        stored: &'a Notify,
        first: bool,
    ) -> Self {
        let (store, answers) = (Store::new(&settings), Arc::clone(&status.answers));
        let office = Arc::new(Office { settings, store, answers });
        let entries = wanted.into_iter().map(|names| {
            let failed = office.store.failed(&names).ok().flatten();
            // By a reload somebody says that it is worth trying; but not against the CA's word.
            let failed = failed.filter(|failed| first || failed.by_ca).unwrap_or_default();
            let left = u64::try_from(failed.retry_at.saturating_sub(now())).unwrap_or_default();
            let left = Duration::from_secs(left);
            // One beyond that was written by another clock.
            let pause = (left <= LONGEST_PAUSE).then(|| Instant::now() + left);
            let ask = Instant::now();
            let (validity, leaf, window, rest) = (None, None, None, None);
            let ordering = false;
            Entry { names, validity, leaf, window, ask, failed, pause, rest, ordering }
        });
        let entries = entries.collect();
        Self { office, entries, status, stored, share: fastrand::f64(), retired: None }
    }

    /// Until there is another plan; `Err` if there will be none.
    pub(super) async fn work(
        &mut self,
        plan: &mut watch::Receiver<Plan>,
    ) -> Result<(), watch::error::RecvError> {
        loop {
            self.look().await;
            let Some(at) = self.due() else {
                self.show();
                let wait = self.until_next();
                tokio::select! {
                    () = self.ask_for_wishes() => sleep(Duration::from_millis(10)).await,
                    () = sleep(wait) => {}
                    changed = plan.changed() => return changed,
                }
                continue;
            };
            self.entries[at].ordering = true;
            self.show();
            let (names, leaf) = (self.entries[at].names.clone(), self.entries[at].leaf.clone());
            let before = self.renew_before();
            let share = self.share;
            let attempt = attempt(Arc::clone(&self.office), names.clone(), leaf, before, share);
            tokio::pin!(attempt);
            let mut changed = false;
            let outcome = loop {
                tokio::select! {
                    outcome = &mut attempt => break outcome,
                    more = plan.changed() => {
                        more?;
                        changed = true;
                        let plan = plan.borrow();
                        let same = plan.settings.as_ref() == Some(&self.office.settings);
                        if !(same && plan.wanted.contains(&names)) {
                            return Ok(());
                        }
                    }
                }
            };
            self.entries[at].ordering = false;
            self.settle(at, outcome).await;
            if changed {
                return Ok(());
            }
        }
    }

    /// Takes note of what is stored.
    async fn look(&mut self) {
        for entry in &mut self.entries {
            let (store, names) = (self.office.store.clone(), entry.names.clone());
            let read = spawn_blocking(move || read(&store, &names)).await.ok().flatten();
            let (validity, leaf) = read.unzip();
            if entry.leaf != leaf {
                (entry.validity, entry.leaf, entry.window) = (validity, leaf, None);
                entry.ask = Instant::now();
            }
        }
    }

    fn renew_before(&self) -> Option<i64> {
        let before = self.office.settings.renew_before?;
        Some(i64::try_from(before.as_secs()).unwrap_or(i64::MAX))
    }

    fn renew_at(&self, entry: &Entry) -> Option<i64> {
        let before = self.renew_before();
        Some(entry.validity?.renew_at(before, entry.window, self.share))
    }

    /// How long nothing is to be done for it.
    fn wait(&self, entry: &Entry) -> Duration {
        let (wall, clock) = (now(), Instant::now());
        let until = |at: Option<Instant>| {
            at.map_or(Duration::ZERO, |at| at.saturating_duration_since(clock))
        };
        let left = |at: i64| {
            Duration::from_secs(u64::try_from(at.saturating_sub(wall)).unwrap_or_default())
        };
        let Some(validity) = entry.validity else { return until(entry.pause) };
        let mut wait = self.renew_at(entry).map_or(Duration::ZERO, left);
        if entry.window.is_some() {
            // It is not the CA's wish that makes it due, if it is due without.
            let without = left(validity.renew_at(self.renew_before(), None, self.share));
            wait = wait.max(until(entry.rest).min(without));
        }
        wait.max(until(entry.pause))
    }

    /// The one to be ordered now: those that are missing first, then what ends first.
    fn due(&self) -> Option<usize> {
        let entries = self.entries.iter().enumerate();
        let due = entries.filter(|(_, entry)| self.wait(entry).is_zero());
        let by_end = |entry: &Entry| entry.validity.map(|validity| validity.not_after);
        due.min_by_key(|(_, entry)| by_end(entry)).map(|(at, _)| at)
    }

    /// How long there is nothing to be done.
    fn until_next(&self) -> Duration {
        let waits = self.entries.iter().map(|entry| self.wait(entry));
        waits.chain([LOOK]).min().unwrap_or(LOOK).max(Duration::from_millis(10))
    }

    /// Asks the CA for the time of the next renewal (RFC 9773), of one certificate. Never ends
    /// where there is none to be asked for.
    async fn ask_for_wishes(&mut self) {
        let now = Instant::now();
        let asks = |entry: &&mut Entry| entry.ask <= now && entry.leaf.is_some();
        let Some(entry) = self.entries.iter_mut().find(asks) else {
            return std::future::pending().await;
        };
        let Some(leaf) = entry.leaf.clone() else { return };
        // Before anything is waited for: this may be dropped.
        entry.ask = now + LOOK;
        match timeout(LOOK, self.office.suggestion(&leaf)).await {
            Ok(Ok((window, again))) => {
                if entry.window != Some(window) {
                    let (start, end) = (date(window.start), date(window.end));
                    tracing::info!(
                        "acme: the CA would like {} to be renewed from {start} to {end}",
                        entry.names
                    );
                }
                entry.window = Some(window);
                entry.ask = now + again.clamp(WISHES[0], WISHES[1]);
            }
            Ok(Err(fault)) => {
                entry.ask = now + WISHES[2];
                tracing::debug!("acme: {}: {fault}", entry.names);
            }
            Err(_) => tracing::debug!("acme: {}: the CA says nothing of renewal", entry.names),
        }
    }

    /// Takes note of what came of an order.
    async fn settle(&mut self, at: usize, outcome: Outcome) {
        let names = self.entries[at].names.clone();
        match outcome {
            Outcome::Busy => self.entries[at].pause = Some(Instant::now() + BUSY),
            Outcome::Fresh => {
                (self.entries[at].pause, self.entries[at].failed) = (None, Failed::default());
                self.stored.notify_one();
            }
            Outcome::Stored => {
                self.status.ended(true);
                self.retired = None;
                self.look().await;
                let until = self.entries[at].validity.map(|validity| date(validity.not_after));
                let until = until.map_or_else(String::new, |until| format!(", good until {until}"));
                tracing::info!("acme: a new certificate for {names}{until}");
                let entry = &self.entries[at];
                // One that is due at once would be ordered for ever.
                let again = self.renew_at(entry).is_none_or(|at| at <= now());
                let left =
                    entry.validity.map_or(0, |validity| validity.not_after.saturating_sub(now()));
                let third = Duration::from_secs(u64::try_from(left / 3).unwrap_or_default());
                let pause = again.then(|| Instant::now() + third.max(LEAST_BETWEEN));
                (self.entries[at].pause, self.entries[at].failed) = (pause, Failed::default());
                self.entries[at].rest = Some(Instant::now() + LEAST_BETWEEN);
                self.remember(at, false).await;
                self.stored.notify_one();
            }
            Outcome::Failed(fault) => {
                self.status.ended(false);
                self.failed(at, fault).await;
            }
        }
    }

    async fn failed(&mut self, at: usize, fault: Fault) {
        let may = self.retired.is_none_or(|at| at.elapsed() >= LEAST_BETWEEN_ACCOUNTS);
        let entry = &mut self.entries[at];
        let times = entry.failed.times.saturating_add(1);
        let mut pause = schedule::pause(fault.class, times, fault.asked, fastrand::f64());
        if fault.no_account && may && self.office.store.retire_account().is_ok() {
            tracing::warn!("acme: the CA does not know the account any more; making a new one");
            pause = Duration::from_secs(1);
            self.retired = Some(Instant::now());
        }
        let retry_at = now().saturating_add(i64::try_from(pause.as_secs()).unwrap_or(i64::MAX));
        let (by_ca, what) = (fault.asked.is_some(), fault.what);
        let names = &entry.names;
        let shown = match entry.validity {
            Some(validity) if validity.not_after > now() => {
                format!("the one before is shown on and ends at {}", date(validity.not_after))
            }
            Some(_) => "the one before has expired and is shown on".to_owned(),
            None => "there is none to show".to_owned(),
        };
        tracing::error!(
            "acme: no new certificate for {names}: {what}; {shown}; next try in {pause:.0?}"
        );
        entry.pause = Some(Instant::now() + pause);
        entry.failed = Failed { times, retry_at, by_ca, what };
        self.remember(at, fault.class != Class::Unreachable || by_ca).await;
    }

    /// Stores the failure of an entry, or that there is none.
    async fn remember(&self, at: usize, failed: bool) {
        let entry = &self.entries[at];
        let failed = failed.then(|| entry.failed.clone());
        let (store, names) = (self.office.store.clone(), entry.names.clone());
        let done = spawn_blocking(move || store.put_failed(&names, failed.as_ref())).await;
        if let Ok(Err(error)) = done {
            tracing::warn!("acme: storage: {error}");
        }
    }

    fn show(&self) {
        let states = self.entries.iter().map(|entry| {
            let waits = entry.pause.filter(|pause| *pause > Instant::now());
            State {
                names: entry.names.clone(),
                not_after: entry.validity.map(|validity| validity.not_after),
                renew_at: self.renew_at(entry),
                retry_at: waits.map(|_| entry.failed.retry_at).filter(|at| *at > 0),
                failures: entry.failed.times,
                error: (entry.failed.times > 0).then(|| entry.failed.what.clone()),
                ordering: entry.ordering,
            }
        });
        self.status.show(states.collect());
    }
}

/// What is stored for these names, if it is of use.
fn read(store: &Store, names: &Names) -> Option<(Validity, CertificateDer<'static>)> {
    let bytes = store.read_certificate(names).ok().flatten()?;
    let certificate = Certificate::ordered(names, &bytes).ok()?;
    let leaf = CertificateDer::pem_slice_iter(&bytes).next()?.ok()?;
    let Certificate { not_before, not_after, .. } = certificate;
    Some((Validity { not_before, not_after }, leaf))
}

/// One order, under the lock.
async fn attempt(
    office: Arc<Office>,
    names: Names,
    leaf: Option<CertificateDer<'static>>,
    before: Option<i64>,
    share: f64,
) -> Outcome {
    let (store, wanted) = (office.store.clone(), names.clone());
    let locked = spawn_blocking(move || {
        store.prepare()?;
        let Some(lock) = store.lock()? else { return Ok(None) };
        Ok(Some((lock, read(&store, &wanted))))
    });
    let _lock = match locked.await {
        Ok(Ok(None)) => return Outcome::Busy,
        Ok(Ok(Some((lock, stored)))) => {
            // Whoever had the lock before may have been about the same.
            let other = stored.filter(|(_, stored)| leaf.as_ref() != Some(stored));
            if other.is_some_and(|(good, _)| good.renew_at(before, None, share) > now()) {
                return Outcome::Fresh;
            }
            lock
        }
        Ok(Err(error)) => return Outcome::Failed(Fault::storage(&error)),
        Err(error) => return Outcome::Failed(Fault::unreachable(error.to_string())),
    };
    match timeout(ORDER_TIMEOUT, office.obtain(&names, leaf.as_ref())).await {
        Ok(Ok(())) => Outcome::Stored,
        Ok(Err(fault)) => Outcome::Failed(fault),
        Err(_) => Outcome::Failed(Fault::unreachable(format!("not done within {ORDER_TIMEOUT:?}"))),
    }
}
