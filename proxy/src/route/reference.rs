//! A matcher that anyone can check by reading: it tries all routes, and compares those that
//! match two by two. Works on what the file says, not on what was compiled from it.

use super::Head;
use crate::config::{Config, HostPattern, Route, Test};

/// A generator of pseudo-random numbers (SplitMix64), the same for the same seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    fn flip(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

const HOSTS: [&str; 3] = ["a.test", "b.a.test", "x"];
const SEGMENTS: [&str; 3] = ["a", "ab", "A"];

/// A few random routes, different from each other, as the insides of sections.
pub(super) fn routes(random: &mut Random) -> Vec<String> {
    let mut routes: Vec<String> = Vec::new();
    let mut asked: Vec<String> = Vec::new();
    for _ in 0..1 + random.below(14) {
        let mut keys = Vec::new();
        match random.below(4) {
            0 => {}
            1 => keys.push(format!("host = \"*.{}\"", random.one(&HOSTS))),
            _ => keys.push(format!("host = \"{}\"", random.one(&HOSTS))),
        }
        match random.below(4) {
            0 => {}
            1 => keys.push(format!("path = \"{}\"", path(random, false))),
            2 => keys.push(format!("path_prefix = \"{}\"", path(random, false))),
            _ => keys.push(format!("path_pattern = \"{}\"", path(random, true))),
        }
        match random.below(5) {
            0 => keys.push("method = \"GET\"".to_owned()),
            1 => keys.push("method = [\"GET\", \"PUT\"]".to_owned()),
            _ => {}
        }
        for (key, name) in [("headers", "x-h"), ("query", "q")] {
            match random.below(8) {
                0 => keys.push(format!("{key} = {{ {name} = true }}")),
                1 => keys.push(format!("{key} = {{ {name} = false }}")),
                2 => keys.push(format!("{key} = {{ {name} = \"1\" }}")),
                3 => keys.push(format!("{key} = {{ {name} = {{ prefix = \"1\" }} }}")),
                _ => {}
            }
        }
        // The check refuses the same twice, whatever names of parts there are, a slash at the
        // end of a prefix or a priority. A few that are not the same are left out, too.
        let plain = |key: &String| key.replace("{two}", "{one}").replace("/\"", "\"");
        let same = keys.iter().map(plain).filter(|key| key != "path_prefix = \"\"");
        let same = same.collect::<Vec<_>>().join("; ");
        if asked.contains(&same) {
            continue;
        }
        asked.push(same);
        match random.below(6) {
            0 => keys.push(format!("priority = {}", random.below(3) as i64 - 1)),
            1 => keys.push(format!("listener = \"{}\"", random.one(&["a", "b"]))),
            _ => {}
        }
        routes.push(keys.join("; "));
    }
    routes
}

fn path(random: &mut Random, pattern: bool) -> String {
    let mut path = String::new();
    let mut names = ["one", "two"].into_iter();
    for _ in 0..random.below(3) {
        match names.next().filter(|_| pattern && random.flip(2)) {
            Some(name) => path += &format!("/{{{name}}}"),
            None => path += &format!("/{}", random.one(&SEGMENTS)),
        }
    }
    match random.below(3) {
        0 if pattern => path + "/{*rest}",
        _ if pattern && !path.contains('{') => path + "/{one}",
        1 if !path.is_empty() => path + "/",
        _ if path.is_empty() => "/".to_owned(),
        _ => path,
    }
}

/// `METHOD host/path?query field=value`
pub(super) fn request(random: &mut Random) -> String {
    let mut path = String::new();
    for _ in 0..random.below(4) {
        path += &format!("/{}", random.one(&["a", "a", "ab", "A", "%61", "c"]));
    }
    if path.is_empty() || random.flip(4) {
        path += "/";
    }
    let host = random.one(&["a.test", "A.Test.", "b.a.test", "c.b.a.test", "d.test", "y", "x"]);
    let method = random.one(&["GET", "PUT", "DELETE"]);
    let query = random.one(&["", "", "?q=1", "?q=12", "?p&q", "?qq=1"]);
    let field = random.one(&["", "", " x-h=1", " x-h=12", " x-h=2"]);
    format!("{method} {host}{path}{query}{field}")
}

/// Index of the route that wins, and how many match.
pub(super) fn find(config: &Config, listener: usize, head: &Head<'_>) -> (Option<usize>, usize) {
    let matching: Vec<usize> = (0..config.routes.len())
        .filter(|index| matches(&config.routes[*index], listener, head))
        .collect();
    let best = matching.iter().copied().reduce(|best, next| {
        if beats(&config.routes[next], &config.routes[best]) { next } else { best }
    });
    (best, matching.len())
}

fn matches(route: &Route, listener: usize, head: &Head<'_>) -> bool {
    let host = head.host.trim_end_matches('.').to_ascii_lowercase();
    let host_fits = match &route.host {
        None => true,
        Some(HostPattern::Exact(name)) => *name == host,
        Some(HostPattern::Wildcard(suffix)) => host.ends_with(suffix) && host.len() > suffix.len(),
    };
    let path = head.uri.path().replace("%61", "a");
    let fits = |test: &Test, value: Option<&str>| match test {
        Test::Present => value.is_some(),
        Test::Absent => value.is_none(),
        Test::Exact(text) => value == Some(text),
        Test::Prefix(text) => value.is_some_and(|value| value.starts_with(&**text)),
        Test::Regex(_) => unreachable!("not made here"),
    };
    let field = head.headers.get("x-h").and_then(|value| value.to_str().ok());
    let pairs = head.uri.query().unwrap_or("").split('&');
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let part = pairs.find(|(name, _)| *name == "q").map(|(_, value)| value);
    (route.listener.is_none() || route.listener == Some(listener))
        && host_fits
        && path_fits(route, &path)
        && (route.methods.is_empty() || route.methods.contains(head.method))
        && route.headers.iter().all(|condition| fits(&condition.test, field))
        && route.query.iter().all(|condition| fits(&condition.test, part))
}

fn path_fits(route: &Route, path: &str) -> bool {
    let Some(rule) = &route.path else { return true };
    let text = rule.to_string();
    match rule.key() {
        "path" => text == path,
        "path_prefix" => {
            let text = text.trim_end_matches('/');
            path == text || path.starts_with(&format!("{text}/"))
        }
        _ => {
            let (mut wanted, mut given) = (text.split('/').skip(1), path.split('/').skip(1));
            loop {
                match (wanted.next(), given.next()) {
                    (None, None) => return true,
                    (Some(rest), Some(first)) if rest.starts_with("{*") => {
                        return !first.is_empty() || given.next().is_some();
                    }
                    (Some(part), Some(segment)) if part.starts_with('{') => {
                        if segment.is_empty() {
                            return false;
                        }
                    }
                    (Some(part), Some(segment)) if part == segment => {}
                    _ => return false,
                }
            }
        }
    }
}

/// Whether a later route goes before an earlier one; both match.
fn beats(later: &Route, earlier: &Route) -> bool {
    let host = |route: &Route| match &route.host {
        Some(HostPattern::Exact(_)) => usize::MAX,
        Some(HostPattern::Wildcard(suffix)) => suffix.len(),
        None => 0,
    };
    let methods = |route: &Route| match route.methods.len() {
        0 => usize::MAX,
        some => some,
    };
    let steps = [
        later.priority.cmp(&earlier.priority),
        host(later).cmp(&host(earlier)),
        path(later).cmp(&path(earlier)),
        methods(earlier).cmp(&methods(later)),
        later.headers.len().cmp(&earlier.headers.len()),
        later.query.len().cmp(&earlier.query.len()),
        later.listener.is_some().cmp(&earlier.listener.is_some()),
    ];
    return steps.into_iter().find(|step| step.is_ne()).is_some_and(std::cmp::Ordering::is_gt);

    /// A letter for each part of the path, the later in the alphabet the more specific.
    fn path(route: &Route) -> String {
        let Some(rule) = &route.path else { return String::new() };
        let text = rule.to_string();
        let text = if rule.key() == "path_prefix" { text.trim_end_matches('/') } else { &text };
        let letters = text.split('/').skip(1).map(|part| match part {
            _ if part.starts_with("{*") => 'b',
            _ if part.starts_with('{') => 'c',
            _ => 'd',
        });
        letters.chain((rule.key() == "path").then_some('e')).collect()
    }
}
