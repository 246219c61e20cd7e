//! The cache from outside: what is in it, and how it is made to forget.

use std::{sync::Arc, time::Duration};

use http::{StatusCode, Uri};
use serde::Serialize;

use super::State;
use crate::cache::{
    Cache,
    key::{self, KeyRules},
    store::What,
};

/// What `/cache` shows.
#[derive(Debug, Serialize)]
pub(super) struct View {
    enabled: bool,
    memory_bytes: u64,
    memory_objects: u64,
    memory_entries: u64,
    memory_evictions: u64,
    memory_refusals: u64,
    under_way: usize,
    disk: Option<DiskView>,
    fleet: Option<FleetView>,
}

/// The same of the disk.
#[derive(Debug, Serialize)]
struct DiskView {
    bytes: u64,
    objects: u64,
    entries: u64,
    index_bytes: u64,
    queued_bytes: u64,
    errors: u64,
}

/// What a fleet shares, as this process has seen it.
#[derive(Debug, Serialize)]
struct FleetView {
    works: bool,
    hits: u64,
    misses: u64,
    read_bytes: u64,
    writes: u64,
    written_bytes: u64,
    queued_bytes: u64,
    queued_reads: u64,
    dropped: u64,
    busy: u64,
    damaged: u64,
    refused: u64,
    errors: u64,
}

pub(super) fn view(state: &State) -> View {
    let cache = state.cache.get();
    let now = cache.map(|cache| cache.store.statistics()).unwrap_or_default();
    View {
        enabled: cache.is_some(),
        memory_bytes: now.memory_bytes,
        memory_objects: now.memory_objects,
        memory_entries: now.memory_entries,
        memory_evictions: now.memory_evictions,
        memory_refusals: now.memory_refusals,
        under_way: cache.map_or(0, |cache| cache.flights.count()),
        disk: now.disk.map(|disk| DiskView {
            bytes: disk.bytes,
            objects: disk.objects,
            entries: disk.entries,
            index_bytes: disk.index_bytes,
            queued_bytes: disk.queued_bytes,
            errors: disk.errors,
        }),
        fleet: now.fleet.map(|fleet| FleetView {
            works: fleet.works,
            hits: fleet.hits,
            misses: fleet.misses,
            read_bytes: fleet.read_bytes,
            writes: fleet.writes,
            written_bytes: fleet.written_bytes,
            queued_bytes: fleet.queued_bytes,
            queued_reads: fleet.queued_reads,
            dropped: fleet.dropped,
            busy: fleet.busy,
            damaged: fleet.damaged,
            refused: fleet.refused,
            errors: fleet.errors,
        }),
    }
}

/// Whether a fleet, if there is one, knows what has been purged; waits a second for it.
async fn fleet_is_told(cache: &Cache) -> bool {
    for _ in 0..50 {
        if !cache.store.is_any_purge_untold() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Forgets what the query says; how many answers that were.
pub(super) async fn purge(state: &State, query: Option<&str>) -> (StatusCode, String) {
    let wrong = |what: String| (StatusCode::BAD_REQUEST, format!("{what}\n"));
    let Some(cache) = state.cache.get().cloned() else {
        return (StatusCode::NOT_FOUND, "there is no cache\n".to_owned());
    };
    let what = match meant(query.unwrap_or_default(), &cache.spellings.load()) {
        Ok(what) => what,
        Err(why) => return wrong(why),
    };
    tracing::info!("cache: purge of {what:?}");
    let here = Arc::clone(&cache);
    let forgets = move || what.iter().map(|what| here.purge(what)).collect::<Vec<_>>();
    let purged = tokio::task::spawn_blocking(forgets).await;
    match purged {
        Ok(mut purged) => {
            let mut is_written = true;
            for purged in &mut purged {
                is_written &= purged.written().await;
            }
            let kept = match is_written {
                true => "",
                false => ", and the disk takes no note of it yet: it is tried on",
            };
            let told = match fleet_is_told(&cache).await {
                true => "",
                false => ", and the fleet has not been told yet: it is tried on",
            };
            let removed: usize = purged.iter().map(|purged| purged.removed).sum();
            (StatusCode::OK, format!("purged {removed}{kept}{told}\n"))
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "see the log\n".to_owned()),
    }
}

/// What a query means, where routes spell targets so.
fn meant(query: &str, spellings: &[KeyRules]) -> Result<Vec<What>, String> {
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    let (Some(pair), None) = (pairs.next(), pairs.next()) else {
        return Err("one of url=, prefix=, tag= and all=true is needed".to_owned());
    };
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let value = decoded(value).ok_or_else(|| format!("`{name}`: not percent-encoded text"))?;
    match name {
        "url" => {
            let plain = KeyRules::default();
            let mut all = Vec::new();
            for rules in std::iter::once(&plain).chain(spellings) {
                let target = spelt(&value, rules);
                let target = target.ok_or("`url`: write it as http://host/path?query")?;
                // A key goes on with a new line behind its target.
                let what = What::Prefix(format!("{target}\n").into());
                if !all.contains(&what) {
                    all.push(what);
                }
            }
            Ok(all)
        }
        "prefix" => {
            let prefix = spelt(&value, &KeyRules::default());
            Ok(vec![What::Prefix(prefix.ok_or("`prefix`: write it as http://host/path")?.into())])
        }
        "tag" if !value.is_empty() => Ok(vec![What::Tag(value.into())]),
        "all" if value == "true" => Ok(vec![What::All]),
        _ => Err(format!("`{name}`: only url=, prefix=, tag= and all=true")),
    }
}

/// A URL in the spelling of keys, by these rules.
fn spelt(url: &str, rules: &KeyRules) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
    Some(key::target_with_query(scheme, uri.authority()?.as_str(), &uri, rules))
}

/// Percent-encoding taken off (RFC 3986 section 2.1).
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(more.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = more.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_means_what_routes_make_of_it() {
        let sorted = KeyRules { sorted_query: true, ..KeyRules::default() };
        let rules = [sorted.clone(), KeyRules { ignored_query: vec!["utm_*".into()], ..sorted }];
        let targets = |query| match meant(query, &rules) {
            Ok(all) => all,
            Err(error) => panic!("{error}"),
        };
        let prefix = |text: &str| What::Prefix(text.into());
        assert_eq!(
            targets("url=http://a/x%3Fb=1%26a=2%26utm_source=z"),
            [
                prefix("http://a/x?b=1&a=2&utm_source=z\n"),
                prefix("http://a/x?a=2&b=1&utm_source=z\n"),
                prefix("http://a/x?a=2&b=1\n"),
            ]
        );
        assert_eq!(targets("url=http://a/x"), [prefix("http://a/x\n")]);
        assert_eq!(targets("prefix=http://a/x%3Fb=1%26a"), [prefix("http://a/x?b=1&a")]);
    }

    #[test]
    fn what_is_meant_is_said_by_one_parameter() {
        let prefix = |text: &str| Ok(vec![What::Prefix(text.into())]);
        for (query, wanted) in [
            ("url=http://A.test:80/x%3Fb=1", prefix("http://a.test/x?b=1\n")),
            ("url=https%3A%2F%2Fa.test%2F", prefix("https://a.test/\n")),
            ("prefix=http://a.test/dir/", prefix("http://a.test/dir/")),
            ("tag=product%2042", Ok(vec![What::Tag("product 42".into())])),
            ("all=true", Ok(vec![What::All])),
        ] {
            assert_eq!(meant(query, &[]), wanted, "{query}");
        }
        for bad in [
            "",
            "url=",
            "url=/x",
            "url=ftp://a/x",
            "tag=",
            "all=",
            "all=false",
            "x=1",
            "tag=a&tag=b",
            "tag=%zz",
            "tag=%4",
            "tag=%+1",
        ] {
            assert!(meant(bad, &[]).is_err(), "{bad}");
        }
    }
}
