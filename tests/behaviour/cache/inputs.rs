//! What clients send beside what a key has: it does not choose what others get.

use mantra_macros::req_test;
use underpass_tests::Origin;

use super::{answer, ask, did, get, proxy};

/// Where nobody waits for anybody the request goes on as it came, but for ranges that we read
/// otherwise than its server may.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn a_range_that_cannot_be_read_is_not_answered_for_others() {
    let origin = Origin::bind().await.serve(|seen| {
        let head = &seen.message.head;
        let fields = match head.get("x-first") {
            Some(_) => "Cache-Control: private",
            None => "Cache-Control: max-age=60",
        };
        match head.get("range") {
            Some(_) => answer(fields, "").replace("200 OK", "416 Range Not Satisfiable"),
            None => answer(fields, if head.has("if-range") { "if-range" } else { "body" }),
        }
    });
    let proxy = proxy(origin.addr(), "").start();
    let mut wire = proxy.connect().await;
    let many = format!("Range: bytes={}0-0", "0-0,".repeat(16));
    for (at, fields) in [
        "Range: bytes=5-2|If-Range: \"a\"",
        "Range: bytes=x",
        "Range: lines=0-1",
        "Range: bytes=0-1|Range: bytes=2-3",
        &many,
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/{at}");
        let first = ask(&mut wire, "GET", &target, "X-First: 1").await;
        assert_eq!(did(&first), "UNCACHEABLE");
        for (fields, outcome) in [(fields, "MISS"), ("", "HIT")] {
            let got = ask(&mut wire, "GET", &target, fields).await;
            let is = (got.status(), did(&got), got.text());
            assert_eq!(is, (200, outcome, "body".to_owned()), "{target} {fields}");
        }
    }
}

/// Parameters, cookies and fields that servers may read as another: as the one that is in the key.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_a_server_could_read_as_an_input_of_the_key_chooses_nothing_for_others() {
    let origin = Origin::bind().await.serve(|seen| {
        let head = &seen.message.head;
        let fields = ["cookie", "x_original_url", "x_forwarded_host", "x_device", "x_preview"];
        let mut echo = vec![head.target()];
        echo.extend(fields.iter().filter_map(|name| head.get(name)));
        answer("Cache-Control: max-age=60", &echo.join(" "))
    });
    let rules = "only_query = [\"id\"]\nkey_cookies = [\"lang\"]\nkey_headers = [\"X-Device\"]\n\
                 bypass_headers = [\"X-Preview\"]\nbypass_cookies = [\"session\"]";
    let proxy = proxy(origin.addr(), rules).start();
    for (at, (query, fields, victim, outcome)) in [
        ("i%64=evil", "", ("", ""), "MISS"),
        ("id=1&i%64=evil", "", ("id=1", ""), "MISS"),
        ("id=1&ID=evil", "", ("id=1", ""), "MISS"),
        ("", "Cookie: lang=de; lang=evil", ("", "Cookie: lang=de"), "MISS"),
        ("", "Cookie: lang =evil", ("", ""), "MISS"),
        ("", "Cookie: session =evil", ("", ""), "BYPASS"),
        ("", "X_Original_URL: evil", ("", ""), "BYPASS"),
        ("", "X_Forwarded_Host: evil", ("", ""), "BYPASS"),
        ("", "X_Device: evil", ("", ""), "BYPASS"),
        ("", "X_Preview: evil", ("", ""), "BYPASS"),
    ]
    .into_iter()
    .enumerate()
    {
        let evil = get(&proxy, &format!("/{at}?{query}"), fields).await;
        assert_eq!(did(&evil), outcome, "{query} {fields}");
        let (query, other) = victim;
        let got = get(&proxy, &format!("/{at}?{query}"), other).await;
        assert!(!got.text().contains("evil"), "{query} {fields}: {}", got.text());
    }
}
