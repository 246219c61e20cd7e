//! Who keeps certificates good: one task of the control plane, for as long as the process serves
//! (`desk.rs` is what it does).

use std::sync::Arc;

use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

use super::{Names, Settings, Status, Store, desk::Desk};

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
        let task = tokio::spawn(run(receiver, status, Arc::clone(&stored))).abort_handle();
        Self { plan: sender, stored, task }
    }

    /// Keeps this from now on. An order for what is kept no more is given up; what has failed
    /// is tried at once, unless the CA has asked for a pause.
    pub fn follow(&self, plan: Plan) {
        prepare(&plan);
        self.plan.send_replace(plan);
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
