//! Whom and what the forward proxy serves: networks, ports, credentials.

use http::Request;
use underpass_tests::{HttpClient, Origin, OutBody, Proxy, Served, Version, Wire};

fn connect(authority: impl std::fmt::Display) -> String {
    format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")
}

fn get(authority: impl std::fmt::Display, fields: &str) -> String {
    format!("GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n")
}

async fn status(proxy: &Proxy, request: String) -> u16 {
    proxy.open(request).await.read_response().await.status()
}

/// Cloud metadata and the like: what a forward proxy is abused for first.
#[tokio::test]
async fn link_local_destinations_are_denied_by_default() {
    let proxy = Proxy::forward().limit("connect_timeout", "2s").start();
    let destinations = [
        "169.254.169.254:80",
        "[fe80::1]:80",
        "[::ffff:169.254.169.254]:80",
        "0.0.0.0:80",
        "[::]:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "[ff02::1]:80",
    ];
    let mut wrong = Vec::new();
    for authority in destinations {
        for request in [connect(authority), get(authority, "")] {
            let got = status(&proxy, request).await;
            if got != 403 {
                wrong.push(format!("{authority}: {got}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not denied: {wrong:?}");
}

/// Other spellings of a denied address are the same address, or none at all.
#[tokio::test]
async fn odd_spellings_of_a_denied_address_do_not_help() {
    let proxy = Proxy::forward().limit("connect_timeout", "2s").start();
    for host in ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "0"] {
        let got = status(&proxy, connect(format!("{host}:80"))).await;
        assert!([400, 403, 502].contains(&got), "{host}: {got}");
    }
}

#[tokio::test]
async fn a_denied_network_is_not_reached_by_address_or_name() {
    let origin = Served::ok().await;
    let port = origin.addr().port();
    let proxy = Proxy::forward().args(["--deny", "127.0.0.0/8", "--deny", "::1/128"]).start();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let authority = format!("{host}:{port}");
        assert_eq!(status(&proxy, connect(&authority)).await, 403, "CONNECT {host}");
        assert_eq!(status(&proxy, get(&authority, "")).await, 403, "GET {host}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn only_allowed_networks_are_reached() {
    let origin = Served::ok().await;
    let proxy = Proxy::forward().args(["--allow", "127.0.0.1/32"]).start();
    assert_eq!(status(&proxy, get(origin.addr(), "")).await, 200);
    assert_eq!(status(&proxy, connect("127.0.0.2:80")).await, 403);
    assert_eq!(status(&proxy, connect("192.0.2.1:80")).await, 403);
}

#[tokio::test]
async fn deny_wins_over_allow() {
    let origin = Served::ok().await;
    let proxy = Proxy::forward().args(["--allow", "127.0.0.0/8", "--deny", "127.0.0.1/32"]).start();
    assert_eq!(status(&proxy, get(origin.addr(), "")).await, 403);
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn ports_are_allowed_and_denied() {
    let (one, two) = (Served::ok().await, Served::ok().await);
    let port = one.addr().port().to_string();
    let proxy = Proxy::forward().args(["--allow-port", port.as_str()]).start();
    assert_eq!(status(&proxy, get(one.addr(), "")).await, 200);
    assert_eq!(status(&proxy, get(two.addr(), "")).await, 403);
    assert_eq!(status(&proxy, connect(two.addr())).await, 403);
    let proxy = Proxy::forward().args(["--deny-port", port.as_str()]).start();
    assert_eq!(status(&proxy, get(one.addr(), "")).await, 403);
    assert_eq!(status(&proxy, get(two.addr(), "")).await, 200);
}

/// The same policy from a file.
#[tokio::test]
async fn a_file_can_say_all_of_it() {
    let (one, two) = (Served::ok().await, Served::ok().await);
    let config = format!(
        "[[listener]]\nname = \"out\"\naddress = \"127.0.0.1:0\"\nprotocol = \"forward\"\n\
         [listener.forward]\nallow = [\"127.0.0.0/8\"]\ndeny_ports = [{}]\n\
         users = [\"alice:sesame\"]\n",
        two.addr().port()
    );
    let proxy = Proxy::config(config).start();
    let credentials = "Proxy-Authorization: Basic YWxpY2U6c2VzYW1l\r\n";
    assert_eq!(status(&proxy, get(one.addr(), "")).await, 407);
    assert_eq!(status(&proxy, get(one.addr(), credentials)).await, 200);
    assert_eq!(status(&proxy, get(two.addr(), credentials)).await, 403);
}

#[tokio::test]
async fn credentials_are_asked_for_checked_and_not_passed_on() {
    let origin = Served::ok().await;
    let proxy = Proxy::forward().args(["--user", "alice:sesame", "--user", "bob:x"]).start();
    let refused = [
        "",
        "Proxy-Authorization: Basic YWxpY2U6d3Jvbmc=\r\n",
        "Proxy-Authorization: Basic YWxpY2U=\r\n",
        "Proxy-Authorization: Basic !!!\r\n",
        "Proxy-Authorization: Bearer YWxpY2U6c2VzYW1l\r\n",
        "Proxy-Authorization: Basic\r\n",
        "Authorization: Basic YWxpY2U6c2VzYW1l\r\n",
    ];
    for fields in refused {
        let answer = proxy.open(get(origin.addr(), fields)).await.read_response().await;
        assert_eq!(answer.status(), 407, "{fields:?}");
        let challenge = answer.head.get("proxy-authenticate").expect("a challenge");
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
    }
    assert_eq!(status(&proxy, connect(origin.addr())).await, 407);
    assert_eq!(origin.connections(), 0);

    for fields in [
        "Proxy-Authorization: Basic YWxpY2U6c2VzYW1l\r\n",
        "proxy-authorization: basic YWxpY2U6c2VzYW1l\r\n",
        "Proxy-Authorization: Basic Ym9iOng=\r\nAuthorization: Basic b3duOjE=\r\n",
    ] {
        assert_eq!(status(&proxy, get(origin.addr(), fields)).await, 200, "{fields:?}");
    }
    let seen = origin.seen();
    assert!(seen.iter().all(|seen| !seen.message.head.has("proxy-authorization")));
    assert_eq!(seen[2].message.head.get("authorization"), Some("Basic b3duOjE="));
}

/// curl and browsers try again on the same connection.
#[tokio::test]
async fn a_client_may_try_again_with_credentials() {
    let origin = Origin::bind().await;
    let proxy = Proxy::forward().args(["--user", "alice:sesame"]).start();
    let authority = origin.addr();
    let mut client: Wire = proxy.open(connect(authority)).await;
    client.expect_status(407).await;
    let again = format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\
         Proxy-Authorization: Basic YWxpY2U6c2VzYW1l\r\n\r\n"
    );
    client.send(again).await;
    let mut server = origin.accept().await;
    assert_eq!(client.read_head().await.status(), 200);
    client.send("ping").await;
    server.expect("ping").await;
}

/// Passwords appear nowhere outside.
#[tokio::test]
async fn passwords_are_not_shown() {
    let proxy = Proxy::forward().args(["--user", "alice:sesame"]).start();
    let shown = proxy.ask_admin("GET", "/config").await.text();
    assert!(!shown.contains("sesame"), "{shown}");
    let fields = "Proxy-Authorization: Basic YWxpY2U6c2VzYW1l\r\n";
    status(&proxy, get("127.0.0.1:1", fields)).await;
    let line = proxy.log_line(&["status=502"]).await;
    assert!(!line.contains("sesame") && !line.contains("YWxpY2U6"), "{line}");
}

/// Over HTTP/2 the same policy holds.
#[tokio::test]
async fn the_policy_holds_over_h2() {
    let origin = Served::ok().await;
    let denied = origin.addr();
    let proxy = Proxy::forward().args(["--deny", "127.0.0.1/32"]).start();
    let connect = Request::connect(denied.to_string());
    let get = Request::get(format!("http://{denied}/"));
    for request in [connect, get] {
        let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
        let request = request.version(http::Version::HTTP_2).body(OutBody::Empty).unwrap();
        assert_eq!(client.send(request).await.unwrap().status(), 403);
    }
    assert_eq!(origin.connections(), 0);
}
