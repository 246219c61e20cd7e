//! From listener, host, path and method to an upstream, and from listener and server name
//! (SNI) for connections that are not looked into. Pure; compiled once per configuration,
//! no allocation per match.
//!
//! Which of several matching routes wins does not depend on their order in the file
//! unless they are equally specific:
//! 1. exact host or server name before wildcard (the longer suffix first) before any,
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
                route.is_on(listener, false)
                    && route.method.as_ref().is_none_or(|wanted| wanted == method)
                    && route.host.as_ref().is_none_or(|pattern| matches_host(pattern, host))
                    && route.path_prefix.as_deref().is_none_or(|prefix| matches_path(prefix, path))
            })
            .map(|route| route.upstream)
    }

    /// Whether a route of this tcp listener goes by the server name.
    pub fn wants_server_name(&self, listener: usize) -> bool {
        self.routes.iter().any(|route| route.sni.is_some() && route.is_on(listener, true))
    }

    /// Index of the upstream for a connection of a tcp listener. `None` as name: it has none,
    /// or nobody looked.
    pub fn find_tcp(&self, listener: usize, server_name: Option<&str>) -> Option<usize> {
        let name = server_name.map(|name| name.strip_suffix('.').unwrap_or(name));
        let matches = |route: &&Route| {
            route.is_on(listener, true)
                && route
                    .sni
                    .as_ref()
                    .is_none_or(|pattern| name.is_some_and(|name| matches_host(pattern, name)))
        };
        self.routes.iter().find(matches).map(|route| route.upstream)
    }
}

type Specificity = (u8, usize, usize, bool, bool);

fn specificity(route: &Route) -> Specificity {
    let (kind, length) = match route.host.as_ref().or(route.sni.as_ref()) {
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
    fn a_server_name_goes_to_the_most_specific_route_of_its_listener() {
        let text = r#"
            listener = [
                { name = "web", address = "127.0.0.1:0" },
                { name = "tls", address = "127.0.0.1:0", protocol = "tcp" },
                { name = "db", address = "127.0.0.1:0", protocol = "tcp" },
            ]
            route = [
                { upstream = "web" },
                { upstream = "default", listener = "tls" },
                { upstream = "wildcard", sni = "*.example.org" },
                { upstream = "exact", listener = "tls", sni = "api.example.org" },
            ]
            upstream = [
                { name = "web", servers = ["127.0.0.1:1"] },
                { name = "default", servers = ["127.0.0.1:2"] },
                { name = "wildcard", servers = ["127.0.0.1:3"] },
                { name = "exact", servers = ["127.0.0.1:4"] },
            ]"#;
        let table = Table::compile(&crate::config::parse(text, "test").unwrap());
        for (listener, name, upstream) in [
            (1, None, Some(1)),
            (1, Some("other.test"), Some(1)),
            (1, Some("WWW.example.ORG"), Some(2)),
            (1, Some("example.org"), Some(1)),
            (1, Some("API.example.org."), Some(3)),
            (2, None, None),
            (2, Some("api.example.org"), Some(2)),
            (2, Some("other.test"), None),
        ] {
            assert_eq!(table.find_tcp(listener, name), upstream, "{listener} {name:?}");
        }
        assert!(table.wants_server_name(2));
        assert_eq!(table.find(0, "api.example.org", "/", &http::Method::GET), Some(0));
    }

    #[test]
    fn nothing_matches_where_no_route_does() {
        let table = table(&[(Some("a.test"), Some("/x/"), None)]);
        assert_eq!(table.find(0, "b.test", "/x/", &http::Method::GET), None);
        assert_eq!(table.find(0, "a.test", "/y", &http::Method::GET), None);
        assert_eq!(table.find(0, "a.test", "/x", &http::Method::GET), Some(0));
    }
}
