//! The upstreams that routes have had since the start.
//!
//! What is stored is found by its upstream where a route chooses among several. One that gets
//! nothing at this time, or that the route has no more, may be back after the next reload, and then
//! what it answered is found again: so what has changed meanwhile is forgotten of it too.
//!
//! Implements: REQ-CACHE-004

use std::collections::HashMap;

use arc_swap::ArcSwap;

use crate::config::{Action, Config};

/// Upstreams of one route that are remembered.
const MOST: usize = 64;

/// By the names of the routes. `None`: the route had one only, which is in no key.
type ByRoute = HashMap<String, Vec<Option<String>>>;

/// The upstreams.
#[derive(Debug, Default)]
pub struct Ways(ArcSwap<ByRoute>);

impl Ways {
    /// Remembers those of this configuration. Routes that are not in it are forgotten.
    pub(super) fn follow(&self, config: &Config) {
        let known = self.0.load();
        let mut all = ByRoute::new();
        for route in config.routes.iter().filter(|route| route.cache.is_some()) {
            let name = |index: usize| config.upstreams.get(index).map(|it| it.name.clone());
            let mut now: Vec<Option<String>> = match &route.action {
                Action::Split(split) => split.upstreams.iter().map(|(at, _)| name(*at)).collect(),
                Action::Upstream(_) => vec![None],
                Action::Redirect(_) | Action::Respond(_) => Vec::new(),
            };
            for before in known.get(&route.name).into_iter().flatten() {
                if now.len() < MOST && !now.contains(before) {
                    now.push(before.clone());
                }
            }
            all.insert(route.name.clone(), now);
        }
        self.0.store(all.into());
    }

    /// The upstreams that the route of this name has had, by their names as they are in keys, with
    /// those that it has `now` for whoever asks.
    pub fn of<'a>(
        &self,
        route: &str,
        now: impl Iterator<Item = Option<&'a str>>,
    ) -> Vec<Option<String>> {
        let mut all = self.0.load().get(route).cloned().unwrap_or_default();
        for upstream in now {
            if !all.iter().any(|known| known.as_deref() == upstream) {
                all.push(upstream.map(str::to_owned));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;

    fn of(ways: &Ways, route: &str) -> Vec<String> {
        let names = ways.of(route, std::iter::empty());
        names.into_iter().map(|name| name.unwrap_or("-".to_owned())).collect()
    }

    #[req_test("REQ-CACHE-004")]
    #[test]
    fn what_a_route_has_had_is_remembered_while_it_is_there() {
        let config = |name: &str, action: &str| {
            let text = format!(
                "[cache]\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
                 [[route]]\nname = \"{name}\"\ncache = true\n{action}\n\
                 [[upstream]]\nname = \"a\"\nservers = [\"127.0.0.1:1\"]\n\
                 [[upstream]]\nname = \"b\"\nservers = [\"127.0.0.1:2\"]\n"
            );
            crate::config::parse(&text, "test.toml").expect("valid")
        };
        let ways = Ways::default();
        for (action, wanted) in [
            ("upstream = \"a\"", &["-"][..]),
            ("upstreams = [{ name = \"a\" }, { name = \"b\", weight = 0 }]", &["a", "b", "-"]),
            ("upstreams = [{ name = \"a\" }]", &["a", "b", "-"]),
            ("upstream = \"b\"", &["-", "a", "b"]),
        ] {
            ways.follow(&config("r", action));
            assert_eq!(of(&ways, "r"), wanted, "{action}");
        }
        let now = [Some("c"), None].into_iter();
        assert_eq!(ways.of("r", now).last(), Some(&Some("c".to_owned())));
        ways.follow(&config("other", "upstream = \"a\""));
        assert!(of(&ways, "r").is_empty() && of(&ways, "other") == ["-"]);
    }
}
