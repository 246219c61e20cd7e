//! From listener, host, path and method to a route, and from listener and server name
//! (SNI) for connections that are not looked into. Pure; compiled once per configuration,
//! no allocation per match. `matched.rs` is what a worker makes of each route.
//!
//! Which of several matching routes wins does not depend on their order in the file
//! unless they are equally specific:
//! 1. exact host or server name before wildcard (the longer suffix first) before any,
//! 2. longer path prefix before shorter,
//! 3. with a method before without,
//! 4. of a named listener before of all listeners,
//! 5. earlier in the file before later.

use http::{HeaderMap, Method, Uri};

use crate::{
    config::{Config, HostPattern, Route},
    request,
};

pub mod matched;

pub use matched::{Action, Matched};

/// The routes of a configuration, the most specific first.
#[derive(Debug, Default)]
pub struct Table {
    /// With the index in the configuration.
    routes: Vec<(usize, Route)>,
}

/// What routes can look at.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The host that is asked for, without its port.
    pub host: &'a str,
    /// The target; of it, path and query.
    pub uri: &'a Uri,
    /// The method.
    pub method: &'a Method,
    /// All fields.
    pub headers: &'a HeaderMap,
}

impl<'a> Head<'a> {
    /// Of a request.
    pub fn of<B>(request: &'a http::Request<B>) -> Self {
        let (uri, headers) = (request.uri(), request.headers());
        Self { host: request::host(uri, headers), uri, method: request.method(), headers }
    }
}

impl Table {
    /// Sorts the routes once, so that the first match is the one that wins.
    pub fn compile(config: &Config) -> Self {
        let mut routes: Vec<_> = config.routes.iter().cloned().enumerate().collect();
        // Stable: what compares equal keeps the order of the file.
        routes.sort_by_key(|(_, route)| std::cmp::Reverse(specificity(route)));
        Self { routes }
    }

    /// Index of the route of a request.
    pub fn find(&self, listener: usize, head: &Head<'_>) -> Option<usize> {
        let host = head.host.strip_suffix('.').unwrap_or(head.host);
        let path = head.uri.path();
        self.routes
            .iter()
            .find(|(_, route)| {
                route.is_on(listener, false)
                    && route.method.as_ref().is_none_or(|wanted| wanted == head.method)
                    && route.host.as_ref().is_none_or(|pattern| matches_host(pattern, host))
                    && route.path_prefix.as_deref().is_none_or(|prefix| matches_path(prefix, path))
            })
            .map(|(index, _)| *index)
    }

    /// Whether a route of this tcp listener goes by the server name.
    pub fn wants_server_name(&self, listener: usize) -> bool {
        self.routes.iter().any(|(_, route)| route.sni.is_some() && route.is_on(listener, true))
    }

    /// Index of the route of a connection of a tcp listener. `None` as name: it has none,
    /// or nobody looked.
    pub fn find_tcp(&self, listener: usize, server_name: Option<&str>) -> Option<usize> {
        let name = server_name.map(|name| name.strip_suffix('.').unwrap_or(name));
        let matches = |(_, route): &&(usize, Route)| {
            route.is_on(listener, true)
                && route
                    .sni
                    .as_ref()
                    .is_none_or(|pattern| name.is_some_and(|name| matches_host(pattern, name)))
        };
        self.routes.iter().find(matches).map(|(index, _)| *index)
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

    fn find(table: &Table, host: &str, path: &str, method: &str) -> Option<usize> {
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("host", host).body(()).unwrap();
        table.find(0, &Head::of(&request))
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
            assert_eq!(find(&table, host, path, method), Some(upstream), "{host}{path} {method}");
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
        assert_eq!(find(&table, "api.example.org", "/", "GET"), Some(0));
    }

    #[test]
    fn nothing_matches_where_no_route_does() {
        let table = table(&[(Some("a.test"), Some("/x/"), None)]);
        assert_eq!(find(&table, "b.test", "/x/", "GET"), None);
        assert_eq!(find(&table, "a.test", "/y", "GET"), None);
        assert_eq!(find(&table, "a.test", "/x", "GET"), Some(0));
    }
}
