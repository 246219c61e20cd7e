//! Copies of requests for a second server: whole, and without any part in what the client gets.

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Refusing, Reply, Served, Version, collect, eventually,
};

fn config(first: std::net::SocketAddr, second: std::net::SocketAddr, more: &str) -> String {
    format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"first\"\nmiddleware = [\"copy\"]\n\
         [[middleware]]\nname = \"copy\"\nmirror = {{ upstream = \"second\"{more} }}\n\
         [[upstream]]\nname = \"first\"\nservers = [\"{first}\"]\n\
         [[upstream]]\nname = \"second\"\nservers = [\"{second}\"]\n"
    )
}

async fn count(proxy: &Proxy, name: &str) -> f64 {
    proxy.metrics().await.sum(&format!("underpass_mirror_{name}_total"), &[])
}

#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn both_servers_get_the_whole_request_and_one_answers() {
    let first = Served::always(Reply::ok("first")).await;
    let second = Served::always("HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\nsecond").await;
    let proxy = Proxy::config(config(first.addr(), second.addr(), "")).start();
    let body: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    let mut sent = 0;
    for version in [Version::H1, Version::H2] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        for (method, body) in [(Method::GET, None), (Method::POST, Some(body.clone()))] {
            let request = client.request(method, "/a?b").header("x-field", "1");
            let body = body.map_or(OutBody::Empty, |body| OutBody::Full(body.into()));
            let answer = client.send(request.body(body).unwrap()).await.unwrap();
            assert_eq!(collect(answer.into_body()).await.unwrap().0, b"first");
            sent += 1;
            eventually("the copy", async || second.targets().len() == sent).await;
        }
    }
    for (one, other) in first.seen().iter().zip(second.seen()) {
        let (one, other) = (&one.message, &other.message);
        assert_eq!(one.body, other.body);
        assert_eq!(
            (one.head.target(), one.head.method()),
            (other.head.target(), other.head.method())
        );
        assert_eq!(other.head.get("x-field"), Some("1"));
    }
    eventually("all to be counted", async || count(&proxy, "answered").await == 4.0).await;
    // Kept as any other connection.
    assert_eq!(second.connections(), 1);
}

/// A second server that does not answer, is not there, or does not read is nobody's business.
#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn the_second_server_holds_nobody_up() {
    let first = Served::ok().await;
    let refusing = Refusing::bind();
    let proxy = Proxy::config(config(first.addr(), refusing.addr(), "")).start();
    let request = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
    assert_eq!(proxy.open(request).await.read_response().await.status(), 200);
    eventually("the failure", async || count(&proxy, "failed").await == 1.0).await;

    // Takes the connection, and nothing from it.
    let silent = Origin::bind_narrow();
    let proxy = Proxy::config(config(first.addr(), silent.addr(), "")).start();
    let before = proxy.resident_bytes();
    let body = vec![7; 64 << 20];
    let mut client = HttpClient::connect(proxy.addr(), Version::H1).await;
    let request = client.request(Method::POST, "/large").body(OutBody::Full(body.into())).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 200);
    eventually("the cut", async || count(&proxy, "cut").await == 1.0).await;
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    let seen = first.seen();
    assert_eq!(seen.last().unwrap().message.body.len(), 64 << 20);
    // The second one sees that something is missing.
    let mut server = silent.accept().await;
    let (read, _) = server.read_to_end().await;
    assert!(read.len() < 64 << 20);
}

/// A client that leaves in the middle ends both.
#[tokio::test]
async fn a_request_that_breaks_off_is_not_whole_for_the_second_server_either() {
    let first = Origin::bind().await;
    let second = Origin::bind().await;
    let proxy = Proxy::config(config(first.addr(), second.addr(), "")).start();
    let request = "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n";
    let client = proxy.open(request).await;
    let (mut one, mut other) = (first.accept().await, second.accept().await);
    one.read_until("begin").await;
    other.read_until("begin").await;
    client.reset();
    for server in [&mut one, &mut other] {
        let (rest, _) = server.read_to_end().await;
        assert!(!String::from_utf8_lossy(&rest).contains("0\r\n\r\n"));
    }
}

/// A share of them, and no more: of 400, four standard deviations are 40.
#[tokio::test]
async fn a_share_is_copied() {
    let first = Served::ok().await;
    let second = Served::ok().await;
    let proxy = Proxy::config(config(first.addr(), second.addr(), ", ratio = 0.5")).start();
    let mut client = proxy.connect().await;
    for _ in 0..400 {
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await;
        client.expect_status(200).await;
    }
    eventually("the copies to be answered", async || {
        let answered = count(&proxy, "answered").await;
        answered >= 160.0 && answered == second.targets().len() as f64
    })
    .await;
    let copies = second.targets().len();
    assert!((160..=240).contains(&copies), "{copies}");
}
