//! What a route changes in a request and in its answer: target, host, fields.

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, OutBody, Proxy, Refusing, Served, Version, collect, over_versions,
};

fn config(upstream: std::net::SocketAddr, routes: &[&str]) -> String {
    let mut config = format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[upstream]]\nname = \"u\"\nservers = [\"{upstream}\"]\nhost = \"server\"\n"
    );
    for route in routes {
        config += &format!("[[route]]\n{route}\nupstream = \"u\"\n");
    }
    config
}

over_versions!(targets_are_rewritten, fields_are_set_added_and_removed);

#[req_test("REQ-CTRL-006")]
async fn targets_are_rewritten(version: Version) {
    let origin = Served::ok().await;
    let proxy = Proxy::config(config(
        origin.addr(),
        &[
            "path_prefix = \"/api\"\nrewrite = { strip_prefix = \"/api\" }",
            "path_prefix = \"/old/v1\"\nrewrite = { strip_prefix = \"/old\", add_prefix = \"/new\" }",
            "path_prefix = \"/add\"\nrewrite = { add_prefix = \"/base/\" }",
            "path_pattern = \"/u/{id}/posts/{*rest}\"\nrewrite = { path = \"/posts/{rest}/by/{id}\" }",
            "path = \"/one\"\nrewrite = { path = \"/two\", host = \"two.test:81\" }",
            "path_prefix = \"/%7Euser\"\nrewrite = { strip_prefix = \"/~user\" }",
        ],
    ))
    .start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let rows = [
        ("/api", "/"),
        ("/api/", "/"),
        ("/api?a=/api", "/?a=/api"),
        ("/api/v1/x%2Fy?b", "/v1/x%2Fy?b"),
        ("/api/api", "/api"),
        ("/api//evil.test/x", "/evil.test/x"),
        ("/old/v1/x", "/new/v1/x"),
        ("/add/x", "/base/add/x"),
        ("/u/7%20/posts/a/b?c", "/posts/a/b/by/7%20?c"),
        ("/one?x", "/two?x"),
        ("/~user/%41", "/%41"),
        ("/%7Euser", "/"),
    ];
    for (target, _) in rows {
        assert_eq!(client.get(target).await.status(), 200, "{target}");
    }
    assert_eq!(origin.targets(), rows.map(|(_, seen)| seen));
    let hosts: Vec<_> = origin
        .seen()
        .iter()
        .map(|seen| seen.message.head.get("host").unwrap().to_owned())
        .collect();
    let server = origin.addr().to_string();
    for ((target, _), host) in rows.iter().zip(&hosts) {
        let wanted = if target.starts_with("/one") { "two.test:81" } else { &server };
        assert_eq!(host, wanted, "{target}");
    }
    // What the client asked for is still known.
    let forwarded =
        |at: usize| origin.seen()[at].message.head.get("x-forwarded-host").map(str::to_owned);
    assert_eq!(forwarded(9), forwarded(0));
    proxy.log_line(&["target=/one?x "]).await;
}

/// From a rewritten path a step upwards would lead out of the part that the route is for.
#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn nobody_climbs_out_of_what_is_rewritten() {
    let origin = Served::ok().await;
    for policy in ["refuse", "pass"] {
        let config = config(
            origin.addr(),
            &["path_prefix = \"/app\"\nrewrite = { strip_prefix = \"/app\", add_prefix = \"/srv/app\" }", ""],
        )
        .replacen("[[upstream]]", &format!("ambiguous_paths = \"{policy}\"\n[[upstream]]"), 1);
        let proxy = Proxy::config(config).start();
        for target in [
            "/app/../app/../secret",
            "/app/%2e%2e/app/x",
            "/app/x/..%2f..%2f..%2fapp",
            "/app/x\\..\\..\\app",
            "/app/..;/app/x",
            "/app/a/../b",
        ] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
            proxy.open(request).await.expect_status(400).await;
        }
    }
    assert!(origin.seen().is_empty());
}

#[req_test("REQ-CTRL-006")]
async fn fields_are_set_added_and_removed(version: Version) {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: origin\r\nX-Keep: 1\r\n\
                 X-Keep: 2\r\nX-Over: old\r\n\r\nok";
    let origin = Served::always(reply).await;
    let proxy = Proxy::config(config(
        origin.addr(),
        &["request_headers = { set = { X-Set = \"new\", X-Forwarded-For = \"hidden\" }, \
             add = { X-Add = [\"b\", \"c\"] }, remove = [\"Cookie\", \"X-Gone\"] }\n\
             response_headers = { set = { X-Over = \"new\", X-Frame-Options = \"DENY\" }, \
             add = { X-Keep = \"3\" }, remove = [\"Server\"] }"],
    ))
    .start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let request = client
        .request(Method::GET, "/")
        .header("cookie", "a=b")
        .header("x-gone", "1")
        .header("x-gone", "2")
        .header("x-set", "old")
        .header("x-add", "a")
        .header("x-other", "stays");
    let answer = client.send(request.body(OutBody::Empty).unwrap()).await.unwrap();
    let head = origin.only().head;
    assert!(!head.has("cookie") && !head.has("x-gone"), "{head:?}");
    assert_eq!(head.all("x-set"), ["new"]);
    assert_eq!(head.all("x-add"), ["a", "b", "c"]);
    assert_eq!(head.all("x-forwarded-for"), ["hidden"]);
    assert_eq!(head.get("x-other"), Some("stays"));

    let all = |name: &str| -> Vec<String> {
        let values = answer.headers().get_all(name).iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(all("server"), [""; 0]);
    assert_eq!(all("x-over"), ["new"]);
    assert_eq!(all("x-keep"), ["1", "2", "3"]);
    assert_eq!(all("x-frame-options"), ["DENY"]);
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
}

/// Answers that the proxy gives for want of a better one have them, too.
#[tokio::test]
async fn answers_of_a_route_that_fails_are_changed_as_well() {
    let refusing = Refusing::bind();
    let route = "response_headers = { set = { X-Frame-Options = \"DENY\" } }";
    let proxy = Proxy::config(config(refusing.addr(), &[route])).start();
    let answer = proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.expect_status(502).await;
    assert_eq!(answer.head.get("x-frame-options"), Some("DENY"));
}
