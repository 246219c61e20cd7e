//! The cache from outside: what is in it, and how it is made to forget.

use std::sync::Arc;

use http::{StatusCode, Uri};
use serde::Serialize;

use super::State;
use crate::cache::{
    Cache, key,
    store::{Purged, What},
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
    }
}

/// Forgets what the query says; how many answers that were.
pub(super) async fn purge(state: &State, query: Option<&str>) -> (StatusCode, String) {
    let wrong = |what: String| (StatusCode::BAD_REQUEST, format!("{what}\n"));
    let Some(cache) = state.cache.get().cloned() else {
        return (StatusCode::NOT_FOUND, "there is no cache\n".to_owned());
    };
    let what = match meant(query.unwrap_or_default()) {
        Ok(what) => what,
        Err(why) => return wrong(why),
    };
    tracing::info!("cache: purge of {what:?}");
    let purged = tokio::task::spawn_blocking(move || forget(&cache, &what)).await;
    match purged {
        Ok(mut purged) => {
            let kept = match purged.written().await {
                true => "",
                false => ", and the disk takes no note of it yet: it is tried on",
            };
            (StatusCode::OK, format!("purged {}{kept}\n", purged.removed))
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "see the log\n".to_owned()),
    }
}

fn forget(cache: &Arc<Cache>, what: &What) -> Purged {
    let purged = cache.store.purge(what);
    // What is under way is not stored any more, and not joined either. Of that the tags are not
    // known, so with these everybody asks anew.
    cache.flights.forget(|text| match what {
        What::Prefix(prefix) => text.starts_with(&**prefix),
        What::All | What::Tag(_) => true,
    });
    purged
}

fn meant(query: &str) -> Result<What, String> {
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    let (Some(pair), None) = (pairs.next(), pairs.next()) else {
        return Err("one of url=, prefix=, tag= and all=true is needed".to_owned());
    };
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let value = decoded(value).ok_or_else(|| format!("`{name}`: not percent-encoded text"))?;
    match name {
        "url" => {
            let target = spelt(&value).ok_or("`url`: write it as http://host/path?query")?;
            // A key goes on with a new line behind its target.
            Ok(What::Prefix(format!("{target}\n").into()))
        }
        "prefix" => {
            let prefix = spelt(&value).ok_or("`prefix`: write it as http://host/path")?;
            Ok(What::Prefix(prefix.into()))
        }
        "tag" if !value.is_empty() => Ok(What::Tag(value.into())),
        "all" if value == "true" => Ok(What::All),
        _ => Err(format!("`{name}`: only url=, prefix=, tag= and all=true")),
    }
}

/// A URL in the spelling of keys.
fn spelt(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
    let mut target = key::target(scheme, uri.authority()?.as_str(), uri.path());
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    Some(target)
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
    fn what_is_meant_is_said_by_one_parameter() {
        let prefix = |text: &str| Ok(What::Prefix(text.into()));
        for (query, wanted) in [
            ("url=http://A.test:80/x%3Fb=1", prefix("http://a.test/x?b=1\n")),
            ("url=https%3A%2F%2Fa.test%2F", prefix("https://a.test/\n")),
            ("prefix=http://a.test/dir/", prefix("http://a.test/dir/")),
            ("tag=product%2042", Ok(What::Tag("product 42".into()))),
            ("all=true", Ok(What::All)),
        ] {
            assert_eq!(meant(query), wanted, "{query}");
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
            assert!(meant(bad).is_err(), "{bad}");
        }
    }
}
