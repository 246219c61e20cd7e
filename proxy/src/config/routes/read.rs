//! A `[[route]]` section to a [`DraftRoute`]: its keys, their types and what each may be.

use super::{
    super::{errors::Placed, read::name, section::Section, value},
    DraftRoute,
};

/// The keys of a route.
pub(in crate::config) const KEYS: &[&str] =
    &["name", "listener", "host", "path_prefix", "method", "sni", "upstream"];

/// Reads one section; what is wrong is added to its source's problems.
pub(in crate::config) fn read(section: &Section<'_>) -> DraftRoute {
    let listener = section.place_of("listener").map(|_| name(section, "listener", "\"web\""));
    let host = section.parsed("host", "\"api.example.org\"", value::host_pattern);
    let path_prefix = section.parsed("path_prefix", "\"/v1/\"", value::path_prefix);
    let method = section.parsed("method", "\"GET\"", value::method);
    let sni = section.parsed("sni", "\"api.example.org\"", value::sni_pattern);
    let of_requests = ["host", "path_prefix", "method"]
        .into_iter()
        .find_map(|key| Some(Placed::new(key, section.place_of(key)?)));
    let unread = |key, read: bool| section.place_of(key).is_some() && !read;
    DraftRoute {
        place: section.place.clone(),
        name: section.parsed("name", "\"api-v1\"", value::name),
        incomplete: unread("host", host.is_some())
            || unread("path_prefix", path_prefix.is_some())
            || unread("method", method.is_some())
            || unread("sni", sni.is_some()),
        listener,
        host: host.map(|h| h.value),
        path_prefix: path_prefix.map(|p| p.value),
        method: method.map(|m| m.value),
        sni,
        of_requests,
        upstream: name(section, "upstream", "\"api\""),
    }
}
