//! A `[[route]]` section to a [`DraftRoute`]: its keys, their types and what each may be.

use super::{
    super::{
        RouteCache, cache,
        errors::{Placed, Wrong},
        read::{name, named_middleware},
        section::Section,
        value,
    },
    Changes, DraftRoute, FieldRules, PathRule, Rewrite, action, conditions,
    fields::Side,
};

/// The keys of a route.
pub(in crate::config) const KEYS: &[&str] = &[
    "name",
    "listener",
    "priority",
    "host",
    "path",
    "path_prefix",
    "path_pattern",
    "method",
    "headers",
    "query",
    "sni",
    "middleware",
    "upstream",
    "upstreams",
    "split_by",
    "redirect",
    "respond",
    "rewrite",
    "request_headers",
    "response_headers",
    "record",
    "cache",
];

/// The keys that are about a request.
const OF_REQUESTS: &[&str] = &[
    "host",
    "path",
    "path_prefix",
    "path_pattern",
    "method",
    "headers",
    "query",
    "middleware",
    "redirect",
    "respond",
    "rewrite",
    "request_headers",
    "response_headers",
    "record",
    "cache",
];

/// Priorities reach so far to both sides of 0.
const MOST_PRIORITY: i64 = 1_000_000;

/// Reads one section; what is wrong is added to its source's problems.
pub(in crate::config) fn read(section: &Section<'_>, usual: &RouteCache) -> DraftRoute {
    let listener = section.place_of("listener").map(|_| name(section, "listener", "\"web\""));
    let host = section.parsed("host", "\"api.example.org\"", value::host_pattern);
    let path = path(section);
    let methods = section.one_or_more("method", "\"GET\"", value::method);
    let headers = conditions::read(section, "headers", conditions::field);
    let query = conditions::read(section, "query", conditions::query);
    let sni = section.parsed("sni", "\"api.example.org\"", value::sni_pattern);
    let of_requests =
        OF_REQUESTS.iter().find_map(|key| Some(Placed::new(*key, section.place_of(key)?)));
    let rule = path.as_ref().ok().and_then(Option::as_ref);
    let unread = |key, read: bool| section.place_of(key).is_some() && !read;
    let whole = |key, count: usize| match section.get(key) {
        Some((value, _)) => value.as_array().map_or(1, |items| items.len()) == count,
        None => true,
    };
    if let Some(place) =
        section.place_of("method").filter(|_| section.is_missing_or_empty("method"))
    {
        let wrong = Wrong::new("a list without a method", "leave `method` out to match all");
        section.source.add(&place, wrong);
    }
    DraftRoute {
        place: section.place.clone(),
        name: section.parsed("name", "\"api-v1\"", value::name),
        incomplete: unread("host", host.is_some())
            || path.is_err()
            || !whole("method", methods.as_ref().map_or(0, Vec::len))
            || headers.iter().any(Option::is_none)
            || query.iter().any(Option::is_none)
            || ["headers", "query"].iter().any(|key| unread(key, is_table(section, key)))
            || unread("sni", sni.is_some()),
        listener,
        priority: section.signed("priority", MOST_PRIORITY).map_or(0, |priority| priority.value),
        host: host.map(|h| h.value),
        action: action::read(section, rule),
        changes: changes(section, rule),
        path: path.unwrap_or_default(),
        methods: methods.unwrap_or_default().into_iter().map(|method| method.value).collect(),
        headers: headers.into_iter().flatten().collect(),
        query: query.into_iter().flatten().collect(),
        sni,
        of_requests,
        middleware: named_middleware(section),
        record: section.switch("record"),
        cache: cache::of_route(section, usual),
    }
}

fn changes(section: &Section<'_>, rule: Option<&PathRule>) -> Changes {
    for action in ["redirect", "respond"] {
        for key in ["rewrite", "request_headers"] {
            if section.place_of(action).is_some()
                && let Some(place) = section.place_of(key)
            {
                let what = format!("`{key}` on a route with `{action}`, which asks no server");
                section.source.add(&place, Wrong::new(what, "remove it"));
            }
        }
    }
    Changes {
        rewrite: Rewrite::read(section, rule),
        request: FieldRules::read(section, "request_headers", Side::Request),
        response: FieldRules::read(section, "response_headers", Side::Response),
    }
}

/// The path that is asked for, if any. `Err`: it could not be read.
fn path(section: &Section<'_>) -> Result<Option<PathRule>, ()> {
    type Parse = fn(&str) -> Result<PathRule, Wrong>;
    let forms: [(&str, &str, Parse); 3] = [
        ("path", "\"/health\"", PathRule::exact),
        ("path_prefix", "\"/v1/\"", PathRule::prefix),
        ("path_pattern", "\"/users/{id}\"", PathRule::pattern),
    ];
    let mut given = forms.into_iter().filter(|(key, ..)| section.place_of(key).is_some());
    let Some((key, example, parse)) = given.next() else { return Ok(None) };
    if let Some((other, ..)) = given.next()
        && let Some(place) = section.place_of(other)
    {
        let what = format!("`{key}` and `{other}` in one route");
        section.source.add(&place, Wrong::new(what, "write one of them, or make it two routes"));
        return Err(());
    }
    match section.parsed(key, example, parse) {
        Some(rule) => Ok(Some(rule.value)),
        None => Err(()),
    }
}

fn is_table(section: &Section<'_>, key: &str) -> bool {
    section.get(key).is_some_and(|(value, _)| value.is_table())
}
