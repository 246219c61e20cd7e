//! What a fleet shares is gone, damaged, or does not answer: nobody notices but the log.

use std::time::{Duration, Instant};

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, eventually, fleet::Shared, pattern, proxy::scratch};

use super::{
    super::{ask, did, get, ranges::LENGTH},
    PATIENT, TOKEN, answers, flip, has_written, is_there, member, of, purge, starts, works,
};

/// How long a request of these tests waits for the service.
const TIMEOUT: &str = "timeout = \"200ms\"";

/// What an answer may take that waits for it in vain: that, and what a loaded machine takes.
const BOUND: Duration = Duration::from_millis(3500);

/// Answered by the origin, and soon.
async fn is_missed(proxy: &Proxy, target: &str) {
    let begin = Instant::now();
    let got = get(proxy, target, "").await;
    assert_eq!((got.status(), did(&got)), (200, "MISS"), "{target}");
    assert!(begin.elapsed() < BOUND, "{target}: {:?}", begin.elapsed());
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn blocks_that_are_gone_or_damaged_are_fetched_from_the_origin() {
    let shared = Shared::folder();
    let origin = Origin::bind().await.serve(answers);
    let one = member(origin.addr(), &shared, "").await;
    get(&one, "/large", "").await;
    has_written(&one, 1.0 + (LENGTH as f64 / 16384.0).ceil()).await;
    for (at, file) in shared.files("/b/").into_iter().enumerate() {
        match at % 3 {
            0 => std::fs::remove_file(file).expect("a block"),
            1 => flip(&file, 1000 + at),
            _ => {}
        }
    }
    let other = member(origin.addr(), &shared, "").await;
    let got = get(&other, "/large", "").await;
    assert_eq!(got.body.len(), LENGTH);
    pattern::check(0, &got.body);
    let whole = |seen: &underpass_tests::Seen| seen.message.head.get("range").is_none();
    assert_eq!(origin.seen().iter().filter(|seen| whole(seen)).count(), 1, "but for parts");
    assert_eq!(other.metrics().await.sum("underpass_cache_cuts_total", &[]), 0.0);
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn a_damaged_answer_is_not_served() {
    let shared = Shared::folder();
    let origin = Origin::bind().await.serve(answers);
    let one = member(origin.addr(), &shared, "").await;
    get(&one, "/small", "").await;
    has_written(&one, 1.0).await;
    let heads = shared.files("/h/");
    assert_eq!(heads.len(), 1);
    let other = member(origin.addr(), &shared, "").await;
    flip(&heads[0], 130);
    is_missed(&other, "/small").await;
    assert_eq!(of(&other, "damaged_total").await, 1.0);
    assert_eq!(of(&other, "works").await, 1.0);
    // What has been fetched instead takes its place.
    has_written(&other, 1.0).await;
    let third = member(origin.addr(), &shared, "").await;
    assert_eq!(did(&get(&third, "/small", "").await), "HIT");
    assert_eq!(origin.seen().len(), 2);
}

/// A file where the folder is to be: as any service that is not there at the start.
#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn a_service_that_is_not_there_at_the_start_fails_nobody() {
    let shared = Shared::folder();
    let section = shared.section("");
    let path = section.split("file://").nth(1).and_then(|rest| rest.split('"').next());
    let path = path.expect("a folder").to_owned();
    std::fs::write(&path, b"").expect("a file");
    let origin = Origin::bind().await.serve(answers);
    let proxy = starts(origin.addr(), &shared, "", TIMEOUT);
    for target in ["/1", "/2"] {
        is_missed(&proxy, target).await;
        assert_eq!(did(&get(&proxy, target, "").await), "HIT");
    }
    proxy.log_line(&["does not work, origins are asked"]).await;
    std::fs::remove_file(path).expect("the file");
    works(&proxy).await;
    proxy.log_line(&["works again"]).await;
    get(&proxy, "/3", "").await;
    has_written(&proxy, 1.0).await;
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn a_redis_that_hangs_or_dies_delays_nobody_and_is_used_again() {
    let Some(mut shared) = Shared::redis() else { return };
    let origin = Origin::bind().await.serve(answers);
    let proxy = starts(origin.addr(), &shared, "", TIMEOUT);
    works(&proxy).await;
    get(&proxy, "/0", "").await;
    has_written(&proxy, 1.0).await;
    shared.hangs();
    // The first one finds out, the others need not.
    for number in 1..6 {
        is_missed(&proxy, &format!("/{number}")).await;
    }
    let begin = Instant::now();
    for number in 6..26 {
        is_missed(&proxy, &format!("/{number}")).await;
    }
    assert!(begin.elapsed() < BOUND, "20 requests: {:?}", begin.elapsed());
    assert_eq!(of(&proxy, "works").await, 0.0);
    proxy.log_line(&["does not work, origins are asked"]).await;
    shared.goes_on();
    works(&proxy).await;
    let other = starts(origin.addr(), &shared, "", TIMEOUT);
    works(&other).await;
    let served = async || did(&get(&other, "/0", "").await) == "HIT";
    eventually("what was there before is there", served).await;
    shared.dies();
    for number in 30..36 {
        is_missed(&proxy, &format!("/{number}")).await;
    }
    eventually("it is seen", async || of(&proxy, "works").await == 0.0).await;
    shared.comes_back();
    works(&proxy).await;
    let before = of(&proxy, "writes_total").await;
    get(&proxy, "/40", "").await;
    has_written(&proxy, before + 1.0).await;
    let lines = proxy.stderr();
    let count = |text: &str| lines.lines().filter(|line| line.contains(text)).count();
    assert!(count("does not work") <= 3 && count("works again") <= 3, "{lines}");
}

/// Purges that are made while it is away reach the others when it is there again, for it has
/// forgotten everything.
#[req_test("REQ-CACHE-004", "REQ-CACHE-007")]
#[tokio::test]
async fn purges_outlive_a_service_that_was_away() {
    let Some(mut shared) = Shared::redis() else { return };
    let origin = Origin::bind().await.serve(answers);
    let one = starts(origin.addr(), &shared, "", TIMEOUT);
    let other = starts(origin.addr(), &shared, "", TIMEOUT);
    works(&one).await;
    works(&other).await;
    for proxy in [&one, &other] {
        get(proxy, "/a", "").await;
    }
    shared.dies();
    eventually("it is seen", async || of(&one, "works").await == 0.0).await;
    let (done, said) = purge(&one, &["--tag", "red"], TOKEN);
    assert!(done, "{said}");
    assert_eq!(did(&get(&other, "/a", "").await), "HIT", "it cannot know");
    shared.comes_back();
    eventually("it is gone at the other", async || !is_there(&other, "/a").await).await;
}

/// Two find out at the same time that a target has variants, each in its own way: they come to
/// agree.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn variants_that_were_told_apart_twice_are_shared_all_the_same() {
    let Some(shared) = Shared::redis() else { return };
    let origin = Origin::bind().await.serve(answers);
    let one = starts(origin.addr(), &shared, "", TIMEOUT);
    // What it asks a service for that has just begun to answer again may take its time.
    let other = starts(origin.addr(), &shared, "", PATIENT);
    works(&one).await;
    works(&other).await;
    let language = |language: &str| format!("Accept-Language: {language}");
    get(&one, "/vary", &language("de")).await;
    has_written(&one, 2.0).await;
    shared.hangs();
    eventually("it is seen", async || of(&other, "works").await == 0.0).await;
    assert_eq!(did(&get(&other, "/vary", &language("fr")).await), "MISS");
    shared.goes_on();
    works(&other).await;
    let got = get(&other, "/vary", &language("de")).await;
    assert_eq!((did(&got), got.text().as_str()), ("HIT", "de"));
    assert_eq!(origin.seen().len(), 2);
}

/// What a request has made worthless while the service hangs is forgotten by it when it answers
/// again, by the next process if this one has ended.
#[req_test("REQ-CACHE-004", "REQ-CACHE-007")]
#[tokio::test]
async fn what_is_made_worthless_while_a_redis_hangs_is_gone_after_a_restart() {
    let Some(shared) = Shared::redis() else { return };
    let origin = Origin::bind().await.serve(answers);
    let folder = scratch("cache");
    let disk = format!("directory = \"{}\"", folder.display());
    let mut one = starts(origin.addr(), &shared, &disk, TIMEOUT);
    works(&one).await;
    get(&one, "/a", "").await;
    has_written(&one, 1.0).await;
    shared.hangs();
    eventually("it is seen", async || of(&one, "works").await == 0.0).await;
    let posted = ask(&mut one.connect().await, "POST", "/a", "Content-Length: 0").await;
    assert_eq!(posted.status(), 200);
    one.term();
    let begin = Instant::now();
    assert!(one.exited().await.success());
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    shared.goes_on();
    // Whoever has found it there has it from then on.
    let other = starts(origin.addr(), &shared, "", PATIENT);
    works(&other).await;
    assert!(is_there(&other, "/a").await, "nobody has removed it");
    let again = starts(origin.addr(), &shared, &disk, TIMEOUT);
    works(&again).await;
    let is_gone = async || {
        let new = starts(origin.addr(), &shared, "", PATIENT);
        works(&new).await;
        !is_there(&new, "/a").await
    };
    eventually("it is gone", is_gone).await;
    drop(again);
    let _ = std::fs::remove_dir_all(folder);
}
