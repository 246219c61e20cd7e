//! What a route does beside passing a request on: redirects, answers of its own, and shares of
//! several upstreams.

use std::collections::HashMap;

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{
    Engine, HttpClient, Origin, OutBody, Proxy, Reply, Served, Version, collect, over_engines,
    over_versions, pattern,
};

const WEB: &str = "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
                   [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n";

fn upstream(name: &str, address: std::net::SocketAddr) -> String {
    format!("[[upstream]]\nname = \"{name}\"\nservers = [\"{address}\"]\n")
}

over_versions!(
    redirects_keep_what_they_are_told_to_keep,
    an_answer_is_given_without_a_server,
    a_body_that_nobody_reads_does_not_hold_up_the_answer,
);

#[req_test("REQ-CTRL-006")]
async fn redirects_keep_what_they_are_told_to_keep(version: Version) {
    let proxy = Proxy::config(format!(
        "{WEB}\
         [[route]]\nredirect = {{ to = \"https://{{host}}{{path}}{{query}}\", status = 308 }}\n\
         [[route]]\npath = \"/old\"\nredirect = {{ to = \"/new{{query}}\", status = 301 }}\n\
         [[route]]\npath_pattern = \"/u/{{id}}/{{*rest}}\"\n\
         redirect = {{ to = \"https://u.test/{{rest}}?user={{id}}\" }}\n\
         [[route]]\nhost = \"*.same.test\"\nredirect = {{ to = \"{{path}}\", status = 307 }}\n\
         response_headers = {{ set = {{ Strict-Transport-Security = \"max-age=60\" }} }}\n"
    ))
    .start();
    for (host, path, status, place) in [
        ("a.test", "/x%2Fy/?a=b&c", 308, "https://a.test/x%2Fy/?a=b&c"),
        ("a.test:8080", "/", 308, "https://a.test/"),
        ("[::1]:80", "/", 308, "https://[::1]/"),
        ("a.test", "/old?x", 301, "/new?x"),
        ("a.test", "/u/7/b/c", 302, "https://u.test/b/c?user=7"),
        ("b.same.test", "/a", 307, "/a"),
        // Never another host.
        ("b.same.test", "//evil.test/a", 307, "/evil.test/a"),
    ] {
        let stream = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
        let mut client = HttpClient::over(stream, host, version).await;
        let answer = client.get(path).await;
        let (status_is, place_is) =
            (answer.status().as_u16(), answer.headers()["location"].clone());
        assert_eq!((status_is, place_is.to_str().unwrap()), (status, place), "{host}{path}");
        let strict = answer.headers().contains_key("strict-transport-security");
        assert_eq!(strict, host.ends_with("same.test"), "{host}{path}");
        assert_eq!(collect(answer.into_body()).await.unwrap().0, b"");
    }
    // HTTP/1.0 may name no host: then there is nothing to redirect to, unless it is named.
    proxy.open("GET /x HTTP/1.0\r\n\r\n").await.expect_status(400).await;
    proxy.open("GET /old HTTP/1.0\r\n\r\n").await.expect_status(301).await;
    let line = proxy.log_line(&["target=/old?x", "status=301"]).await;
    assert!(
        line.contains("route==/old upstream=- server=-") && line.contains("end=complete"),
        "{line}"
    );
}

#[req_test("REQ-CTRL-006")]
async fn an_answer_is_given_without_a_server(version: Version) {
    let proxy = Proxy::config(format!(
        "{WEB}\
         [[route]]\nrespond = {{ status = 404, body = \"nothing here\\n\" }}\n\
         [[route]]\npath = \"/robots.txt\"\nrespond = {{ status = 200, body = \"User-agent: *\\n\", \
         headers = {{ Cache-Control = \"max-age=60\", X-Two = [\"a\", \"b\"] }} }}\n\
         [[route]]\npath = \"/none\"\nrespond = {{ status = 204 }}\n"
    ))
    .start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let answer = client.get("/robots.txt").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-length"], "14");
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(answer.headers()["cache-control"], "max-age=60");
    assert_eq!(answer.headers().get_all("x-two").iter().count(), 2);
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"User-agent: *\n");

    let head = client.request(Method::HEAD, "/robots.txt").body(OutBody::Empty).unwrap();
    let answer = client.send(head).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-length"]),
        (200, &"14".parse().unwrap())
    );
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"");

    let answer = client.get("/none").await;
    assert_eq!(answer.status(), 204);
    assert!(!answer.headers().contains_key("content-length"));
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"");

    let answer = client.get("/else").await;
    assert_eq!(answer.status(), 404);
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"nothing here\n");
    proxy.log_line(&["target=/else", "status=404 route=/ upstream=- ", "end=complete"]).await;
    // Nothing went wrong.
    assert_eq!(proxy.metrics().await.sum("underpass_errors_total", &[]), 0.0);
}

/// The client is told that the connection ends where its body is left unread, and is not
/// asked for a body that is held back.
async fn a_body_that_nobody_reads_does_not_hold_up_the_answer(version: Version) {
    let proxy =
        Proxy::config(format!("{WEB}[[route]]\nrespond = {{ status = 200, body = \"ok\" }}\n"))
            .start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let (sender, body) = OutBody::pieces();
    let request = client.request(Method::POST, "/").body(body).unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    if version == Version::H1 {
        assert_eq!(answer.headers()["connection"], "close");
    }
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
    drop(sender);

    let request =
        "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    proxy.open(request).await.expect_status(200).await;
}

/// Shares follow the weights within five standard deviations, which a run misses once in
/// some two million.
#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn upstreams_get_their_shares() {
    let (stable, canary) =
        (Served::always(Reply::ok("s")).await, Served::always(Reply::ok("c")).await);
    let proxy = Proxy::config(format!(
        "{WEB}{}{}{}[[route]]\nupstreams = [{{ name = \"stable\", weight = 90 }}, \
         {{ name = \"canary\", weight = 10 }}, {{ name = \"off\", weight = 0 }}]\n",
        upstream("stable", stable.addr()),
        upstream("canary", canary.addr()),
        upstream("off", "127.0.0.1:1".parse().unwrap()),
    ))
    .args(["--access-log", "off"])
    .start();
    let mut client = proxy.connect().await;
    let requests = 2_000_usize;
    for _ in 0..requests {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        client.expect_status(200).await;
    }
    let canary = canary.seen().len();
    assert_eq!(stable.seen().len() + canary, requests);
    let (mean, deviation) = (200.0, (2_000.0_f64 * 0.1 * 0.9).sqrt());
    assert!((canary as f64 - mean).abs() < 5.0 * deviation, "{canary} of {requests}");
}

/// Who is known stays, whichever connection and worker it comes by, and over a restart.
#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn who_is_known_stays_with_an_upstream() {
    let (one, two) =
        (Served::always(Reply::ok("one")).await, Served::always(Reply::ok("two")).await);
    let config = |by: &str| {
        format!(
            "workers = 2\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{}{}\
             [[route]]\nupstreams = [{{ name = \"one\" }}, {{ name = \"two\" }}]\nsplit_by = \"{by}\"\n",
            upstream("one", one.addr()),
            upstream("two", two.addr()),
        )
    };
    for (by, field) in [("cookie:session", "Cookie: a=b; session="), ("header:x-user", "X-User: ")]
    {
        let mut went: HashMap<usize, String> = HashMap::new();
        for _ in 0..2 {
            let proxy = Proxy::config(config(by)).start();
            for _ in 0..2 {
                for user in 0..40 {
                    let request =
                        format!("GET / HTTP/1.1\r\nHost: test\r\n{field}user-{user}\r\n\r\n");
                    let name = proxy.open(request).await.expect_status(200).await.text();
                    assert_eq!(went.entry(user).or_insert(name.clone()), &name, "{by} {user}");
                }
            }
        }
        // Forty by two: that all of them go one way is one chance in 500 billion.
        let both = ["one", "two"].map(|name| went.values().any(|went| went == name));
        assert_eq!(both, [true, true], "{went:?}");
    }
}

over_engines!(a_tunnel_goes_to_one_of_several_and_is_rewritten);

#[req_test("REQ-CTRL-006")]
async fn a_tunnel_goes_to_one_of_several_and_is_rewritten(engine: Engine) {
    let origin = Origin::bind().await;
    let proxy = Proxy::config(format!(
        "{WEB}{}[[route]]\npath_prefix = \"/ws\"\nupstreams = [{{ name = \"u\" }}]\n\
         rewrite = {{ strip_prefix = \"/ws\", host = \"inner.test\" }}\n\
         request_headers = {{ set = {{ X-Set = \"1\" }}, remove = [\"Origin\"] }}\n\
         response_headers = {{ set = {{ X-Back = \"2\" }} }}\n",
        upstream("u", origin.addr())
    ))
    .splice(engine)
    .start();
    let mut client = proxy
        .open(
            "GET /ws/chat?a=b HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\
             Origin: http://test\r\n\r\n",
        )
        .await;
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    assert_eq!(head.start, "GET /chat?a=b HTTP/1.1");
    assert_eq!((head.get("host"), head.get("x-set")), (Some("inner.test"), Some("1")));
    assert!(!head.has("origin") && head.get("upgrade") == Some("echo"), "{head:?}");
    assert_eq!(head.get("x-forwarded-host"), Some("test"));
    server
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        .await;
    let head = client.read_head().await;
    assert_eq!((head.status(), head.get("x-back")), (101, Some("2")));
    client.send(pattern::bytes(1_000)).await;
    server.expect(&pattern::bytes(1_000)).await;
    proxy.until_tunnels(1).await;
}
