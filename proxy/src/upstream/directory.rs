//! All upstreams of the process and their servers, over every reload of the configuration.
//!
//! The control plane keeps the [`Directory`]; a worker holds the [`Group`] of each upstream it
//! sends to, and looks at its version before each choice. A group that a reload keeps (by its
//! name) is the same group, and so is each server in it that stays (by its address).
//!
//! Invariant: changes come first and `Group::changed` after them, so that a worker that has
//! seen a version has seen all that led to it.
//!
//! Implements: REQ-EDGE-002

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::*},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, futures::Notified, watch};

use super::{
    breaker::UnderWay,
    budget::EachSecond,
    state::{Member, ServerState, now},
};
use crate::config::{self, Server};

/// The servers of a group, in the order of the configuration.
pub type Roster = Vec<Member>;

/// All upstreams.
#[derive(Debug, Default)]
pub struct Directory {
    groups: Mutex<BTreeMap<String, Arc<Group>>>,
    /// Counts what the control plane has to follow: groups and servers that come and go.
    changes: watch::Sender<u64>,
}

/// One upstream, as all threads know it.
#[derive(Debug)]
pub struct Group {
    name: Box<str>,
    version: Version,
    config: ArcSwap<config::Upstream>,
    roster: ArcSwap<Roster>,
    /// What names have been resolved to last.
    resolved: Mutex<HashMap<String, Vec<IpAddr>>>,
    /// The directory's, or one that nobody looks at.
    changes: watch::Sender<u64>,
    /// What it has to do.
    pub under_way: UnderWay,
    /// Retries that it has whatever the number of requests.
    pub each_second: EachSecond,
    /// Told when a connection ends, for those who wait to make another.
    freed: Notify,
    /// Held while the roster changes: two changes at once would lose one.
    editing: Mutex<()>,
}

// Alone on its cache line: every worker reads it for every request.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Version(AtomicU64);

impl Directory {
    /// Takes over what is configured and returns the groups in its order. State of servers
    /// that stay is kept; what is gone is forgotten once nobody uses it any more.
    pub fn apply(&self, upstreams: &[config::Upstream]) -> Vec<Arc<Group>> {
        let mut groups = lock(&self.groups);
        let applied: Vec<Arc<Group>> = upstreams
            .iter()
            .map(|upstream| match groups.get(&upstream.name) {
                Some(group) => {
                    group.apply(upstream);
                    Arc::clone(group)
                }
                None => Group::in_directory(upstream, self.changes.clone()),
            })
            .collect();
        *groups = applied.iter().map(|group| (group.name.to_string(), Arc::clone(group))).collect();
        drop(groups);
        self.changes.send_modify(|changes| *changes += 1);
        applied
    }

    /// Tells of groups and servers that come and go, and of settings that change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<Arc<Group>> {
        lock(&self.groups).get(name).cloned()
    }

    /// All groups, by name.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        lock(&self.groups).values().cloned().collect()
    }
}

impl Group {
    /// A group of its own, in no directory.
    pub fn new(upstream: &config::Upstream) -> Arc<Self> {
        Self::in_directory(upstream, watch::Sender::default())
    }

    fn in_directory(upstream: &config::Upstream, changes: watch::Sender<u64>) -> Arc<Self> {
        let group = Self {
            name: upstream.name.as_str().into(),
            version: Version::default(),
            config: ArcSwap::from_pointee(upstream.clone()),
            roster: ArcSwap::default(),
            resolved: Mutex::default(),
            changes,
            under_way: UnderWay::default(),
            each_second: EachSecond::default(),
            freed: Notify::new(),
            editing: Mutex::default(),
        };
        group.apply(upstream);
        Arc::new(group)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another number after each change of anything that a choice depends on.
    pub fn version(&self) -> u64 {
        self.version.0.load(Acquire)
    }

    /// Something has changed that a choice depends on.
    pub(super) fn changed(&self) {
        self.version.0.fetch_add(1, Release);
    }

    /// As it is configured.
    pub fn config(&self) -> Arc<config::Upstream> {
        self.config.load_full()
    }

    /// A connection to one of its servers has ended.
    pub(super) fn freed(&self) {
        self.freed.notify_waiters();
    }

    /// Resolves when one ends from now on.
    pub(super) fn until_freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// Its servers.
    pub fn roster(&self) -> Arc<Roster> {
        self.roster.load_full()
    }

    /// Sets the weight of a server (0: no new requests) until the configuration's changes;
    /// `None` goes back to that at once. False: there is no server of this address.
    pub fn set_weight(&self, address: &str, weight: Option<u32>) -> bool {
        self.each(address, |state| state.set_weight(weight))
    }

    /// Has a server drain or not, until the configuration's `drain` changes; `None` goes back
    /// to that at once. False: there is no server of this address.
    pub fn set_drain(&self, address: &str, drain: Option<bool>) -> bool {
        self.each(address, |state| state.set_drain(drain))
    }

    /// `change` for the server of this address (`host:port`), or for all that this name has.
    fn each(&self, address: &str, change: impl Fn(&ServerState)) -> bool {
        let roster = self.roster.load();
        let mut found = false;
        let is_it = |member: &&Member| {
            let named = [member.state.address(), &member.spec.address];
            named.iter().any(|server| server.to_string() == address)
        };
        for member in roster.iter().filter(is_it) {
            change(&member.state);
            found = true;
        }
        if found {
            self.changed();
        }
        found
    }

    /// To be held while state of several servers is looked at and changed together.
    pub(super) fn edit(&self) -> MutexGuard<'_, ()> {
        lock(&self.editing)
    }

    /// The addresses of a name are these from now on.
    pub(super) fn resolved(&self, name: &str, addresses: &[IpAddr]) {
        let editing = self.edit();
        let mut resolved = lock(&self.resolved);
        resolved.insert(name.to_owned(), addresses.to_vec());
        let roster = roster(&self.roster.load(), &self.config.load(), &resolved);
        drop(resolved);
        self.roster.store(Arc::new(roster));
        self.changed();
        drop(editing);
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn apply(&self, upstream: &config::Upstream) {
        let _editing = self.edit();
        let mut resolved = lock(&self.resolved);
        let named = |name: &String| upstream.servers.iter().any(|s| s.address.host == *name);
        resolved.retain(|name, _| upstream.dns.is_some() && named(name));
        let roster = roster(&self.roster.load(), upstream, &resolved);
        drop(resolved);
        self.config.store(Arc::new(upstream.clone()));
        self.roster.store(Arc::new(roster));
        self.changed();
    }
}

/// The servers of an upstream; those that were in it before keep their state.
fn roster(
    before: &Roster,
    upstream: &config::Upstream,
    resolved: &HashMap<String, Vec<IpAddr>>,
) -> Roster {
    let mut roster = Roster::with_capacity(upstream.servers.len());
    for spec in &upstream.servers {
        let addresses = match resolved.get(&spec.address.host) {
            Some(addresses) => addresses
                .iter()
                .map(|ip| Server { host: ip.to_string(), port: spec.address.port })
                .collect(),
            None => vec![spec.address.clone()],
        };
        for address in addresses {
            let is_it = |member: &&Member| *member.state.address() == address;
            let state = match before.iter().find(is_it) {
                Some(known) => {
                    // What the file says anew goes over what was set by hand.
                    if known.spec.weight != spec.weight {
                        known.state.set_weight(None);
                    }
                    if known.spec.drain != spec.drain {
                        known.state.set_drain(None);
                    }
                    Arc::clone(&known.state)
                }
                // Named twice, it is one server all the same.
                None => match roster.iter().find(is_it) {
                    Some(twin) => Arc::clone(&twin.state),
                    None => newcomer(before, spec, address),
                },
            };
            roster.push(Member { spec: spec.clone(), state });
        }
    }
    roster
}

/// A server of which nothing is known. It may be cold, unless the group is new with it, or its
/// name stood for it so far.
fn newcomer(before: &Roster, spec: &config::UpstreamServer, address: Server) -> Arc<ServerState> {
    let stood = before.iter().any(|member| *member.state.address() == spec.address);
    let state = ServerState::new(address);
    if !before.is_empty() && !stood {
        state.returns(now());
    }
    state
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole after every step, so a panic elsewhere leaves it usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(servers: &str) -> Vec<config::Upstream> {
        let text = format!(
            "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
             [[upstream]]\nname = \"u\"\nservers = [{servers}]\n"
        );
        config::parse(&text, "test").unwrap().upstreams
    }

    fn weights(group: &Group) -> Vec<(String, u32, bool)> {
        let of = |m: &Member| (m.spec.to_string(), m.weight(), m.is_draining());
        group.roster().iter().map(of).collect()
    }

    #[test]
    fn a_reload_keeps_what_was_set_for_servers_that_stay() {
        let directory = Directory::default();
        let group = directory.apply(&upstreams("\"a:1\", \"b:1\"")).remove(0);
        let first = group.version();
        assert!(group.set_weight("b:1", Some(7)));
        assert!(group.set_drain("a:1", Some(true)));
        assert!(!group.set_weight("c:1", Some(7)), "nobody has this address");
        assert!(group.version() > first);

        // `a` goes, `c` comes, `b` stays.
        let again = directory.apply(&upstreams("\"c:1\", \"b:1\"")).remove(0);
        assert!(Arc::ptr_eq(&group, &again));
        let wanted = [("c:1".to_owned(), 1, false), ("b:1".to_owned(), 7, false)];
        assert_eq!(weights(&group), wanted);

        // `a` is back, and nothing is known of it.
        directory.apply(&upstreams("\"a:1\", \"b:1\""));
        assert_eq!(weights(&group)[0], ("a:1".to_owned(), 1, false));
    }

    #[test]
    fn what_the_file_says_anew_goes_over_what_was_set_by_hand() {
        let directory = Directory::default();
        let group = directory.apply(&upstreams("{ address = \"a:1\", weight = 2 }")).remove(0);
        group.set_weight("a:1", Some(9));
        group.set_drain("a:1", Some(true));
        directory.apply(&upstreams("{ address = \"a:1\", weight = 2 }"));
        assert_eq!(weights(&group), [("a:1".to_owned(), 9, true)]);
        directory.apply(&upstreams("{ address = \"a:1\", weight = 3 }"));
        assert_eq!(weights(&group), [("a:1".to_owned(), 3, true)]);
        group.set_drain("a:1", None);
        assert_eq!(weights(&group), [("a:1".to_owned(), 3, false)]);
    }

    #[test]
    fn a_group_that_is_gone_is_forgotten() {
        let directory = Directory::default();
        let group = directory.apply(&upstreams("\"a:1\"")).remove(0);
        directory.apply(&[]);
        assert!(directory.group("u").is_none() && directory.groups().is_empty());
        let another = directory.apply(&upstreams("\"a:1\"")).remove(0);
        assert!(!Arc::ptr_eq(&group, &another));
    }
}
