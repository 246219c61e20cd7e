//! What moved the bytes of each tunnel, and when that changed: `/tunnels`, looked at again
//! and again while traffic runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::proxy::Proxy;

/// Time between two looks.
const STEP: Duration = Duration::from_millis(40);

/// Lines that are kept of one tunnel, the latest.
const LINES: usize = 60;

/// What has been seen.
#[derive(Debug)]
pub struct History {
    proxy: Arc<Proxy>,
    seen: Mutex<Seen>,
    begin: Instant,
}

#[derive(Debug, Default)]
struct Seen {
    /// By the client's address; a port is used again, so the id is kept.
    tunnels: BTreeMap<SocketAddr, (u64, Vec<(String, String)>)>,
    names: BTreeSet<String>,
    changes: u64,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl History {
    /// Begins to look.
    pub fn watch(proxy: Arc<Proxy>) -> (Arc<Self>, Watching) {
        let history = Arc::new(Self { proxy, seen: Mutex::default(), begin: Instant::now() });
        let watching = tokio::spawn({
            let history = history.clone();
            async move {
                loop {
                    history.look().await;
                    tokio::time::sleep(STEP).await;
                }
            }
        });
        (history, Watching(watching))
    }

    /// Names of all engines that were seen at work.
    pub fn names(&self) -> BTreeSet<String> {
        self.seen.lock().expect("history").names.clone()
    }

    /// How often a tunnel was found with another engine than before.
    pub fn changes(&self) -> u64 {
        self.seen.lock().expect("history").changes
    }

    /// Of the tunnel of this client, with one more look.
    pub async fn of(&self, client: SocketAddr) -> String {
        self.look().await;
        let seen = self.seen.lock().expect("history");
        let Some((id, lines)) = seen.tunnels.get(&client) else {
            return "it was not seen in /tunnels".to_owned();
        };
        let lines = lines.iter().map(|(engines, rest)| format!("  {engines} {rest}\n"));
        format!("tunnel {id} in /tunnels:\n{}", lines.collect::<String>())
    }

    async fn look(&self) {
        let rows = self.proxy.tunnels().await;
        let at = self.begin.elapsed().as_millis();
        let mut seen = self.seen.lock().expect("history");
        for row in rows {
            let client = row["client"].as_str().and_then(|text| text.parse().ok());
            let (Some(client), Some(id)) = (client, row["id"].as_u64()) else {
                panic!("not a row of /tunnels: {row}");
            };
            let side = |way: &str| {
                let engine = &row["engine"][way];
                let name = engine["name"].as_str().unwrap_or("?").to_owned();
                let text = match engine["reason"].as_str() {
                    Some(reason) => format!("{name} ({reason})"),
                    None => name.clone(),
                };
                (name, text)
            };
            let ((up, up_text), (down, down_text)) = (side("to_upstream"), side("to_downstream"));
            seen.names.extend([up, down]);
            let engines = format!("up {up_text}, down {down_text}");
            let rest = format!("at {at} ms, bytes {}, idle {}", row["bytes"], row["idle_seconds"]);
            let entry = seen.tunnels.entry(client).or_default();
            if entry.0 != id {
                *entry = (id, Vec::new());
            }
            let changed = match entry.1.last() {
                Some(last) if last.0 == engines => {
                    // Of an unchanged state the latest look says most.
                    entry.1.pop();
                    false
                }
                Some(_) => true,
                None => false,
            };
            if entry.1.len() == LINES {
                entry.1.remove(0);
            }
            entry.1.push((engines, rest));
            seen.changes += u64::from(changed);
        }
    }
}
