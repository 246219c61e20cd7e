//! Variants that a fleet shares, of a target that was told apart long ago.

use std::{cell::Cell, fs, path::PathBuf, sync::Arc};

use http::{HeaderMap, Method, StatusCode, Uri, header};
use mantra_macros::req_test;

use super::*;
use crate::{
    cache::{
        Cache, Counters, Tier,
        key::KeyRules,
        meta::Answer,
        policy::{Terms, reuse::Wishes, terms},
        store::{FleetOptions, Service},
        testing::until,
    },
    config::{self, RouteCache},
    relay::cached::Asked,
};

/// A folder that caches share, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("underpass-variants-{}-{:x}", std::process::id(), fastrand::u64(..));
        Self(std::env::temp_dir().join(name))
    }

    fn cache(&self) -> Arc<Cache> {
        let fleet = FleetOptions {
            service: Service::Folder(self.0.clone()),
            timeout: Duration::from_secs(5),
            max_object_bytes: 64 << 10,
            queue_bytes: 1 << 20,
        };
        let config = config::Cache { fleet: Some(fleet), ..config::Cache::with_defaults() };
        let cache = Cache::new(&config, Counters::default());
        until("it works", || cache.store.statistics().fleet.is_some_and(|fleet| fleet.works));
        cache
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn written(cache: &Cache) -> u64 {
    cache.store.statistics().fleet.map_or(0, |fleet| fleet.writes)
}

/// A request for German.
fn asked(cache: &Arc<Cache>) -> Asked {
    let rules = Arc::new(RouteCache::default());
    let fields = fields(&[(header::ACCEPT_LANGUAGE, "de")]);
    let uri = Uri::from_static("http://h/x");
    Asked {
        cache: Arc::clone(cache),
        primary: Key::of(("http", "h"), &uri, &fields, ("r", None), &KeyRules::default()),
        wishes: Wishes::of(&fields, &rules.policy),
        rules,
        fields,
        method: Method::GET,
        authorized: false,
        form: Form::Memory,
        tier: Cell::new(Tier::Memory),
    }
}

fn fields(all: &[(HeaderName, &'static str)]) -> HeaderMap {
    all.iter().map(|(name, value)| (name.clone(), http::HeaderValue::from_static(value))).collect()
}

/// As it was written so long ago, and the fleet has forgotten it.
fn told_apart(cache: &Cache, text: &str, ago: Duration) -> Varies {
    let varies = Varies { salt: 7, names: vec![header::ACCEPT_LANGUAGE] };
    let (meta, more) = varies.to_store();
    let keep_until = (Moment::now().plus(KEPT).0 / 1000) - ago.as_secs();
    put(cache, text, Head { keep_until, meta, more, ..empty(text) });
    varies
}

fn empty(text: &str) -> Head<Meta> {
    let (meta, more) = Varies { salt: 0, names: Vec::new() }.to_store();
    let text = text.into();
    Head { text, tags: Box::default(), length: None, keep_until: 0, meta, more, body: None }
}

fn put(cache: &Cache, text: &str, head: Head<Meta>) {
    let mut fill = cache.store.fill();
    fill.for_us_alone();
    fill.commit(store::Key::of(text), head).expect("room");
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn who_starts_later_finds_variants_of_what_was_told_apart_long_ago() {
    let answer = fields(&[(header::VARY, "accept-language")]);
    for (ago, is_shared) in [(SHARED_AGAIN / 2, false), (SHARED_AGAIN * 2, true)] {
        let folder = Folder::new();
        let cache = folder.cache();
        let asked = asked(&cache);
        let chosen = Chosen::of(&answer, &asked.fields, &[]);
        let known = told_apart(&cache, asked.primary.common(), ago);
        let looked = asked.look().await;
        let mut question = Question::new(asked.clone(), looked, None);
        let key = question.key(&chosen).expect("it can be stored");
        assert_eq!(key, asked.primary.variant(7, &chosen));
        if is_shared {
            until("it is shared", || written(&cache) == 1);
        }
        let later = super::tests::asked(&folder.cache()).look().await;
        assert_eq!(later.varies, is_shared.then(|| known.clone()));
        // Once: it is as new as that now.
        let mut again = Question::new(asked.clone(), asked.look().await, None);
        again.key(&chosen).expect("it can be stored");
        assert!(again.fills.varies.is_some(), "nothing is written");
    }
}

/// The same for one that has been validated, which is shared then, too.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn a_variant_that_is_validated_is_shared_with_what_tells_it_apart() {
    let folder = Folder::new();
    let cache = folder.cache();
    let asked = asked(&cache);
    let known = told_apart(&cache, asked.primary.common(), SHARED_AGAIN * 2);
    let chosen = Chosen::by(&known.names, &asked.fields);
    let key = asked.primary.variant(known.salt, &chosen);
    put(&cache, key.text(), stale(&asked, key.text()));
    let mut question = Question::new(asked.clone(), asked.look().await, None);
    let said = fields(&[(header::ETAG, "\"a\""), (header::CACHE_CONTROL, "max-age=60")]);
    assert!(question.confirm(&said, Moment::now()).is_some());
    until("both are shared", || written(&cache) == 2);
    let later: Option<Stored<_>> = super::tests::asked(&folder.cache()).look().await.stored;
    assert_eq!(later.expect("it is found").text(), key.text());
}

/// An answer that has to be validated.
fn stale(asked: &Asked, text: &str) -> Head<Meta> {
    let headers = fields(&[(header::ETAG, "\"a\""), (header::CACHE_CONTROL, "max-age=0")]);
    let now = Moment::now();
    let said = terms::Answer {
        status: StatusCode::OK,
        headers: &headers,
        asked: now,
        received: now,
        authorized: false,
    };
    let terms = Terms::of(&said, &asked.rules.policy).expect("it can be stored");
    let (meta, more) = Answer { status: StatusCode::OK, headers, terms }.to_store();
    Head { meta, more, keep_until: now.0 / 1000 + 60, ..empty(text) }
}
