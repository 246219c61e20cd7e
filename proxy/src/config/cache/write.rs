//! A [`Cache`] and the rules of routes as sections of the effective configuration.

use std::time::Duration;

use super::{
    super::{
        effective::{entries, header, key, list, quoted, text},
        value::{show_duration, show_size, word},
    },
    Cache, RouteCache, fleet,
    read::SET_COOKIE,
};

/// Writes the section, if there is one.
pub(in crate::config) fn write(out: &mut String, cache: Option<&Cache>) {
    let Some(cache) = cache else { return };
    header(out, "[cache]");
    text(out, "memory_bytes", show_size(cache.memory_bytes as u64));
    if let Some(disk) = &cache.disk {
        text(out, "directory", disk.directory.display());
        text(out, "disk_bytes", show_size(disk.bytes));
        text(out, "disk_index_bytes", show_size(disk.index_bytes as u64));
    }
    text(out, "block_bytes", show_size(cache.block_bytes as u64));
    key(out, "all_routes", cache.all_routes);
    text(out, "uncacheable_ttl", show_duration(cache.uncacheable_ttl));
    if let Some(fleet) = &cache.fleet {
        fleet::write(out, fleet);
    }
    header(out, "[cache.rules]");
    rules(out, &cache.rules);
}

/// Writes what a route is cached by; `None`: it is not.
pub(in crate::config) fn route(out: &mut String, cache: Option<&RouteCache>) {
    match cache {
        None => key(out, "cache", false),
        Some(cache) => {
            header(out, "[route.cache]");
            rules(out, cache);
        }
    }
}

fn rules(out: &mut String, rules: &RouteCache) {
    let RouteCache { policy, key: by, .. } = rules;
    let time = |out: &mut String, name, time: Option<Duration>| {
        if let Some(time) = time {
            text(out, name, show_duration(time));
        }
    };
    time(out, "default_ttl", policy.default_ttl);
    time(out, "override_ttl", policy.override_ttl);
    time(out, "max_ttl", policy.max_ttl);
    let statuses = policy.status_ttl.iter();
    let statuses = statuses.map(|(status, ttl)| (status.as_str(), quoted(show_duration(*ttl))));
    entries(out, "status_ttl", statuses);
    key(out, "heuristic_ratio", format!("{:?}", policy.heuristic));
    time(out, "stale_while_revalidate", policy.stale_while_revalidate);
    time(out, "stale_if_error", policy.stale_if_error);
    key(out, "request_directives", policy.request_directives);
    key(out, "cdn_cache_control", policy.cdn_cache_control);
    text(out, "set_cookie", word(&policy.set_cookie, SET_COOKIE));
    list(out, "ignored_vary", &policy.ignored_vary);
    list(out, "ignored_query", &by.ignored_query);
    if let Some(only) = &by.only_query {
        list(out, "only_query", only);
    }
    key(out, "sorted_query", by.sorted_query);
    list(out, "key_headers", &by.headers);
    list(out, "key_cookies", &by.cookies);
    list(out, "bypass_headers", &rules.bypass_headers);
    list(out, "bypass_cookies", &rules.bypass_cookies);
    text(out, "max_object_bytes", show_size(rules.max_object_bytes));
    key(out, "finish_fills", rules.finish_fills);
    key(out, "slices", rules.slices);
    key(out, "status_headers", rules.status_headers);
}
