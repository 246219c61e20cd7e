//! `[cache]`, `[cache.rules]` and `[route.cache]`: their keys and what each may be.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use toml::de::DeValue;

use super::{
    super::{
        errors::{Placed, Wrong},
        paths,
        section::Section,
        value,
    },
    Cache, CacheDisk, DraftCache, RouteCache, fleet,
};
use crate::cache::{
    policy::SetCookie,
    store::{LEAST_DISK_BYTES, MOST_BLOCK_BYTES},
};

const KEYS: &[&str] = &[
    "memory_bytes",
    "directory",
    "disk_bytes",
    "disk_index_bytes",
    "block_bytes",
    "all_routes",
    "uncacheable_ttl",
    "rules",
    "fleet",
];

const RULES: &[&str] = &[
    "default_ttl",
    "override_ttl",
    "max_ttl",
    "status_ttl",
    "heuristic_ratio",
    "stale_while_revalidate",
    "stale_if_error",
    "request_directives",
    "cdn_cache_control",
    "set_cookie",
    "ignored_vary",
    "ignored_query",
    "only_query",
    "sorted_query",
    "key_headers",
    "key_cookies",
    "bypass_headers",
    "bypass_cookies",
    "max_object_bytes",
    "finish_fills",
    "slices",
    "status_headers",
];

pub(super) const SET_COOKIE: value::Words<SetCookie> =
    &[("refuse", SetCookie::Refuse), ("strip", SetCookie::Strip), ("store", SetCookie::Store)];

/// Fields that are different for nearly every request, so that a key with them finds nothing, or
/// that are credentials, by which nobody is to find anything.
const NO_KEYS: [&str; 5] = ["cookie", "authorization", "range", "if-none-match", "cache-control"];

/// Reads the section, if there is one.
pub(in crate::config) fn read(file: &Section<'_>) -> Option<Cache> {
    let section = &file.table("cache", "[cache]", KEYS)?;
    let mut cache = Cache::with_defaults();
    let size = |key, least, most, usual: usize| {
        section.size_within(key, least, most).map_or(usual, |bytes| bytes as usize)
    };
    cache.memory_bytes = size("memory_bytes", 1 << 20, 1 << 42, cache.memory_bytes);
    let directory = section.parsed("directory", "\"/var/cache/underpass\"", paths::path);
    cache.disk = directory.map(|path| CacheDisk::with_defaults(path.value));
    match &mut cache.disk {
        Some(disk) => {
            let bytes = section.size_within("disk_bytes", LEAST_DISK_BYTES, 1 << 50);
            disk.bytes = bytes.unwrap_or(disk.bytes);
            disk.index_bytes = size("disk_index_bytes", 1 << 20, 1 << 40, disk.index_bytes);
        }
        None => {
            for key in ["disk_bytes", "disk_index_bytes"] {
                if let Some(place) = section.place_of(key) {
                    let what = format!("`{key}` without a `directory`");
                    section.add(&place, Wrong::new(what, "add `directory`, or remove it"));
                }
            }
        }
    }
    cache.block_bytes = size("block_bytes", 4 << 10, 16 << 20, cache.block_bytes);
    if !cache.block_bytes.is_power_of_two()
        && let Some(place) = section.place_of("block_bytes")
    {
        let wrong = Wrong::new("`block_bytes` is no power of two", "write \"256KiB\" or \"1MiB\"");
        section.add(&place, wrong);
    }
    cache.fleet = fleet::read(section);
    if (cache.disk.is_some() || cache.fleet.is_some())
        && cache.block_bytes > MOST_BLOCK_BYTES
        && let Some(place) = section.place_of("block_bytes")
    {
        let of = if cache.disk.is_some() { "disk" } else { "fleet" };
        let wrong = format!("`block_bytes` is too large for a {of}");
        section.add(&place, Wrong::new(wrong, "write at most \"1MiB\""));
    }
    cache.all_routes = section.switch("all_routes").unwrap_or(false);
    let ttl = section.parsed("uncacheable_ttl", "\"10s\"", value::duration);
    cache.uncacheable_ttl = ttl.map_or(cache.uncacheable_ttl, |ttl| ttl.value);
    if let Some(section) = section.table("rules", "[cache.rules]", RULES) {
        cache.rules = rules(&section, cache.rules);
    }
    Some(cache)
}

/// Reads `cache` of a route: a switch, or a section over `usual`.
pub(in crate::config) fn of_route(section: &Section<'_>, usual: &RouteCache) -> DraftCache {
    let Some((value, place)) = section.get("cache") else { return DraftCache::Unsaid };
    if let DeValue::Table(_) = value {
        let Some(own) = section.table("cache", "[route.cache]", RULES) else {
            return DraftCache::Unsaid;
        };
        return DraftCache::On(Box::new(Placed::new(rules(&own, usual.clone()), place)));
    }
    match section.switch("cache") {
        Some(true) => DraftCache::On(Box::new(Placed::new(usual.clone(), place))),
        Some(false) => DraftCache::Off,
        None => DraftCache::Unsaid,
    }
}

fn rules(section: &Section<'_>, mut rules: RouteCache) -> RouteCache {
    let time = |key, usual: Option<Duration>| {
        section.parsed(key, "\"60s\"", value::duration).map(|time| time.value).or(usual)
    };
    let switch = |key, usual| section.switch(key).unwrap_or(usual);
    let policy = &mut rules.policy;
    policy.default_ttl = time("default_ttl", policy.default_ttl);
    policy.override_ttl = time("override_ttl", policy.override_ttl);
    policy.max_ttl = time("max_ttl", policy.max_ttl);
    if section.place_of("status_ttl").is_some() {
        let pairs = section.pairs("status_ttl", "\"404\" = \"10s\"", status_ttl);
        policy.status_ttl = pairs.unwrap_or_default();
    }
    policy.heuristic = section.ratio("heuristic_ratio").unwrap_or(policy.heuristic);
    policy.stale_while_revalidate = time("stale_while_revalidate", policy.stale_while_revalidate);
    policy.stale_if_error = time("stale_if_error", policy.stale_if_error);
    policy.request_directives = switch("request_directives", policy.request_directives);
    policy.cdn_cache_control = switch("cdn_cache_control", policy.cdn_cache_control);
    let cookie = section.parsed("set_cookie", "\"strip\"", |text| value::choice(text, SET_COOKIE));
    policy.set_cookie = cookie.map_or(policy.set_cookie, |word| word.value);
    let names = |key, usual: &Vec<HeaderName>| list(section, key, "\"x-name\"", field, usual);
    let words = |key, usual: &Vec<String>| list(section, key, "\"name\"", word, usual);
    policy.ignored_vary = names("ignored_vary", &policy.ignored_vary);
    let key = &mut rules.key;
    key.ignored_query = words("ignored_query", &key.ignored_query);
    if section.place_of("only_query").is_some() {
        key.only_query = Some(words("only_query", &Vec::new()));
    }
    key.sorted_query = switch("sorted_query", key.sorted_query);
    key.headers = list(section, "key_headers", "\"x-name\"", key_field, &key.headers);
    key.cookies = words("key_cookies", &key.cookies);
    rules.bypass_headers = names("bypass_headers", &rules.bypass_headers);
    rules.bypass_cookies = words("bypass_cookies", &rules.bypass_cookies);
    let most = section.size_within("max_object_bytes", 1, 1 << 46);
    rules.max_object_bytes = most.unwrap_or(rules.max_object_bytes);
    rules.finish_fills = switch("finish_fills", rules.finish_fills);
    rules.slices = switch("slices", rules.slices);
    rules.status_headers = switch("status_headers", rules.status_headers);
    rules
}

fn list<T: Clone>(
    section: &Section<'_>,
    key: &str,
    example: &str,
    parse: impl Fn(&str) -> Result<T, Wrong>,
    usual: &[T],
) -> Vec<T> {
    let list = section.list(key, example, parse);
    list.map_or_else(|| usual.to_vec(), |list| list.into_iter().map(|item| item.value).collect())
}

fn status_ttl(status: &str, ttl: &str) -> Result<(StatusCode, Duration), Wrong> {
    let bad = |_| Wrong::new(format!("`{status}` is no status"), "write one such as \"404\"");
    let code: StatusCode = status.parse().map_err(bad)?;
    if matches!(code.as_u16(), 100..=199 | 206 | 304 | 412 | 416) {
        let what = format!("answers with {status} are not stored by their status");
        return Err(Wrong::new(what, "leave it out"));
    }
    Ok((code, value::duration(ttl)?))
}

fn field(text: &str) -> Result<HeaderName, Wrong> {
    let bad = |_| Wrong::new(format!("`{text}` is not the name of a field"), "write a name");
    text.parse().map_err(bad)
}

fn key_field(text: &str) -> Result<HeaderName, Wrong> {
    let name = field(text)?;
    if NO_KEYS.contains(&name.as_str()) {
        let what = format!("`{text}` would be another key for nearly every request");
        return Err(Wrong::new(what, "name single cookies in `key_cookies`, or another field"));
    }
    Ok(name)
}

fn word(text: &str) -> Result<String, Wrong> {
    match text {
        "" => Err(Wrong::new("an empty name", "write a name")),
        _ => Ok(text.to_owned()),
    }
}
