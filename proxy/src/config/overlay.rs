//! What was changed of upstreams while the process runs, over what the files say.
//!
//! A change is not made beside the configuration but in it: the overlay is laid over the files'
//! configuration, and the result comes into force as one that was reloaded would. So a reload
//! keeps what was changed, `/config` shows it, and what cannot be is refused as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Config, MOST_WEIGHT, Upstream, UpstreamServer, value};

/// All changes. The form in which they are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// By the name of the upstream and the address of the server.
    #[serde(default)]
    upstreams: BTreeMap<String, BTreeMap<String, Changed>>,
}

/// What was changed of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    /// It is there, whether the files have it or not.
    #[serde(default)]
    added: bool,
    /// It is not there, though the files have it.
    #[serde(default)]
    removed: bool,
    #[serde(default)]
    weight: Option<u32>,
    #[serde(default)]
    drain: Option<bool>,
}

/// One change that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A server is there, with these of its settings.
    Set {
        /// Name of the upstream.
        upstream: String,
        /// `host:port`
        server: String,
        /// 1 to [`MOST_WEIGHT`].
        weight: Option<u32>,
        /// Whether it gets no new requests.
        drain: Option<bool>,
    },
    /// A server is not there.
    Remove {
        /// Name of the upstream.
        upstream: String,
        /// `host:port`
        server: String,
    },
    /// An upstream is as the files have it.
    Forget {
        /// Its name.
        upstream: String,
    },
}

/// Why a change is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no such upstream or server.
    NotFound(String),
    /// It makes no sense.
    Wrong(String),
}

impl Overlay {
    /// Takes a change in; `base` is what the files say.
    ///
    /// # Errors
    /// Then nothing has been taken in.
    pub fn edit(&mut self, edit: &Edit, base: &Config) -> Result<(), Refused> {
        let name = match edit {
            Edit::Set { upstream, .. }
            | Edit::Remove { upstream, .. }
            | Edit::Forget { upstream } => upstream,
        };
        let known = base.upstreams.iter().find(|upstream| upstream.name == *name);
        let known = known.ok_or_else(|| Refused::NotFound(format!("no upstream `{name}`")))?;
        let mut changed = self.upstreams.get(name).cloned().unwrap_or_default();
        let configured =
            |server: &str| known.servers.iter().any(|known| known.address.to_string() == server);
        match edit {
            Edit::Forget { .. } => changed.clear(),
            Edit::Set { server, weight, drain, .. } => {
                let server = spelt(server)?;
                if weight.is_some_and(|weight| weight == 0 || weight > MOST_WEIGHT) {
                    let what = format!("a weight is 1 to {MOST_WEIGHT}; drain a server to rest it");
                    return Err(Refused::Wrong(what));
                }
                let added = !configured(&server);
                let entry = changed.entry(server).or_default();
                (entry.added, entry.removed) = (added, false);
                entry.weight = weight.or(entry.weight);
                entry.drain = drain.or(entry.drain);
            }
            Edit::Remove { server, .. } => {
                let server = spelt(server)?;
                let there = changed.get(&server).is_some_and(|changed| changed.added);
                match configured(&server) {
                    true => {
                        changed.insert(server, Changed { removed: true, ..Changed::default() });
                    }
                    false if there => _ = changed.remove(&server),
                    false => return Err(Refused::NotFound(format!("no server `{server}`"))),
                }
            }
        }
        let mut result = known.clone();
        lay_over(&mut result, &changed);
        if result.servers.iter().all(|server| server.backup) {
            return Err(Refused::Wrong("it would leave no server, or backups only".to_owned()));
        }
        match changed.is_empty() {
            true => _ = self.upstreams.remove(name),
            false => _ = self.upstreams.insert(name.clone(), changed),
        }
        Ok(())
    }

    /// Lays it over what the files say. What has no place there any more is left out, and told.
    pub fn apply(&self, config: &mut Config) {
        for (name, changed) in &self.upstreams {
            let warnings = &mut config.warnings;
            let mut tell = |what: String| warnings.push(format!("of the stored changes: {what}"));
            let Some(upstream) = config.upstreams.iter_mut().find(|known| known.name == *name)
            else {
                tell(format!("there is no upstream `{name}` any more"));
                continue;
            };
            let before = upstream.clone();
            lay_over(upstream, changed);
            if upstream.servers.iter().all(|server| server.backup) {
                tell(format!("they would leave no server of `{name}`, which is as configured"));
                *upstream = before;
            }
        }
    }
}

fn lay_over(upstream: &mut Upstream, changed: &BTreeMap<String, Changed>) {
    for (address, changed) in changed {
        let is_it = |server: &UpstreamServer| server.address.to_string() == *address;
        if changed.removed {
            upstream.servers.retain(|server| !is_it(server));
            continue;
        }
        if changed.added
            && !upstream.servers.iter().any(is_it)
            && let Ok(address) = value::server(address)
        {
            upstream.servers.push(UpstreamServer {
                address,
                weight: 1,
                backup: false,
                drain: false,
                max_connections: None,
            });
        }
        for server in upstream.servers.iter_mut().filter(|server| is_it(server)) {
            server.weight = changed.weight.unwrap_or(server.weight);
            server.drain = changed.drain.unwrap_or(server.drain);
        }
    }
}

/// An address as the configuration has it.
fn spelt(server: &str) -> Result<String, Refused> {
    if value::is_https(server) {
        let what = format!("`{server}`: write host:port; TLS is the upstream's to speak or not");
        return Err(Refused::Wrong(what));
    }
    let read = value::server(server).map_err(|wrong| Refused::Wrong(wrong.to_string()))?;
    Ok(read.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Config {
        let text = "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
                    [[upstream]]\nname = \"u\"\nservers = [\"a:1\", \"b:1\"]\n";
        crate::config::parse(text, "test").unwrap()
    }

    fn servers(overlay: &Overlay) -> Vec<(String, u32, bool)> {
        let mut config = base();
        overlay.apply(&mut config);
        let of = |s: &UpstreamServer| (s.address.to_string(), s.weight, s.drain);
        config.upstreams[0].servers.iter().map(of).collect()
    }

    fn set(server: &str, weight: Option<u32>, drain: Option<bool>) -> Edit {
        Edit::Set { upstream: "u".to_owned(), server: server.to_owned(), weight, drain }
    }

    fn remove(server: &str) -> Edit {
        Edit::Remove { upstream: "u".to_owned(), server: server.to_owned() }
    }

    #[test]
    fn changes_add_up_and_survive_being_stored() {
        let mut overlay = Overlay::default();
        let edits = [
            set("a:1", Some(5), None),
            set("a:1", None, Some(true)),
            set("c:1", None, None),
            remove("b:1"),
        ];
        for edit in &edits {
            overlay.edit(edit, &base()).unwrap();
        }
        let wanted = [("a:1".to_owned(), 5, true), ("c:1".to_owned(), 1, false)];
        assert_eq!(servers(&overlay), wanted);
        let stored = serde_json::to_string(&overlay).unwrap();
        assert_eq!(serde_json::from_str::<Overlay>(&stored).unwrap(), overlay);
        overlay.edit(&remove("c:1"), &base()).unwrap();
        overlay.edit(&set("b:1", None, None), &base()).unwrap();
        let wanted = [("a:1".to_owned(), 5, true), ("b:1".to_owned(), 1, false)];
        assert_eq!(servers(&overlay), wanted);
        overlay.edit(&Edit::Forget { upstream: "u".to_owned() }, &base()).unwrap();
        assert_eq!(overlay, Overlay::default());
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let mut overlay = Overlay::default();
        overlay.edit(&remove("a:1"), &base()).unwrap();
        let before = overlay.clone();
        for (edit, found) in [
            (remove("b:1"), true),
            (remove("c:1"), false),
            (set("a:1", Some(0), None), true),
            (set("a:1", Some(1001), None), true),
            (set("no port", None, None), true),
            (Edit::Forget { upstream: "v".to_owned() }, false),
        ] {
            let refused = overlay.edit(&edit, &base()).unwrap_err();
            assert_eq!(matches!(refused, Refused::Wrong(_)), found, "{edit:?}: {refused:?}");
            assert_eq!(overlay, before);
        }
    }

    #[test]
    fn what_the_files_have_lost_is_told() {
        let mut overlay = Overlay::default();
        overlay.edit(&remove("a:1"), &base()).unwrap();
        let mut config = base();
        config.upstreams[0].servers.pop();
        overlay.apply(&mut config);
        assert_eq!(config.upstreams[0].servers.len(), 1);
        config.upstreams.clear();
        overlay.apply(&mut config);
        assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    }
}
