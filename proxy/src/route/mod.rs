//! From listener, host, path and method to an upstream. Pure; compiled once per
//! configuration, no allocation per match.
//!
//! Which of several matching routes wins does not depend on their order in the file
//! unless they are equally specific:
//! 1. exact host before wildcard (the longer suffix first) before any host,
//! 2. longer path prefix before shorter,
//! 3. with a method before without,
//! 4. of a named listener before of all listeners,
//! 5. earlier in the file before later.

use crate::config::{Config, HostPattern, Route};

/// The routes of a configuration, the most specific first.
#[derive(Debug, Default)]
pub struct Table {
    routes: Vec<Route>,
}

impl Table {
    /// Sorts the routes once, so that the first match is the one that wins.
    pub fn compile(config: &Config) -> Self {
        let mut routes = config.routes.clone();
        // Stable: what compares equal keeps the order of the file.
        routes.sort_by_key(|route| std::cmp::Reverse(specificity(route)));
        Self { routes }
    }

    /// Index of the upstream for a request, by the host without its port.
    pub fn find(
        &self,
        listener: usize,
        host: &str,
        path: &str,
        method: &http::Method,
    ) -> Option<usize> {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.routes
            .iter()
            .find(|route| {
                route.listener.is_none_or(|wanted| wanted == listener)
                    && route.method.as_ref().is_none_or(|wanted| wanted == method)
                    && route.host.as_ref().is_none_or(|pattern| matches_host(pattern, host))
                    && route.path_prefix.as_deref().is_none_or(|prefix| matches_path(prefix, path))
            })
            .map(|route| route.upstream)
    }
}

type Specificity = (u8, usize, usize, bool, bool);

fn specificity(route: &Route) -> Specificity {
    let (kind, length) = match &route.host {
        Some(HostPattern::Exact(_)) => (2, 0),
        Some(HostPattern::Wildcard(suffix)) => (1, suffix.len()),
        None => (0, 0),
    };
    let path =
        route.path_prefix.as_ref().map_or(0, |prefix| prefix.trim_end_matches('/').len() + 1);
    (kind, length, path, route.method.is_some(), route.listener.is_some())
}

fn matches_host(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(name) => name.eq_ignore_ascii_case(host),
        // `.example.org` wants at least one more label in front.
        HostPattern::Wildcard(suffix) => {
            host.len() > suffix.len()
                && host.as_bytes()[host.len() - suffix.len()..]
                    .eq_ignore_ascii_case(suffix.as_bytes())
        }
    }
}

fn matches_path(prefix: &str, path: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(Option<&str>, Option<&str>, Option<&str>)]) -> Table {
        let mut text = String::from("[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n");
        for (index, (host, path, method)) in routes.iter().enumerate() {
            text += &format!(
                "[[upstream]]\nname = \"u{index}\"\nservers = [\"127.0.0.1:{}\"]\n[[route]]\nupstream = \"u{index}\"\n",
                3000 + index
            );
            for (key, value) in [("host", host), ("path_prefix", path), ("method", method)] {
                if let Some(value) = value {
                    text += &format!("{key} = \"{value}\"\n");
                }
            }
        }
        Table::compile(&crate::config::parse(&text, "test").unwrap())
    }

    #[test]
    fn the_most_specific_route_wins_whatever_the_order() {
        let table = table(&[
            (None, None, None),
            (Some("*.example.org"), None, None),
            (Some("*.api.example.org"), None, None),
            (Some("api.example.org"), None, None),
            (Some("api.example.org"), Some("/v1"), None),
            (Some("api.example.org"), Some("/v1"), Some("POST")),
            (None, Some("/v1/long/path"), None),
        ]);
        for (host, path, method, upstream) in [
            ("other.test", "/", "GET", 0),
            ("other.test", "/v1/long/path", "GET", 6),
            ("other.test", "/v1/long/pathology", "GET", 0),
            ("www.example.org", "/", "GET", 1),
            ("example.org", "/", "GET", 0),
            ("x.api.example.org", "/", "GET", 2),
            ("API.example.org.", "/", "GET", 3),
            ("api.example.org", "/v1", "GET", 4),
            ("api.example.org", "/v1/x", "GET", 4),
            ("api.example.org", "/v10", "GET", 3),
            ("api.example.org", "/v1/x", "POST", 5),
        ] {
            let method = method.parse().unwrap();
            assert_eq!(table.find(0, host, path, &method), Some(upstream), "{host}{path} {method}");
        }
    }

    #[test]
    fn nothing_matches_where_no_route_does() {
        let table = table(&[(Some("a.test"), Some("/x/"), None)]);
        assert_eq!(table.find(0, "b.test", "/x/", &http::Method::GET), None);
        assert_eq!(table.find(0, "a.test", "/y", &http::Method::GET), None);
        assert_eq!(table.find(0, "a.test", "/x", &http::Method::GET), Some(0));
    }
}
