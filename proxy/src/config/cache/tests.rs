//! `[cache]`: what is read comes back by the effective configuration, what is wrong has a cure.

use std::time::Duration;

use super::super::{Config, Errors, parse};
use crate::cache::policy::SetCookie;

const REST: &str = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:1\"\n\
                    [[upstream]]\nname = \"a\"\nservers = [\"a:1\"]\n";

fn read(text: &str) -> Result<Config, Errors> {
    parse(&format!("{text}\n{REST}"), "t.toml")
}

#[test]
fn everything_is_read_and_written_back() {
    let text = "[cache]\nmemory_bytes = \"8MiB\"\ndirectory = \"/d\"\n\
        disk_bytes = \"1GiB\"\ndisk_index_bytes = \"2MiB\"\nblock_bytes = \"64KiB\"\nall_routes = true\n\
        uncacheable_ttl = \"3s\"\n[cache.rules]\ndefault_ttl = \"1m\"\n\
        [[route]]\npath = \"/own\"\nupstream = \"a\"\n[route.cache]\noverride_ttl = \"2m\"\n\
        max_ttl = \"1h\"\nstatus_ttl = { \"404\" = \"10s\", \"502\" = \"1s\" }\n\
        heuristic_ratio = 0.1\nstale_while_revalidate = \"5s\"\nstale_if_error = \"6s\"\n\
        request_directives = true\ncdn_cache_control = true\nset_cookie = \"strip\"\n\
        ignored_vary = [\"User-Agent\"]\nignored_query = [\"utm_*\"]\nonly_query = [\"id\"]\n\
        sorted_query = true\nkey_headers = [\"X-Device\"]\nkey_cookies = [\"lang\"]\n\
        bypass_headers = [\"X-Preview\"]\nbypass_cookies = [\"session\"]\n\
        max_object_bytes = \"2MiB\"\nfinish_fills = true\nslices = false\nstatus_headers = false\n\
        [[route]]\npath = \"/not\"\ncache = false\nupstream = \"a\"\n\
        [[route]]\nupstream = \"a\"\n";
    let config = read(text).unwrap();
    let cache = config.cache.clone().unwrap();
    assert_eq!((cache.memory_bytes, cache.block_bytes), (8 << 20, 64 << 10));
    let disk = cache.disk.as_ref().unwrap();
    assert_eq!((disk.bytes, disk.index_bytes), (1 << 30, 2 << 20));
    assert_eq!(cache.uncacheable_ttl, Duration::from_secs(3));
    let own = config.routes[0].cache.clone().unwrap();
    assert_eq!(own.policy.default_ttl, Some(Duration::from_secs(60)), "of [cache.rules]");
    assert_eq!(own.policy.status_ttl.len(), 2);
    assert_eq!(own.policy.set_cookie, SetCookie::Strip);
    assert_eq!(own.policy.ignored_vary, ["user-agent"]);
    assert_eq!(own.key.only_query.as_deref(), Some(&["id".to_owned()][..]));
    assert_eq!((own.max_object_bytes, own.finish_fills, own.slices), (2 << 20, true, false));
    assert!(config.routes[1].cache.is_none());
    assert_eq!(config.routes[2].cache.as_deref(), Some(&cache.rules));
    let back = parse(&config.effective(), "effective.toml").unwrap();
    assert_eq!(back.cache, Some(cache));
    for (one, other) in config.routes.iter().zip(&back.routes) {
        assert_eq!(one.cache, other.cache);
    }
}

#[test]
fn routes_are_cached_where_they_are_told_to_be() {
    let of = |cache: &str, route: &str| {
        let config = read(&format!("{cache}\n[[route]]\n{route}\nupstream = \"a\"\n")).unwrap();
        config.routes[0].cache.is_some()
    };
    assert!(!of("", "") && !of("[cache]", "") && !of("", "cache = false"));
    assert!(of("[cache]", "cache = true") && of("[cache]\nall_routes = true", ""));
    assert!(!of("[cache]\nall_routes = true", "cache = false"));
    assert!(of("[cache]", "cache = { default_ttl = \"1s\" }"));
}

#[test]
fn wrong_ones_have_one_problem_with_a_cure() {
    for (text, what, cure) in [
        ("[[route]]\ncache = true", "there is no [cache]", "[cache]"),
        ("[cache]\nmemory_bytes = 12\n[[route]]", "out of range", "1MiB"),
        ("[cache]\nblock_bytes = \"100KiB\"\n[[route]]", "power of two", "256KiB"),
        ("[cache]\ndisk_bytes = \"1GiB\"\n[[route]]", "without a `directory`", "directory"),
        ("[cache]\ndirectory = \"/d\"\ndisk_bytes = \"1MiB\"\n[[route]]", "out of range", "32MiB"),
        ("[cache]\ndirectory = \"/d\"\nblock_bytes = \"2MiB\"\n[[route]]", "too large", "1MiB"),
        ("[cache]\nfolder = 1\n[[route]]", "unknown key `folder`", "memory_bytes"),
        ("[cache]\n[[route]]\ncache = 5", "`cache`", "true or false"),
        ("[cache]\n[[route]]\ncache = { ttl = \"1s\" }", "unknown key `ttl`", "default_ttl"),
        ("[cache]\n[[route]]\ncache = { status_ttl = { \"x\" = \"1s\" } }", "no status", "404"),
        ("[cache]\n[[route]]\ncache = { status_ttl = { \"304\" = \"1s\" } }", "304", "leave it"),
        ("[cache]\n[[route]]\ncache = { key_headers = [\"Cookie\"] }", "Cookie", "key_cookies"),
        ("[cache]\n[[route]]\ncache = { set_cookie = \"yes\" }", "unknown value", "strip"),
        ("[cache]\n[[route]]\ncache = { heuristic_ratio = 2 }", "no share", "0.0 to 1.0"),
    ] {
        let errors = read(&format!("{text}\nupstream = \"a\"\n")).expect_err(text);
        assert_eq!(errors.iter().count(), 1, "{text}: {errors}");
        let said = errors.to_string();
        assert!(said.contains(what) && said.contains(cure), "{text}: {said}");
    }
}
