//! Listeners' and routes' steps in their order, what they add to both heads, and that answers
//! go back through them whoever made them.

use mantra_macros::req_test;
use underpass_tests::{HttpClient, Proxy, Refusing, Served, Version, collect};

use super::{config, with};

#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn every_request_gets_a_name_of_its_own() {
    let served = Served::ok().await;
    let proxy = with(&served, &[("id", "request_id = {}")]).start();
    let mut names = Vec::new();
    for version in [Version::H1, Version::H2] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        for _ in 0..2 {
            let answer = client.get("/").await;
            names.push(answer.headers()["x-request-id"].to_str().unwrap().to_owned());
            collect(answer.into_body()).await.unwrap();
        }
    }
    let seen = served.seen();
    let told: Vec<_> =
        seen.iter().map(|seen| seen.message.head.get("x-request-id").unwrap()).collect();
    assert_eq!(told, names, "server and client are told the same");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 4);
    assert!(names.iter().all(|name| name.len() == 32), "{names:?}");
    proxy.log_line(&[&format!("request_id={}", names[0])]).await;
}

#[tokio::test]
async fn names_that_clients_give_are_kept_where_they_are_trusted() {
    let served = Served::ok().await;
    let trusting = with(&served, &[("id", "request_id = { trust = true }")]).start();
    let careful = with(&served, &[("id", "request_id = {}")]).start();
    for (proxy, given, kept) in [
        (&trusting, "abc-123", true),
        (&trusting, "a b", false),
        (&trusting, "\"><script>", false),
        (&careful, "abc-123", false),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: t\r\nX-Request-Id: {given}\r\n\r\n");
        let answer = proxy.open(request).await.read_response().await;
        assert_eq!(answer.head.get("x-request-id") == Some(given), kept, "{given}");
        let seen = served.seen();
        let seen = &seen.last().unwrap().message.head;
        assert_eq!(seen.all("x-request-id"), [answer.head.get("x-request-id").unwrap()]);
    }
}

#[tokio::test]
async fn security_headers_are_added_where_the_server_has_none() {
    let reply = "HTTP/1.1 200 OK\r\nX-Frame-Options: DENY\r\nContent-Length: 0\r\n\r\n";
    let served = Served::always(reply).await;
    let definition = "security_headers = { hsts = \"8760h\", hsts_subdomains = true, \
                      referrer_policy = \"\", content_security_policy = \"default-src 'self'\" }";
    let proxy = with(&served, &[("m", definition)]).start();
    let answer = proxy.open("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await.read_response().await;
    for (name, values) in [
        ("x-frame-options", &["DENY"][..]),
        ("x-content-type-options", &["nosniff"]),
        ("content-security-policy", &["default-src 'self'"]),
        ("strict-transport-security", &["max-age=31536000; includeSubDomains"]),
        ("referrer-policy", &[]),
    ] {
        assert_eq!(answer.head.all(name), values, "{name}");
    }
}

/// The listener's before the route's, and what turns a request away goes back through those
/// before it.
#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn an_answer_goes_back_through_the_steps_its_request_came_to() {
    let served = Served::ok().await;
    let refusing = Refusing::bind();
    let text = config(
        &served,
        &[
            ("id", "request_id = {}"),
            ("door", "access = { deny = [\"127.0.0.1\"] }"),
            ("late", "security_headers = {}"),
        ],
    );
    let text = text.replacen("[[upstream]]", "middleware = [\"cross\"]\n[[upstream]]", 1)
        + "[[middleware]]\nname = \"cross\"\ncors = { origins = [\"https://a.test\"] }\n"
        + "[[route]]\npath_prefix = \"/dead\"\nupstream = \"dead\"\nmiddleware = [\"late\"]\n"
        + &format!("[[upstream]]\nname = \"dead\"\nservers = [\"{}\"]\n", refusing.addr());
    let proxy = Proxy::config(text).start();
    for (target, status, id, late) in [("/", 403, true, false), ("/dead", 502, false, true)] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: t\r\nOrigin: https://a.test\r\n\r\n");
        let answer = proxy.open(request).await.read_response().await;
        assert_eq!(answer.status(), status, "{target}");
        assert_eq!(answer.head.get("access-control-allow-origin"), Some("https://a.test"));
        assert_eq!(answer.head.has("x-request-id"), id, "{target}");
        assert_eq!(answer.head.has("x-content-type-options"), late, "{target}");
    }
    assert_eq!(served.targets(), [""; 0]);
}

/// A listener's steps are for requests that no route takes, and for a forward proxy's.
#[tokio::test]
async fn a_listeners_steps_are_for_every_request() {
    let served = Served::ok().await;
    let text = config(&served, &[("id", "request_id = {}")])
        .replacen("middleware = [\"id\"]", "host = \"only.test\"", 1)
        .replacen("[[upstream]]", "middleware = [\"id\", \"few\"]\n[[upstream]]", 1)
        + "[[middleware]]\nname = \"few\"\nrate_limit = { requests = 2, per = \"1h\" }\n"
        + "[[listener]]\nname = \"out\"\naddress = \"127.0.0.1:0\"\nprotocol = \"forward\"\nmiddleware = [\"door\"]\n"
        + "[[middleware]]\nname = \"door\"\naccess = { deny = [\"127.0.0.0/8\"] }\n";
    let proxy = Proxy::config(text).start();
    let web = proxy.listener("web");
    for (host, status) in [("only.test", 200), ("other.test", 404), ("only.test", 429)] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = underpass_tests::Wire::open(web, request).await.read_response().await;
        assert_eq!(answer.status(), status);
        assert!(answer.head.has("x-request-id"));
    }
    let connect = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", served.addr());
    let mut client = underpass_tests::Wire::open(proxy.listener("out"), connect).await;
    assert_eq!(client.read_response().await.status(), 403);
}
