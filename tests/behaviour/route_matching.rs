//! What routes ask of a request beside host and prefix, and paths that servers may read in
//! different ways.

use mantra_macros::req_test;
use underpass_tests::{HttpClient, OutBody, Proxy, Reply, Served, Version, collect, over_versions};

/// A proxy with a route per name, each the inside of a section, to an origin that answers with
/// the name.
async fn routed(listener: &str, routes: &[(&str, &str)]) -> (Proxy, Vec<Served>) {
    let mut config = format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{listener}\n"
    );
    let mut servers = Vec::new();
    for (name, route) in routes {
        let server = Served::always(Reply::ok(name)).await;
        config += &format!(
            "[[upstream]]\nname = \"{name}\"\nservers = [\"{}\"]\n\
             [[route]]\nname = \"{name}\"\nupstream = \"{name}\"\n{route}\n",
            server.addr()
        );
        servers.push(server);
    }
    (Proxy::config(config).start(), servers)
}

over_versions!(all_parts_of_a_head_choose);

#[req_test("REQ-CTRL-006")]
async fn all_parts_of_a_head_choose(version: Version) {
    let (proxy, _servers) = routed(
        "",
        &[
            ("all", ""),
            ("exact", "path = \"/users/me\""),
            ("user", "path_pattern = \"/users/{id}\"\nmethod = [\"GET\", \"HEAD\"]"),
            ("posts", "path_pattern = \"/users/{id}/posts/{*rest}\""),
            ("beta", "headers = { X-Beta = true }"),
            ("two", "query = { version = \"2\" }"),
            ("first", "priority = 1\nheaders = { X-First = { regex = \"y(es)?\" } }"),
        ],
    )
    .await;
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    for (method, target, field, name) in [
        ("GET", "/", "x-none", "all"),
        ("GET", "/users/me", "x-none", "exact"),
        ("GET", "/users/7", "x-none", "user"),
        ("PUT", "/users/7", "x-none", "all"),
        ("GET", "/users/7/posts/1/2", "x-none", "posts"),
        ("GET", "/", "x-beta", "beta"),
        ("GET", "/users/7", "x-beta", "user"),
        ("GET", "/?a=b&version=2", "x-none", "two"),
        ("GET", "/users/me", "x-first", "first"),
    ] {
        let request = client.request(method.parse().unwrap(), target).header(field, "yes");
        let request = request.body(OutBody::Empty).unwrap();
        let answer = client.send(request).await.unwrap();
        let body = collect(answer.into_body()).await.unwrap().0;
        assert_eq!(String::from_utf8_lossy(&body), name, "{method} {target} {field}");
    }
}

const ADMIN: [(&str, &str); 2] = [("admin", "path_prefix = \"/admin\""), ("public", "")];

/// The rule for `/admin` holds, whichever spelling of it the server understands.
#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn a_path_with_two_routes_is_refused() {
    let (proxy, servers) = routed("", &ADMIN).await;
    for target in [
        "/public/../admin",
        "/public/%2e%2E/admin",
        "/admin/../public",
        "//admin/x",
        "/x%2F..%2Fadmin",
        "/admin%2Fx",
        "/x/..;/admin",
        "/x/..%5cadmin",
        "http://test/public/../admin",
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = proxy.open(request).await.expect_status(400).await;
        assert!(answer.text().contains("a path that servers read in different ways"), "{target}");
    }
    assert!(servers.iter().all(|server| server.seen().is_empty()));
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    assert_eq!(client.get("/public/../admin").await.status(), 400);

    // What is the same route for everybody passes, as it came.
    for (target, server) in [("/admin/a/../b//c", &servers[0]), ("/a%2Fb/./c", &servers[1])] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        proxy.open(request).await.expect_status(200).await;
        assert_eq!(server.targets(), [target]);
    }
}

#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn a_listener_may_normalise_paths_or_pass_them() {
    for (policy, target, name, seen) in [
        ("normalise", "/public/../admin?a=/../b", "admin", "/admin?a=/../b"),
        ("normalise", "//admin//./x/", "admin", "/admin/x/"),
        ("normalise", "/admin/../%70ublic", "public", "/public"),
        ("normalise", "/admin%2fx", "public", "/admin%2Fx"),
        ("pass", "/public/../admin", "public", "/public/../admin"),
        ("pass", "/admin/../public", "admin", "/admin/../public"),
        ("pass", "/%61dmin%2Fx/", "public", "/%61dmin%2Fx/"),
    ] {
        let (proxy, servers) = routed(&format!("ambiguous_paths = \"{policy}\""), &ADMIN).await;
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = proxy.open(request).await.expect_status(200).await;
        assert_eq!(answer.text(), name, "{policy} {target}");
        let server = &servers[usize::from(name == "public")];
        assert_eq!(server.targets(), [seen], "{policy}");
        // The log has what was asked.
        proxy.log_line(&[&format!("target={target} "), &format!("route={name}")]).await;
    }
}
