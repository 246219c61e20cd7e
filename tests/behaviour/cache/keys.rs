//! What is found by what: nobody gets an answer that is for somebody else.

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy};

use super::{
    answer, ask, did, get, proxy,
    purge::{TOKEN, purge},
};

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn variants_are_kept_apart() {
    let origin = Origin::bind().await.serve(|seen| {
        let language = seen.message.head.get("accept-language").unwrap_or("none").to_owned();
        answer("Cache-Control: max-age=60|Vary: Accept-Language", &language)
    });
    let proxy = proxy(origin.addr(), "").start();
    let mut wire = proxy.connect().await;
    for outcome in ["MISS", "HIT"] {
        for language in ["de", "en", "none"] {
            let fields = match language {
                "none" => String::new(),
                language => format!("Accept-Language: {language}"),
            };
            let got = ask(&mut wire, "GET", "/x", &fields).await;
            assert_eq!((did(&got), got.text().as_str()), (outcome, language));
        }
    }
    // A change of the target makes all of them worthless, also those that come back later.
    ask(&mut wire, "POST", "/x", "Content-Length: 0").await;
    for language in ["de", "en"] {
        let got = ask(&mut wire, "GET", "/x", &format!("Accept-Language: {language}")).await;
        assert_eq!((did(&got), got.text().as_str()), ("MISS", language));
    }
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn hosts_queries_and_methods_are_kept_apart() {
    let origin = Origin::bind().await.serve(|seen| {
        let head = &seen.message.head;
        answer(
            "Cache-Control: max-age=60",
            &format!("{} {}", head.get("host").unwrap(), head.target()),
        )
    });
    let proxy = proxy(origin.addr(), "ignored_query = [\"utm_*\"]\nsorted_query = true").start();
    let mut wire = proxy.connect().await;
    for (host, target, outcome, body) in [
        ("a", "/x?b=1&a=2", "MISS", "a /x?b=1&a=2"),
        ("a", "/x?a=2&utm_source=z&b=1", "HIT", "a /x?b=1&a=2"),
        ("A:80", "/x?a=2&b=1", "HIT", "a /x?b=1&a=2"),
        ("b", "/x?a=2&b=1", "MISS", "b /x?a=2&b=1"),
        ("a:81", "/x?a=2&b=1", "MISS", "a:81 /x?a=2&b=1"),
        ("a", "/x?a=2", "MISS", "a /x?a=2"),
        ("a", "/X?a=2", "MISS", "a /X?a=2"),
        ("a", "/x%3Fa=2", "MISS", "a /x%3Fa=2"),
    ] {
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let got = wire.read_response().await;
        assert_eq!((did(&got), got.text().as_str()), (outcome, body), "{host} {target}");
    }
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn what_is_for_one_user_is_not_given_to_another() {
    let origin = Origin::bind().await.serve(|seen| {
        let head = &seen.message.head;
        let who = head.get("authorization").or(head.get("cookie")).unwrap_or("nobody").to_owned();
        let fields = match head.target() {
            "/cookie" => "Cache-Control: max-age=60|Set-Cookie: id=1",
            "/public" => "Cache-Control: max-age=60, public",
            "/private" => "Cache-Control: max-age=60, private",
            _ => "Cache-Control: max-age=60",
        };
        answer(fields, &who)
    });
    let proxy = proxy(origin.addr(), "bypass_cookies = [\"session\"]").start();
    let mut wire = proxy.connect().await;
    for (target, fields, outcome, body) in [
        ("/", "Authorization: Bearer one", "UNCACHEABLE", "Bearer one"),
        ("/", "Authorization: Bearer two", "UNCACHEABLE", "Bearer two"),
        ("/", "", "MISS", "nobody"),
        ("/", "", "HIT", "nobody"),
        ("/public", "Authorization: Bearer one", "MISS", "Bearer one"),
        ("/public", "", "HIT", "Bearer one"),
        ("/private", "", "UNCACHEABLE", "nobody"),
        ("/private", "", "UNCACHEABLE", "nobody"),
        ("/cookie", "", "UNCACHEABLE", "nobody"),
        ("/cookie", "", "UNCACHEABLE", "nobody"),
        // Whoever has this cookie is not served from what is kept, nor kept.
        ("/", "Cookie: a=b; session=1", "BYPASS", "a=b; session=1"),
        ("/new", "Cookie: session=2", "BYPASS", "session=2"),
        ("/new", "", "MISS", "nobody"),
    ] {
        let got = ask(&mut wire, "GET", target, fields).await;
        assert_eq!((did(&got), got.text().as_str()), (outcome, body), "{target} {fields}");
    }
}

#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn cookies_of_answers_are_for_who_asked() {
    let origin = Origin::bind()
        .await
        .serve(|_| answer("Cache-Control: max-age=60|Set-Cookie: id=1|Set-Cookie: b=2", "body"));
    let proxy = proxy(origin.addr(), "set_cookie = \"strip\"").start();
    let first = get(&proxy, "/x", "").await;
    assert_eq!((did(&first), first.head.all("set-cookie").len()), ("MISS", 2));
    let second = get(&proxy, "/x", "").await;
    assert_eq!((did(&second), second.head.all("set-cookie").len()), ("HIT", 0));
}

/// Inputs that are in no key and that servers may answer by.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn nothing_that_is_in_no_key_changes_what_others_get() {
    let origin = Origin::bind().await.serve(|seen| {
        let head = &seen.message.head;
        let fields = ["x-forwarded-host", "x-host", "x-original-url", "x-http-method-override"];
        let echo: Vec<_> = fields.iter().filter_map(|name| head.get(name)).collect();
        answer("Cache-Control: max-age=60", &echo.join(","))
    });
    let proxy = proxy(origin.addr(), "").start();
    for (at, field) in ["X-Forwarded-Host", "X-Host", "X-Original-URL", "X-HTTP-Method-Override"]
        .iter()
        .enumerate()
    {
        let target = format!("/{at}");
        let evil = get(&proxy, &target, &format!("{field}: evil")).await;
        let victim = get(&proxy, &target, "").await;
        assert!(!victim.text().contains("evil"), "{field}: {}", victim.text());
        if *field == "X-Forwarded-Host" {
            assert_eq!(evil.text(), "h", "we say it, not the client");
        } else {
            assert_eq!(did(&evil), "BYPASS", "{field}");
        }
    }
}

/// A body to a GET, which is in no key either.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn a_request_with_a_body_passes_by() {
    let origin = Origin::bind()
        .await
        .serve(|seen| answer("Cache-Control: max-age=60", &seen.message.text()));
    let proxy = proxy(origin.addr(), "").start();
    let mut wire = proxy.connect().await;
    wire.send("GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nevil").await;
    let evil = wire.read_response().await;
    assert_eq!((did(&evil), evil.text().as_str()), ("BYPASS", "evil"));
    let victim = get(&proxy, "/x", "").await;
    assert_eq!((did(&victim), victim.text().as_str()), ("MISS", ""));
}

/// Where nobody waits for anybody, since answers for this target have not been for others.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn answers_to_head_and_to_ranges_are_none_for_a_plain_get() {
    let origin = Origin::bind().await.serve(|seen| {
        let head = &seen.message.head;
        let fields = match head.get("x-first") {
            Some(_) => "Cache-Control: private",
            None => "Cache-Control: max-age=60",
        };
        let whole = answer(fields, "body");
        if head.method() == "HEAD" {
            return whole.strip_suffix("body").expect("its body").to_owned();
        }
        match head.get("range") {
            None => whole,
            Some("bytes=99-") => answer(fields, "").replace("200 OK", "416 Range Not Satisfiable"),
            Some(_) => answer(fields, "two parts").replace("200 OK", "206 Partial Content"),
        }
    });
    let proxy = proxy(origin.addr(), "").start();
    let mut wire = proxy.connect().await;
    for (at, (method, fields, status)) in [
        ("HEAD", "", 200),
        ("HEAD", "Range: bytes=0-0", 200),
        ("GET", "Range: bytes=0-0,2-2", 206),
        ("GET", "Range: bytes=99-", 416),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/{at}");
        assert_eq!(did(&ask(&mut wire, "GET", &target, "X-First: 1").await), "UNCACHEABLE");
        let got = ask(&mut wire, method, &target, fields).await;
        assert_eq!((got.status(), did(&got)), (status, "BYPASS"), "{method} {fields}");
        for outcome in ["MISS", "HIT"] {
            let got = ask(&mut wire, "GET", &target, "").await;
            let is = (got.status(), did(&got), got.text());
            assert_eq!(is, (200, outcome, "body".to_owned()), "{method} {fields}");
        }
    }
}

/// What a proxy in front says of the host is in the key, also of what is to be forgotten.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn a_change_forgets_what_is_kept_behind_another_proxy() {
    let origin = Origin::bind().await.serve(|_| answer("Cache-Control: max-age=60", "body"));
    for forwarded in ["replace", "append", "off"] {
        let proxy = Proxy::config(format!(
            "workers = 1\n[log]\naccess = \"off\"\n[cache]\n[[listener]]\nname = \"web\"\n\
             address = \"127.0.0.1:0\"\nforwarded = \"{forwarded}\"\n[[route]]\n\
             upstream = \"o\"\ncache = true\n[[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
            origin.addr()
        ))
        .start();
        let mut wire = proxy.connect().await;
        let fields = "X-Forwarded-Host: a.test|X-Forwarded-Proto: https|X-Forwarded-Port: 443";
        for method in ["POST", "PUT", "DELETE"] {
            for outcome in ["MISS", "HIT"] {
                let got = ask(&mut wire, "GET", "/x", fields).await;
                assert_eq!(did(&got), outcome, "{forwarded} {method}");
            }
            // Also by one that has come another way.
            let own = if method == "POST" { "" } else { fields };
            ask(&mut wire, method, "/x", &format!("{own}|Content-Length: 0")).await;
        }
        let other = fields.replace("443", "444");
        ask(&mut wire, "GET", "/x", fields).await;
        let got = ask(&mut wire, "GET", "/x", &other).await;
        assert_eq!(did(&got), if forwarded == "replace" { "HIT" } else { "MISS" });
    }
}

/// Fields and cookies in the key tell apart what one change makes worthless (RFC 9111 section 4.4).
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn a_change_forgets_what_is_kept_for_every_field_and_cookie_of_the_key() {
    let origin = Origin::bind().await.serve(|seen| {
        let head = &seen.message.head;
        let vary = if head.target() == "/vary" { "|Vary: Accept" } else { "" };
        let echo = ["x-device", "cookie", "accept"].map(|name| head.get(name).unwrap_or("-"));
        answer(&format!("Cache-Control: max-age=600{vary}"), &echo.join(" "))
    });
    let proxy =
        proxy(origin.addr(), "key_headers = [\"X-Device\"]\nkey_cookies = [\"lang\"]").start();
    let mut wire = proxy.connect().await;
    let all = [
        ("", "- - -"),
        ("X-Device: a", "a - -"),
        ("X-Device: b", "b - -"),
        ("Cookie: lang=de", "- lang=de -"),
        ("X-Device: a|Cookie: lang=de", "a lang=de -"),
    ];
    for target in ["/x", "/vary"] {
        for changes in ["", "X-Device: a", "Cookie: lang=en"] {
            for outcome in ["MISS", "HIT"] {
                for (fields, body) in all {
                    let got = ask(&mut wire, "GET", target, fields).await;
                    assert_eq!((did(&got), got.text().as_str()), (outcome, body), "{fields}");
                }
            }
            ask(&mut wire, "POST", target, &format!("{changes}|Content-Length: 0")).await;
        }
    }
}

/// Nor is it joined what was asked for before the change; and what is fetched at once for several
/// of them is kept for all.
#[req_test("REQ-CACHE-004", "REQ-CACHE-005")]
#[tokio::test]
async fn what_is_under_way_for_another_field_of_the_key_is_forgotten_too() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "key_headers = [\"X-Device\"]").start();
    let asks = |device: &str| format!("GET /x HTTP/1.1\r\nHost: h\r\nX-Device: {device}\r\n\r\n");
    let of = |body: &str| answer("Cache-Control: max-age=600|Connection: close", body);
    let mut before = proxy.open(asks("a")).await;
    let mut old = origin.accept().await;
    old.read_request().await;
    let mut changes = proxy.open("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server.send(of("done")).await;
    assert_eq!(changes.read_response().await.text(), "done");
    let mut clients = Vec::new();
    for device in ["a", "b"] {
        let client = proxy.open(asks(device)).await;
        let mut server = origin.accept().await;
        server.read_request().await;
        clients.push((device, client, server));
    }
    old.send(of("old")).await;
    assert_eq!(before.read_response().await.text(), "old");
    for (device, client, server) in &mut clients {
        server.send(of(device)).await;
        assert_eq!(client.read_response().await.text(), *device);
    }
    for device in ["a", "b"] {
        let got = get(&proxy, "/x", &format!("X-Device: {device}")).await;
        assert_eq!((did(&got), got.text().as_str()), ("HIT", device));
    }
}

/// A canary and what is stable answer the same target, and neither gives the other's answer.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn upstreams_that_a_route_chooses_between_are_kept_apart() {
    let (stable, canary) = (Origin::bind().await, Origin::bind().await);
    let text = format!(
        "workers = 1\n[cache]\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\ncache = true\nupstreams = [{{ name = \"stable\" }}, {{ name = \"canary\" }}]\n\
         split_by = \"header:x-who\"\n\
         [[upstream]]\nname = \"stable\"\nservers = [\"{}\"]\n\
         [[upstream]]\nname = \"canary\"\nservers = [\"{}\"]\n",
        stable.addr(),
        canary.addr()
    );
    let stable = stable.serve(|_| answer("Cache-Control: max-age=60", "stable"));
    let canary = canary.serve(|_| answer("Cache-Control: max-age=60", "canary"));
    let proxy = Proxy::config(text).start();
    let mut wire = proxy.connect().await;
    // Whom each of them is sent to, by a target of its own.
    let mut by = std::collections::BTreeMap::new();
    for who in 0..100 {
        let got = ask(&mut wire, "GET", &format!("/{who}"), &format!("X-Who: {who}")).await;
        by.entry(got.text()).or_insert(who);
    }
    assert_eq!(by.keys().collect::<Vec<_>>(), ["canary", "stable"]);
    for outcome in ["MISS", "HIT"] {
        for (upstream, who) in &by {
            let got = ask(&mut wire, "GET", "/x", &format!("X-Who: {who}")).await;
            assert_eq!((did(&got), got.text().as_str()), (outcome, upstream.as_str()));
        }
    }
    // What one of them has changed is forgotten of both.
    let (_, who) = by.first_key_value().unwrap();
    ask(&mut wire, "POST", "/x", &format!("X-Who: {who}|Content-Length: 0")).await;
    for who in by.values() {
        assert_eq!(did(&ask(&mut wire, "GET", "/x", &format!("X-Who: {who}")).await), "MISS");
    }
    assert_eq!(stable.seen().len() + canary.seen().len(), 100 + 2 + 1 + 2);
}

/// An upstream that gets nothing at this time may be back after the next reload: what has been
/// changed meanwhile is forgotten of it as well.
#[req_test("REQ-CACHE-004", "REQ-CACHE-006")]
#[tokio::test]
async fn what_is_changed_is_forgotten_of_upstreams_that_rest() {
    let (stable, canary) = (Origin::bind().await, Origin::bind().await);
    let (at_stable, at_canary) = (stable.addr(), canary.addr());
    let config = |to: &str| {
        format!(
            "workers = 1\n[cache]\n[admin]\naddress = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"r\"\ncache = true\n{to}\n\
             [[upstream]]\nname = \"stable\"\nservers = [\"{at_stable}\"]\n\
             [[upstream]]\nname = \"canary\"\nservers = [\"{at_canary}\"]\n"
        )
    };
    let _stable = stable.serve(|_| answer("Cache-Control: max-age=600", "stable"));
    let _canary = canary.serve(|_| answer("Cache-Control: max-age=600", "canary"));
    let works = config("upstreams = [{ name = \"stable\", weight = 0 }, { name = \"canary\" }]");
    let mut proxy = Proxy::config(works.as_str()).env("UNDERPASS_ADMIN_TOKEN", TOKEN).start();
    for rests in [
        "upstreams = [{ name = \"stable\" }, { name = \"canary\", weight = 0 }]",
        "upstreams = [{ name = \"stable\" }]",
        "upstream = \"stable\"",
    ] {
        for outcome in ["MISS", "HIT"] {
            for target in ["/posted", "/purged"] {
                let got = get(&proxy, target, "").await;
                assert_eq!((did(&got), got.text().as_str()), (outcome, "canary"), "{rests}");
            }
            assert_eq!(get(&proxy, "/kept", "").await.text(), "canary");
        }
        proxy.reload(&config(rests)).await;
        let posted = ask(&mut proxy.connect().await, "POST", "/posted", "Content-Length: 0").await;
        assert_eq!(posted.text(), "stable", "{rests}");
        let (done, said) = purge(&proxy, &["--url", "http://h/purged"], TOKEN);
        assert!(done, "{said}");
        proxy.reload(&works).await;
        for target in ["/posted", "/purged"] {
            assert_eq!(did(&get(&proxy, target, "").await), "MISS", "{target} after {rests}");
        }
        let got = get(&proxy, "/kept", "").await;
        assert_eq!((did(&got), got.text().as_str()), ("HIT", "canary"), "{rests}");
        let (done, said) = purge(&proxy, &["--all"], TOKEN);
        assert!(done, "{said}");
    }
}
