//! Has each server checked that is to be: one task per server, on the control plane.
//!
//! Follows the directory: tasks of servers that come begin, those of servers that go end, and
//! one whose settings have changed begins anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use super::{
    Checked,
    check::{Verdict, check},
};
use crate::{
    config::{Health, Server},
    upstream::{
        choose::random::Random,
        directory::{Directory, Group},
        state::{ServerState, now},
    },
};

/// The first check of a server comes within this time, so that many do not come at once.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// One server that is checked.
struct Checking {
    group: Arc<Group>,
    server: Arc<ServerState>,
    health: Health,
    task: JoinHandle<()>,
}

/// Checks servers as long as the process lives.
pub async fn supervise(directory: Arc<Directory>) {
    let mut changes = directory.changes();
    let mut running: HashMap<usize, Checking> = HashMap::new();
    loop {
        changes.borrow_and_update();
        let mut before = std::mem::take(&mut running);
        for group in directory.groups() {
            let Some(health) = group.config().health.clone() else { continue };
            for member in group.roster().iter() {
                let server = Arc::clone(&member.state);
                // Its address: `Checking` keeps it alive, so nobody else gets that meanwhile.
                let id = Arc::as_ptr(&server) as usize;
                // One with other settings ends here.
                let known = before.remove(&id).filter(|known| known.health == health);
                running.entry(id).or_insert_with(|| {
                    known.unwrap_or_else(|| {
                        Checking::start(&group, server, &member.spec.address, &health)
                    })
                });
            }
        }
        // What is left is checked no more.
        before.into_values().for_each(Checking::stop);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

impl Checking {
    fn start(
        group: &Arc<Group>,
        server: Arc<ServerState>,
        named: &Server,
        health: &Health,
    ) -> Self {
        let task = run(Arc::clone(group), Arc::clone(&server), named.clone(), health.clone());
        let (group, health) = (Arc::clone(group), health.clone());
        Self { group, server, health, task: tokio::spawn(task) }
    }

    /// Nothing is known of it any more, which counts as well, unless it goes on being checked.
    fn stop(self) {
        if self.group.config().health.is_none() {
            self.server.condition.set_checked(Checked::Unknown);
            self.group.changed();
        }
    }
}

impl Drop for Checking {
    /// A task whose handle is gone would go on.
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(group: Arc<Group>, server: Arc<ServerState>, named: Server, health: Health) {
    let mut random = Random::new();
    let mut verdict = Verdict::new(&health, server.condition.checked());
    tokio::time::sleep(part(health.interval.min(FIRST_WITHIN), random.below(1000))).await;
    loop {
        let result = check(&health, server.address(), &named).await;
        server.condition.note(&result);
        if let Some(checked) = verdict.take(result.is_ok()) {
            tell(&group, &server, checked, result.as_ref().err());
            if checked == Checked::Up && server.condition.checked() == Checked::Down {
                server.returns(now());
            }
            server.condition.set_checked(checked);
            group.changed();
        }
        // A tenth more or less, so that checks of many proxies do not come together for ever.
        tokio::time::sleep(part(health.interval, 900 + random.below(201))).await;
    }
}

/// So many thousandths.
fn part(time: Duration, thousandths: u64) -> Duration {
    time.mul_f64(thousandths as f64 / 1000.0)
}

fn tell(group: &Group, server: &ServerState, checked: Checked, finding: Option<&String>) {
    let (upstream, server) = (group.name(), server.address());
    match finding {
        Some(finding) => tracing::warn!(upstream, %server, "checks find it down: {finding}"),
        None => tracing::info!(upstream, %server, "checks find it {checked:?}"),
    }
}
