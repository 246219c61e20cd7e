//! Proxies in front that tell of their clients in a field of the request.

use mantra_macros::req_test;
use underpass_tests::{Proxy, Served, Version, over_versions};

over_versions!(each_request_is_its_own_clients);

fn config(listener: &str, more: &str, origin: &Served) -> String {
    format!(
        "workers = 1\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n{more}\n",
        origin.addr()
    )
}

const TRUSTING: &str = "trusted_proxies = { networks = [\"127.0.0.0/8\", \"10.0.0.0/8\"] }";

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: test\r\n{fields}\r\n")
}

/// One connection of a proxy carries requests of many clients.
#[req_test("REQ-EDGE-004", "REQ-CTRL-006")]
async fn each_request_is_its_own_clients(version: Version) {
    let origin = Served::ok().await;
    let steps = "[[middleware]]\nname = \"office\"\naccess = { allow = [\"203.0.113.0/24\"] }\n\
                 [[middleware]]\nname = \"slowly\"\nrate_limit = { requests = 1, per = \"1h\" }";
    let listener = format!("middleware = [\"office\", \"slowly\"]\n{TRUSTING}");
    let proxy = Proxy::config(config(&listener, steps, &origin)).start();
    let mut client = underpass_tests::HttpClient::connect(proxy.addr(), version).await;
    let cases = [
        ("203.0.113.7", 200),
        ("203.0.113.8", 200),
        ("6.6.6.6, 203.0.113.9, 10.0.0.1", 200),
        ("203.0.113.7", 429),
        // What stands further in front may be made up.
        ("203.0.113.10, 192.0.2.1", 403),
    ];
    for (value, status) in cases {
        let request = client.request(http::Method::GET, "/").header("X-Forwarded-For", value);
        let request = request.body(underpass_tests::OutBody::Empty).expect("request");
        let answer = client.send(request).await.expect("answer");
        assert_eq!(answer.status(), status, "{value}");
    }
    proxy.log_line(&["client=203.0.113.9:0 ", "status=200"]).await;
    proxy.log_line(&["client=192.0.2.1:0 ", "status=403"]).await;
}

/// A trusted proxy's fields are added to, those of anybody else replaced.
#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn only_what_trusted_proxies_said_goes_on() {
    let sent = get("X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\
                    X-Forwarded-Host: www.example.org\r\n");
    let elsewhere = "trusted_proxies = { networks = [\"192.0.2.0/24\"] }";
    for (listener, chain, scheme) in
        [(TRUSTING, "203.0.113.7, 127.0.0.1", "https"), (elsewhere, "127.0.0.1", "http")]
    {
        let origin = Served::ok().await;
        let proxy = Proxy::config(config(listener, "", &origin)).start();
        proxy.open(&sent).await.expect_status(200).await;
        let seen = origin.only().head;
        assert_eq!(seen.get("x-forwarded-for"), Some(chain));
        assert_eq!(seen.get("x-forwarded-proto"), Some(scheme));
    }
}

/// The field that is believed is the one that was named, and no other.
#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn the_field_is_chosen() {
    let origin = Served::ok().await;
    let trusting = |field: &str| {
        format!("trusted_proxies = {{ networks = [\"127.0.0.0/8\"], field = \"{field}\" }}")
    };
    let fields = "X-Forwarded-For: 203.0.113.1\r\nForwarded: for=\"[2001:db8::2]:80\";proto=https\r\n\
                  CF-Connecting-IP: 203.0.113.3\r\n";
    let cases = [
        ("x-forwarded-for", "client=203.0.113.1:0 "),
        ("forwarded", "client=[2001:db8::2]:0 "),
        ("CF-Connecting-IP", "client=203.0.113.3:0 "),
        ("x-none", "client=127.0.0.1:"),
    ];
    for (field, client) in cases {
        let proxy = Proxy::config(config(&trusting(field), "", &origin)).start();
        proxy.open(get(fields)).await.expect_status(200).await;
        proxy.log_line(&[client, "status=200"]).await;
    }
}

/// What a client leaves open does not take in what the proxy behind it appends.
#[req_test("REQ-EDGE-004", "REQ-CTRL-006")]
#[tokio::test]
async fn a_client_cannot_hide_behind_a_quote() {
    let origin = Served::ok().await;
    let steps = "[[middleware]]\nname = \"office\"\naccess = { deny = [\"203.0.113.0/24\"] }";
    for (field, value) in [
        ("X-Forwarded-For", "\", 203.0.113.9"),
        ("Forwarded", "for=10.1.1.1;x=\", for=203.0.113.9;proto=https"),
        ("Forwarded", "for=10.1.1.1;x=\"\\, for=\"203.0.113.9:80\";host=\"a, for=6.6.6.6\""),
    ] {
        let trusting = format!(
            "middleware = [\"office\"]\n\
             trusted_proxies = {{ networks = [\"127.0.0.0/8\", \"10.0.0.0/8\"], field = \"{field}\" }}"
        );
        let proxy = Proxy::config(config(&trusting, steps, &origin)).start();
        proxy.open(get(&format!("{field}: {value}\r\n"))).await.expect_status(403).await;
        proxy.log_line(&["client=203.0.113.9:0 ", "status=403"]).await;
    }
    assert_eq!(origin.targets(), [""; 0]);
}
