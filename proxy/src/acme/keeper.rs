//! Who keeps certificates good: one task of the control plane, for as long as the process serves
//! (`desk.rs` is what it does).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::{Names, Settings, Status, Store, desk::Desk};

/// After a fault of ours, before everything is begun anew.
const FAULT_PAUSE: Duration = Duration::from_secs(300);

/// What is to be kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// By whom; without them nothing is.
    pub settings: Option<Settings>,
    /// Each certificate, once.
    pub wanted: Vec<Names>,
}

/// The task.
#[derive(Debug)]
pub struct Keeper {
    plan: watch::Sender<Plan>,
    stored: Arc<Notify>,
    task: AbortHandle,
}

impl Keeper {
    /// Starts it on this runtime. Makes the storage folder, so that it can be watched.
    pub fn start(plan: Plan, status: Arc<Status>) -> Self {
        prepare(&plan);
        let stored = Arc::new(Notify::new());
        let (sender, receiver) = watch::channel(plan);
        let task = tokio::spawn(survive(receiver, status, Arc::clone(&stored))).abort_handle();
        Self { plan: sender, stored, task }
    }

    /// Keeps this from now on. An order for what is kept no more is given up. Where nothing has
    /// changed nothing is begun anew, and pauses go on.
    pub fn follow(&self, plan: Plan) {
        prepare(&plan);
        self.plan.send_if_modified(|before| {
            let differs = *before != plan;
            *before = plan;
            differs
        });
    }

    /// What has failed is tried at once, unless the CA has asked for a pause: somebody says that
    /// it is worth it.
    pub fn try_again(&self) {
        self.plan.send_modify(|_| {});
    }

    /// Resolves when a certificate has been stored that was not seen by this before.
    pub async fn stored(&self) {
        self.stored.notified().await;
    }

    /// Ends it, with the order under way: another process may go on with that.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

fn prepare(plan: &Plan) {
    if let Some(settings) = &plan.settings
        && let Err(error) = Store::new(settings).prepare()
    {
        let folder = settings.storage.display();
        tracing::error!("acme: the storage folder {folder} cannot be used: {error}");
    }
}

/// Runs for ever, whatever becomes of one run.
async fn survive(plan: watch::Receiver<Plan>, status: Arc<Status>, stored: Arc<Notify>) {
    loop {
        // Ends with this task.
        let mut runs = JoinSet::new();
        runs.spawn(run(plan.clone(), Arc::clone(&status), Arc::clone(&stored)));
        match runs.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!("acme: a fault of ours, begun anew in {FAULT_PAUSE:?}: {error}");
                sleep(FAULT_PAUSE).await;
            }
            _ => return,
        }
    }
}

async fn run(mut plan: watch::Receiver<Plan>, status: Arc<Status>, stored: Arc<Notify>) {
    let mut first = true;
    loop {
        let now = plan.borrow_and_update().clone();
        let done = match now.settings {
            Some(settings) => {
                let mut desk = Desk::open(settings, now.wanted, &status, &stored, first);
                desk.work(&mut plan).await
            }
            None => {
                status.show(Vec::new());
                plan.changed().await
            }
        };
        first = false;
        if done.is_err() {
            return;
        }
    }
}
