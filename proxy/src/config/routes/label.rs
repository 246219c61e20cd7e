//! A name for every route: its own, or one made of its conditions.
//!
//! A made name stays the same when other routes come and go, so that logs and metrics can be
//! compared over reloads: `web:POST:api.example.org/v1` is a route on the listener `web` with a
//! method, a host and a path. Parts that a route does not have are left out, and `/` is the
//! path of one that has none; an exact path has a `=` before it. Where two come to the same, the second gets `#2`, in the order
//! of the file. Invariant: a made name has a `/` or a `:`, which `name` cannot have.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
};

use super::Route;

/// Gives each route without a name one.
pub(super) fn name_all(routes: &mut [Route], listeners: &[&str]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for route in routes.iter_mut().filter(|route| route.name.is_empty()) {
        let mut label = String::new();
        // Writing to a `String` cannot fail.
        let _ = write(&mut label, route, listeners);
        let count = seen.entry(label.clone()).or_default();
        *count += 1;
        if *count > 1 {
            let _ = write!(label, "#{count}");
        }
        route.name = label;
    }
}

/// Whether it was made here.
pub(super) fn is_derived(name: &str) -> bool {
    name.contains(['/', ':'])
}

fn write(out: &mut String, route: &Route, listeners: &[&str]) -> fmt::Result {
    if let Some(listener) = route.listener.and_then(|index| listeners.get(index)) {
        write!(out, "{listener}:")?;
    }
    if let Some(sni) = &route.sni {
        return write!(out, "sni:{sni}");
    }
    for (at, method) in route.methods.iter().enumerate() {
        write!(out, "{}{method}", if at == 0 { "" } else { "," })?;
    }
    if !route.methods.is_empty() {
        out.push(':');
    }
    if let Some(host) = &route.host {
        write!(out, "{host}")?;
    }
    match &route.path {
        Some(path) if path.key() == "path" => write!(out, "={path}"),
        Some(path) => write!(out, "{path}"),
        None => out.write_char('/'),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn routes_without_a_name_get_one_of_their_conditions() {
        let text = r#"
            listener = [
                { name = "web", address = "127.0.0.1:0" },
                { name = "tls", address = "127.0.0.1:0", protocol = "tcp" },
            ]
            route = [
                { upstream = "u" },
                { upstream = "u", name = "mine", host = "a.test" },
                { upstream = "u", listener = "web", host = "*.b.test", path_prefix = "/v1", method = "POST" },
                { upstream = "u", path_prefix = "/v1" },
                { upstream = "u", path_prefix = "/v1", headers = { X-A = true } },
                { upstream = "u", path = "/v1/x", method = ["GET", "HEAD"] },
                { upstream = "u", path_pattern = "/{id}/{*rest}" },
                { upstream = "u", listener = "tls" },
                { upstream = "u", sni = "a.test" },
            ]
            upstream = [{ name = "u", servers = ["127.0.0.1:1"] }]"#;
        let config = crate::config::parse(text, "test").unwrap();
        let names: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
        let wanted = [
            "/",
            "mine",
            "web:POST:*.b.test/v1",
            "/v1",
            "/v1#2",
            "GET,HEAD:=/v1/x",
            "/{id}/{*rest}",
            "tls:/",
            "sni:a.test",
        ];
        assert_eq!(names, wanted);
        let again = crate::config::parse(&config.effective(), "effective").unwrap();
        assert!(again.routes.iter().map(|route| route.name.as_str()).eq(names));
    }
}
