//! Proxies that share what they have fetched: a folder, Redis, S3. The same cases over each.
//!
//! `UNDERPASS_TEST_PYTHON` names a Python that has the package `moto[server]`, which is the S3;
//! without it `python3` is tried, and one that lacks it skips that test.

use std::{net::SocketAddr, path::Path, time::Duration};

use mantra_macros::req_test;
use underpass_tests::{Message, Origin, Proxy, Seen, eventually, fleet::Shared, pattern};

use super::{
    answer, ask, did, get,
    purge::{TOKEN, purge},
    ranges::{LENGTH, check_part, reply},
    with_cache,
};

mod trouble;

/// Long enough for any machine: nothing is to be late where nothing is wrong.
const PATIENT: &str = "timeout = \"5s\"";

/// So that it can be asked what is there without fetching it.
const RULES: &str = "request_directives = true";

/// A proxy that shares, as soon as it has seen that this works.
async fn member(origin: SocketAddr, shared: &Shared, cache: &str) -> Proxy {
    let proxy = starts(origin, shared, cache, PATIENT);
    works(&proxy).await;
    proxy
}

/// The same, whether it works or not.
fn starts(origin: SocketAddr, shared: &Shared, cache: &str, more: &str) -> Proxy {
    let cache = format!("block_bytes = \"16KiB\"\n{cache}\n{}", shared.section(more));
    with_cache(origin, &cache, RULES).env("UNDERPASS_ADMIN_TOKEN", TOKEN).start()
}

async fn of(proxy: &Proxy, name: &str) -> f64 {
    proxy.metrics().await.sum(&format!("underpass_cache_fleet_{name}"), &[])
}

async fn works(proxy: &Proxy) {
    eventually("the service works", async || of(proxy, "works").await == 1.0).await;
}

/// So many answers and blocks are there for the others.
async fn has_written(proxy: &Proxy, least: f64) {
    let written =
        async || of(proxy, "writes_total").await >= least && of(proxy, "queued_bytes").await == 0.0;
    eventually("what was fetched is shared", written).await;
}

/// Whether an answer is there, here or where it is shared, without having it fetched.
async fn is_there(proxy: &Proxy, target: &str) -> bool {
    let asked = get(proxy, target, "Cache-Control: only-if-cached").await;
    assert!([200, 504].contains(&asked.status()), "{}", asked.status());
    asked.status() == 200
}

fn cache_status(message: &Message) -> &str {
    message.head.get("cache-status").unwrap_or("-")
}

/// Small, of many blocks, and of several variants.
fn answers(seen: &Seen) -> Vec<u8> {
    match seen.message.head.target() {
        "/large" => reply(&seen.message, "\"a\"", ""),
        "/vary" => {
            let language = seen.message.head.get("accept-language").unwrap_or("none");
            answer("Cache-Control: max-age=600|Vary: Accept-Language", language).into_bytes()
        }
        target => answer("Cache-Control: max-age=600|Surrogate-Key: red", target).into_bytes(),
    }
}

async fn is_shared(shared: &Shared) {
    let origin = Origin::bind().await.serve(answers);
    let one = member(origin.addr(), shared, "").await;
    let other = member(origin.addr(), shared, "").await;
    let asks = [
        ("/small", ""),
        ("/large", ""),
        ("/vary", "Accept-Language: de"),
        ("/vary", "Accept-Language: en"),
    ];
    let mut first = Vec::new();
    for (target, fields) in asks {
        let got = get(&one, target, fields).await;
        assert_eq!((got.status(), did(&got)), (200, "MISS"), "{target} {fields}");
        first.push(got);
    }
    // A head each, by what variants are told apart, and the blocks of the large one.
    has_written(&one, 5.0 + (LENGTH as f64 / 16384.0).ceil()).await;
    let before = origin.seen().len();
    assert_eq!(before, asks.len());
    for ((target, fields), first) in asks.into_iter().zip(&first) {
        let got = get(&other, target, fields).await;
        assert_eq!(did(&got), "HIT", "{target} {fields}");
        assert!(cache_status(&got).contains("; detail=fleet"), "{}", cache_status(&got));
        assert!(got.body == first.body, "{target} {fields}: other bytes");
        for field in ["etag", "content-length", "cache-control", "vary"] {
            assert_eq!(got.head.get(field), first.head.get(field), "{target} {field}");
        }
        let age: u64 = got.head.get("age").expect("Age").parse().expect("a number");
        assert!(age < 600);
    }
    pattern::check(0, &first[1].body);
    // From now on it has it itself.
    let hits = of(&other, "hits_total").await;
    for (target, fields) in asks {
        let got = get(&other, target, fields).await;
        assert_eq!(did(&got), "HIT");
        assert!(!cache_status(&got).contains("fleet"), "{}", cache_status(&got));
    }
    assert_eq!(of(&other, "hits_total").await, hits);
    // A part of what only the fleet has.
    let third = member(origin.addr(), shared, "").await;
    let part = get(&third, "/large", "Range: bytes=100000-100099").await;
    assert_eq!(did(&part), "HIT");
    check_part(&part, 100_000, 100_100);
    assert_eq!(origin.seen().len(), before, "one request for each, of all");
    let metrics = other.metrics().await;
    let first_bytes = "underpass_cache_answer_duration_seconds_count";
    assert_eq!(metrics.sum(first_bytes, &[("tier", "fleet")]), asks.len() as f64);
    let shown = other.ask_admin("GET", "/cache").await.text();
    assert!(shown.contains("\"fleet\":{\"works\":true"), "{shown}");
}

async fn purges_reach_all(shared: &Shared) {
    let origin = Origin::bind().await.serve(answers);
    let one = member(origin.addr(), shared, "").await;
    let other = member(origin.addr(), shared, "").await;
    let all = ["/a", "/a/b", "/c"];
    for (what, gone) in [
        (&["--url", "http://h/a"][..], &["/a"][..]),
        (&["--prefix", "http://h/a"], &["/a", "/a/b"]),
        (&["--tag", "red"], &all),
        (&["--all"], &all),
    ] {
        for target in all {
            get(&one, target, "").await;
            eventually("it is shared", async || is_there(&other, target).await).await;
        }
        let (done, said) = purge(&one, what, TOKEN);
        assert!(done, "{what:?}: {said}");
        // Nor is what the other would give taken back from there.
        for target in gone {
            eventually("it is gone at the other", async || !is_there(&other, target).await).await;
        }
        for target in all.iter().filter(|target| !gone.contains(target)) {
            assert_eq!(did(&get(&other, target, "").await), "HIT", "{target} after {what:?}");
        }
        // What is fetched within a second after a purge counts as older.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let before = origin.seen().len();
        for target in gone {
            assert_eq!(did(&get(&one, target, "").await), "MISS", "{target} after {what:?}");
            eventually("it is shared", async || is_there(&other, target).await).await;
        }
        assert_eq!(origin.seen().len(), before + gone.len());
    }
}

/// What is not stored for others is not shared either.
async fn nothing_private_is_shared(shared: &Shared) {
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.target() {
        "/cookie" => answer("Cache-Control: max-age=600|Set-Cookie: s=1", "x"),
        "/private" => answer("Cache-Control: private, max-age=600", "x"),
        "/no-store" => answer("Cache-Control: no-store", "x"),
        "/public" => answer("Cache-Control: public, max-age=600", "x"),
        _ => answer("Cache-Control: max-age=600", "x"),
    });
    let one = member(origin.addr(), shared, "").await;
    let other = member(origin.addr(), shared, "").await;
    let bearer = "Authorization: Bearer s3cret";
    let asks = [("/cookie", ""), ("/private", ""), ("/no-store", ""), ("/authorized", bearer)];
    for (target, fields) in asks {
        get(&one, target, fields).await;
    }
    get(&one, "/public", bearer).await;
    has_written(&one, 1.0).await;
    for (target, fields) in asks {
        let got = get(&other, target, fields).await;
        assert!(!["HIT", "STALE"].contains(&did(&got)), "{target}: {}", did(&got));
    }
    assert_eq!(did(&get(&other, "/public", "").await), "HIT");
    assert_eq!(of(&one, "writes_total").await, 1.0);
}

/// An unsafe request through one proxy: what it has made worthless is gone at the service, too.
async fn what_is_made_worthless_is_gone(shared: &Shared) {
    let origin = Origin::bind().await.serve(answers);
    let one = member(origin.addr(), shared, "").await;
    get(&one, "/a", "").await;
    has_written(&one, 1.0).await;
    let posted = ask(&mut one.connect().await, "POST", "/a", "Content-Length: 0").await;
    assert_eq!(posted.status(), 200);
    let other = member(origin.addr(), shared, "").await;
    // Who asks too early has it from then on, the next one has not.
    if is_there(&other, "/a").await {
        let third = member(origin.addr(), shared, "").await;
        assert!(!is_there(&third, "/a").await);
    }
}

async fn all_cases(shared: impl Fn() -> Option<Shared>) {
    let Some(first) = shared() else { return };
    is_shared(&first).await;
    if let Some(shared) = shared() {
        purges_reach_all(&shared).await;
    }
    if let Some(shared) = shared() {
        nothing_private_is_shared(&shared).await;
    }
    if let Some(shared) = shared() {
        what_is_made_worthless_is_gone(&shared).await;
    }
}

#[req_test("REQ-CACHE-002", "REQ-CACHE-004", "REQ-CACHE-006")]
#[tokio::test]
async fn a_folder_is_shared() {
    all_cases(|| Some(Shared::folder())).await;
}

#[req_test("REQ-CACHE-002", "REQ-CACHE-004", "REQ-CACHE-006")]
#[tokio::test]
async fn a_redis_is_shared() {
    all_cases(Shared::redis).await;
}

#[req_test("REQ-CACHE-002", "REQ-CACHE-004", "REQ-CACHE-006")]
#[tokio::test]
async fn a_bucket_of_s3_is_shared() {
    all_cases(Shared::s3).await;
}

/// What one has validated is fresh for all: the server is not asked by each.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_one_has_validated_the_others_use() {
    let shared = Shared::folder();
    let origin = Origin::bind().await.serve(|seen| match seen.message.head.get("if-none-match") {
        None => answer("Cache-Control: max-age=5|ETag: \"a\"", "x"),
        Some(_) => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=600\r\n\r\n"
            .to_owned(),
    });
    let one = member(origin.addr(), &shared, "").await;
    let other = member(origin.addr(), &shared, "").await;
    get(&one, "/x", "").await;
    has_written(&one, 1.0).await;
    assert_eq!(did(&get(&other, "/x", "").await), "HIT");
    tokio::time::sleep(Duration::from_millis(5100)).await;
    assert_eq!(did(&get(&one, "/x", "").await), "REVALIDATED");
    has_written(&one, 2.0).await;
    let got = get(&other, "/x", "").await;
    assert_eq!((did(&got), got.text().as_str()), ("HIT", "x"));
    assert!(cache_status(&got).contains("detail=fleet"), "{}", cache_status(&got));
    assert_eq!(origin.seen().len(), 2);
}

/// As for a purge that is made here: what was asked for before it is not kept, nor joined.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_is_under_way_when_another_one_purges_is_not_joined() {
    let shared = Shared::folder();
    let origin = Origin::bind().await;
    let one = member(origin.addr(), &shared, "").await;
    let other = member(origin.addr(), &shared, "").await;
    let asks = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut first = other.open(asks).await;
    let mut server = origin.accept().await;
    server.read_request().await;
    let (done, said) = purge(&one, &["--url", "http://h/x"], TOKEN);
    assert!(done, "{said}");
    other.log_line(&["by another proxy of the fleet"]).await;
    let mut second = other.open(asks).await;
    let mut again = origin.accept().await;
    again.read_request().await;
    server.send(answer("Cache-Control: max-age=60", "old")).await;
    assert_eq!(first.read_response().await.text(), "old");
    again.send(answer("Cache-Control: max-age=60", "new")).await;
    assert_eq!(second.read_response().await.text(), "new");
    let got = get(&other, "/x", "").await;
    assert_eq!((did(&got), got.text().as_str()), ("HIT", "new"));
}

/// Whose certificate has to be good: the roots are those of the system, here of a file.
#[req_test("REQ-CACHE-002", "REQ-CACHE-007")]
#[tokio::test]
async fn a_redis_over_tls_has_to_be_the_right_one() {
    let Some(shared) = Shared::redis_tls() else { return };
    let origin = Origin::bind().await.serve(answers);
    let cache = shared.section(PATIENT);
    let trusts = |file: &str| {
        let proxy = with_cache(origin.addr(), &cache, RULES);
        proxy.env("SSL_CERT_FILE", shared.path(file).to_string_lossy()).start()
    };
    let (one, other) = (trusts("ca.pem"), trusts("ca.pem"));
    works(&one).await;
    works(&other).await;
    get(&one, "/small", "").await;
    has_written(&one, 1.0).await;
    assert_eq!(did(&get(&other, "/small", "").await), "HIT");
    // The key is no certificate: it trusts nobody.
    let third = trusts("tls.key");
    third.log_line(&["does not work, origins are asked"]).await;
    assert_eq!(did(&get(&third, "/small", "").await), "MISS");
    for proxy in [&one, &third] {
        let shown = proxy.ask_admin("GET", "/config").await.text();
        assert!(shown.contains("rediss://localhost") && !shown.contains("s3cret"), "{shown}");
        assert!(!proxy.stderr().contains("s3cret"));
    }
}

/// Members that differ in the size of a block have different blocks, and share purges all the same.
#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn blocks_of_another_size_are_others() {
    let shared = Shared::folder();
    let origin = Origin::bind().await.serve(answers);
    let one = member(origin.addr(), &shared, "").await;
    let cache = format!("block_bytes = \"64KiB\"\n{}", shared.section(PATIENT));
    let other = with_cache(origin.addr(), &cache, RULES).start();
    works(&other).await;
    for target in ["/small", "/large"] {
        let first = get(&one, target, "").await;
        has_written(&one, 1.0).await;
        let got = get(&other, target, "").await;
        assert_eq!((did(&got), got.body == first.body), ("MISS", true), "{target}");
    }
    let (done, said) = purge(&one, &["--all"], TOKEN);
    assert!(done, "{said}");
    eventually("it is gone at the other", async || !is_there(&other, "/small").await).await;
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    let at = at % bytes.len();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("a file");
}
