//! Servers by name: their addresses come by DNS, again and again, and no request waits for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mantra_macros::req_test;
use serde_json::Value;
use underpass_tests::{
    Fickle, Message, Mode, Proxy,
    dns::{Answer, NameServer},
    eventually,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A proxy whose one upstream is this server, by this name server, with these lines.
fn proxy(server: &str, dns: &NameServer, protocol: &str, lines: &str) -> Proxy {
    Proxy::config(text(server, dns, protocol, lines)).start()
}

/// Its configuration.
fn text(server: &str, dns: &NameServer, protocol: &str, lines: &str) -> String {
    format!(
        "workers = 2\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\n\
         [[route]]\nlistener = \"web\"\nupstream = \"api\"\n[[upstream]]\nname = \"api\"\n\
         servers = [\"{server}\"]\n{lines}\n\
         [upstream.dns]\nservers = [\"{}\"]\ntimeout = \"300ms\"\nmax_ttl = \"1s\"\n",
        dns.addr()
    )
}

/// Servers at the same port of 127.0.0.1 and 127.0.0.2.
async fn two() -> (Fickle, Fickle, u16) {
    let a = Fickle::up("a").await;
    let port = a.addr().port();
    let other = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port));
    (a, Fickle::at("b", Mode::Up, other).await, port)
}

fn ip(server: &Fickle) -> IpAddr {
    server.addr().ip()
}

async fn ask(proxy: &Proxy) -> Message {
    proxy.open(GET).await.read_response().await
}

/// Addresses and names of the servers.
async fn servers(proxy: &Proxy) -> Vec<(String, Option<String>)> {
    let answer = proxy.ask_admin("GET", "/upstreams").await;
    let upstreams: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let servers = upstreams[0]["servers"].as_array().expect("servers");
    servers.iter().map(|s| (text(&s["address"]).expect("address"), text(&s["name"]))).collect()
}

async fn until_servers(proxy: &Proxy, wanted: &[&Fickle]) {
    let wanted: Vec<String> = wanted.iter().map(|server| server.addr().to_string()).collect();
    eventually(&format!("the servers {wanted:?}"), async || {
        servers(proxy).await.iter().map(|(address, _)| address.clone()).collect::<Vec<_>>()
            == wanted
    })
    .await;
}

/// Each address is a server; what DNS says later comes into force when its TTL is over.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn addresses_of_a_name_are_servers_that_come_and_go() {
    let (a, b, port) = two().await;
    let dns = NameServer::start().await;
    dns.points("api.test", &[ip(&b), ip(&a)]);
    let proxy = proxy(&format!("api.test:{port}"), &dns, "http", "host = \"server\"");
    until_servers(&proxy, &[&a, &b]).await;
    let name = format!("api.test:{port}");
    assert!(servers(&proxy).await.iter().all(|(_, named)| named.as_ref() == Some(&name)));
    let mut client = proxy.connect().await;
    for _ in 0..8 {
        client.send(GET).await;
        client.expect_status(200).await;
    }
    assert_eq!((a.requests(), b.requests()), (4, 4));

    dns.points("api.test", &[ip(&b)]);
    until_servers(&proxy, &[&b]).await;
    let had = a.requests();
    for _ in 0..4 {
        assert_eq!(ask(&proxy).await.text(), "b");
    }
    assert_eq!(a.requests(), had);
    eventually("connections to what is gone to be closed", async || {
        let address = a.addr().to_string();
        let labels = [("server", address.as_str())];
        proxy.metrics().await.sum("underpass_server_connections_open", &labels) == 0.0
    })
    .await;

    dns.points("api.test", &[ip(&a), ip(&b)]);
    until_servers(&proxy, &[&a, &b]).await;
    eventually("requests to what is back", async || {
        ask(&proxy).await;
        a.requests() > had
    })
    .await;
}

/// What cannot be had leaves the last answer in place.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_name_server_in_trouble_takes_no_server_away() {
    let (a, _b, port) = two().await;
    let dns = NameServer::start().await;
    dns.points("api.test", &[ip(&a)]);
    let proxy = proxy(&format!("api.test:{port}"), &dns, "http", "");
    until_servers(&proxy, &[&a]).await;
    for trouble in [Answer::Code(2), Answer::Code(3), Answer::Addresses(vec![], 1), Answer::Silence]
    {
        dns.say("api.test", trouble.clone());
        let before = dns.queries();
        eventually("two queries more", async || dns.queries() > before + 2).await;
        assert_eq!(ask(&proxy).await.text(), "a", "{trouble:?}");
        until_servers(&proxy, &[&a]).await;
    }
    proxy.log_line(&["api.test", "what was known stays"]).await;
}

/// Another name server: that of before is asked no more, and what it says counts for nothing.
#[req_test("REQ-EDGE-002", "REQ-EDGE-008")]
#[tokio::test]
async fn a_reload_with_another_name_server_forgets_that_of_before() {
    let (a, b, port) = two().await;
    let (before, after) = (NameServer::start().await, NameServer::start().await);
    before.points("api.test", &[ip(&a)]);
    after.points("api.test", &[ip(&b)]);
    let server = format!("api.test:{port}");
    let mut proxy = proxy(&server, &before, "http", "");
    until_servers(&proxy, &[&a]).await;
    proxy.reload(&text(&server, &after, "http", "")).await;
    until_servers(&proxy, &[&b]).await;
    let asked = before.queries();
    let seen = after.queries();
    eventually("the other one to be asked again", async || after.queries() > seen + 4).await;
    assert_eq!(before.queries(), asked, "the name server of before is asked");
    until_servers(&proxy, &[&b]).await;
}

/// Until DNS has answered, the system is asked as if there were none; no request waits.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn nobody_waits_for_the_first_answer() {
    let a = Fickle::up("a").await;
    let dns = NameServer::start().await;
    // getaddrinfo reads this as 127.0.0.1 (inet_aton(3)); for DNS it is a name like any other.
    dns.say("127.1", Answer::Silence);
    let name = format!("127.1:{}", a.addr().port());
    let proxy = proxy(&name, &dns, "http", "");
    assert_eq!(ask(&proxy).await.text(), "a");
    eventually("a query", async || dns.queries() > 0).await;
    assert_eq!(ask(&proxy).await.text(), "a");
    assert_eq!(servers(&proxy).await, [(name, None)]);
}

/// Health and tcp listeners go by addresses as well.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn each_address_is_checked_and_connected_to_by_itself() {
    let (a, b, port) = two().await;
    let dns = NameServer::start().await;
    dns.points("db.test", &[ip(&a), ip(&b)]);
    let checks =
        "[upstream.health]\npath = \"/health\"\ninterval = \"200ms\"\nfall = 2\nrise = 1\n";
    let proxy = proxy(&format!("db.test:{port}"), &dns, "tcp", checks);
    until_servers(&proxy, &[&a, &b]).await;
    b.become_(Mode::Refusing);
    let address = b.addr().to_string();
    let down = [("server", address.as_str()), ("state", "down")];
    eventually("one to be found down", async || {
        proxy.metrics().await.sum("underpass_server_state", &down) == 1.0
    })
    .await;
    for _ in 0..4 {
        assert_eq!(ask(&proxy).await.text(), "a");
    }
}
