//! The routes of one listener, compiled: from host to a tree of paths (`tree.rs`), and from a
//! path in it to the routes' other conditions.
//!
//! A host costs one look-up, and one more for each label that a wildcard of the configuration
//! could begin at; the number of routes does not matter.

use hashbrown::HashTable;

use super::{
    Head,
    conditions::Conditions,
    rank, reading,
    tree::{NONE, Rank, Trees, hash},
};
use crate::config::{AmbiguousPaths, Config, HostPattern};

/// Sets the bit that tells lower from upper case. It makes other bytes one, too, which does no
/// harm in a hash.
const FOLD: u8 = 0x20;

/// The routes of one listener.
#[derive(Debug, Default)]
pub(super) struct Listener {
    hosts: HashTable<Host>,
    /// Labels of the longest wildcard.
    longest_wildcard: usize,
    any_host: Option<u32>,
    trees: Trees,
    /// By rank.
    routes: Vec<(usize, Conditions)>,
    /// Whether it matters that a path can be read in several ways: a route asks for one, and
    /// the listener refuses what it is not sure of.
    refuses: bool,
    /// Whether paths are to be put into their normal form first.
    pub(super) normalises: bool,
    /// Whether a route goes by the server name.
    pub(super) asks_for_names: bool,
}

#[derive(Debug)]
struct Host {
    /// `api.example.org`, or `.example.org` for a wildcard; lower case.
    name: Box<str>,
    root: u32,
}

impl Listener {
    pub(super) fn compile(config: &Config, index: usize, tcp: bool) -> Self {
        let routes = config.routes.iter().enumerate();
        let mut routes: Vec<_> = routes.filter(|(_, route)| route.is_on(index, tcp)).collect();
        // Stable: what compares equal keeps the order of the file.
        routes.sort_by_cached_key(|(_, route)| rank::key(route));
        let paths = config.listeners[index].ambiguous_paths;
        let refuses = paths == AmbiguousPaths::Refuse;
        let normalises = paths == AmbiguousPaths::Normalise;
        let mut this = Self { normalises, ..Self::default() };
        for (rank, (index, route)) in routes.into_iter().enumerate() {
            this.asks_for_names |= route.sni.is_some();
            this.refuses |= refuses && route.path.as_ref().is_some_and(|path| !path.is_any());
            let root = this.root(route.host.as_ref().or(route.sni.as_ref()));
            let path = route.path.as_ref().filter(|path| !path.is_any());
            this.trees.insert(root, path, rank as Rank);
            this.routes.push((index, Conditions::of(route)));
        }
        this
    }

    /// The tree of a host, made where there is none.
    fn root(&mut self, host: Option<&HostPattern>) -> u32 {
        let name = match host {
            None => return *self.any_host.get_or_insert_with(|| self.trees.root()),
            Some(HostPattern::Exact(name)) => name,
            Some(HostPattern::Wildcard(suffix)) => {
                let labels = suffix.matches('.').count();
                self.longest_wildcard = self.longest_wildcard.max(labels);
                suffix
            }
        };
        if let Some(root) = self.host(name.as_bytes()) {
            return root;
        }
        let root = self.trees.root();
        let host = Host { name: name.as_str().into(), root };
        let again = |host: &Host| hash(0, host.name.as_bytes(), FOLD);
        self.hosts.insert_unique(hash(0, name.as_bytes(), FOLD), host, again);
        root
    }

    fn host(&self, name: &[u8]) -> Option<u32> {
        let is = |host: &Host| host.name.as_bytes().eq_ignore_ascii_case(name);
        self.hosts.find(hash(0, name, FOLD), is).map(|host| host.root)
    }

    /// Index of the route of a request, whichever way its path is read.
    pub(super) fn find(&self, head: &Head<'_>) -> Result<Option<usize>, super::Ambiguous> {
        let path = head.uri.path().as_bytes();
        if reading::is_plain(path) {
            return Ok(self.search(head.host, path, |conditions| conditions.hold(head)));
        }
        super::SCRATCH.with_borrow_mut(|scratch| {
            let mut find = |liberties| {
                reading::read(path, liberties, scratch);
                self.search(head.host, scratch, |conditions| conditions.hold(head))
            };
            let found = find(0);
            let liberties = if self.refuses { reading::liberties(path) } else { 0 };
            // All subsets of the liberties that change this path, by counting down within them.
            let mut some = liberties;
            while some != 0 {
                if find(some) != found {
                    return Err(super::Ambiguous);
                }
                some = (some - 1) & liberties;
            }
            Ok(found)
        })
    }

    /// Index of the route of a connection, by its server name if it has one.
    pub(super) fn find_tcp(&self, name: Option<&str>) -> Option<usize> {
        match name {
            Some(name) => self.search(name, b"", |_| true),
            None => {
                let mut found = NONE;
                self.trees.walk(self.any_host?, b"", &|_| true, &mut found);
                self.route(found)
            }
        }
    }

    fn search(
        &self,
        host: &str,
        path: &[u8],
        admits: impl Fn(&Conditions) -> bool,
    ) -> Option<usize> {
        let host = host.strip_suffix('.').unwrap_or(host).as_bytes();
        let admits = |rank: Rank| admits(&self.routes[rank as usize].1);
        let mut found = NONE;
        // A wildcard is kept with its dot, and no host begins with one.
        if let Some(root) = self.host(host).filter(|_| !host.starts_with(b".")) {
            self.trees.walk(root, path, &admits, &mut found);
        }
        // From the right, so that no more labels are looked at than a wildcard has. The longest
        // goes first, but all of them lower one number.
        for dot in memchr::memrchr_iter(b'.', host).take(self.longest_wildcard) {
            // At least one label has to be before it.
            if dot > 0
                && let Some(root) = self.host(&host[dot..])
            {
                self.trees.walk(root, path, &admits, &mut found);
            }
        }
        if let Some(root) = self.any_host {
            self.trees.walk(root, path, &admits, &mut found);
        }
        self.route(found)
    }

    fn route(&self, rank: Rank) -> Option<usize> {
        self.routes.get(rank as usize).map(|(index, _)| *index)
    }
}
