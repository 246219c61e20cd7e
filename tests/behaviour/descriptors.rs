//! Descriptors: running out of them harms nothing that is open, and whatever a load was made
//! of, all of them are given back.

use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, Proxy, Served, Version, Wire, collect, eventually, process, tunnel::Way,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn a_flood_of_connections_is_survived() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut early = proxy.open(GET).await;
    early.expect_status(200).await;
    // Room for a few connections more, not for the flood.
    process::limit_descriptors(proxy.pid(), proxy.descriptors() as u64 + 12);
    let mut flood = Vec::new();
    for _ in 0..60 {
        flood.push(Wire::connect(proxy.addr()).await);
    }
    proxy.log_line(&["accept"]).await;
    // Who was there before is served as before.
    early.send(GET).await;
    early.expect_status(200).await;
    // The log is not flooded, nor is a core: backing off means few lines.
    let lines = proxy.stderr().lines().filter(|line| line.contains("accept")).count();
    assert!(lines < 50, "{lines} lines about accept");
    drop(flood);
    let mut late = proxy.open("GET /late HTTP/1.1\r\nHost: test\r\n\r\n").await;
    late.expect_status(200).await;
    assert_eq!(origin.targets().last().map(String::as_str), Some("/late"));
}

/// Many short connections leave no descriptor behind.
#[tokio::test]
async fn descriptors_are_given_back() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    proxy.open(GET).await.expect_status(200).await;
    let idle = proxy.descriptors();
    for _ in 0..10 {
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(proxy.open(GET).await);
        }
        for client in &mut clients {
            client.expect_status(200).await;
        }
    }
    // What the pool keeps to the origin may stay.
    let pooled = origin.connections();
    eventually("descriptors to be given back", async || proxy.descriptors() <= idle + pooled).await;
}

/// Requests of all kinds, clients that leave and tunnels of all kinds: when the load has
/// stopped, not one descriptor and not one tunnel is left.
#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn a_mixed_load_leaves_nothing_behind() {
    let served = Served::ok().await;
    let garbage = Served::always("no HTTP\r\n\r\n").await;
    let origin = Origin::bind().await;
    let proxy = Proxy::config(mixed_config(&served, &garbage, &origin)).start();
    let idle = proxy.descriptors();
    for round in 0..6 {
        requests(&proxy).await;
        abandoned(&proxy, &origin).await;
        for way in Way::ALL {
            let listener = match way {
                Way::Upgrade => "web",
                Way::Connect => "forward",
                Way::Tcp => "raw",
            };
            let mut client =
                Wire::open(proxy.listener(listener), way.request_to(origin.addr())).await;
            let mut server = way.accept(&origin).await;
            way.opened(&mut client).await;
            client.send("there").await;
            server.expect("there").await;
            server.send("and back").await;
            client.expect("and back").await;
            match round % 3 {
                0 => client.finish().await,
                1 => server.finish().await,
                _ => client.reset(),
            }
        }
    }
    proxy.until_tunnels(0).await;
    // Pools are empty after their idle time, so nothing is an exception here.
    eventually("all descriptors to be given back", async || proxy.descriptors() <= idle).await;
}

/// A copying engine has no pipes to keep.
fn mixed_config(served: &Served, garbage: &Served, origin: &Origin) -> String {
    let (served, garbage, origin) = (served.addr(), garbage.addr(), origin.addr());
    format!(
        r#"
        workers = 1
        splice = "copy"
        [admin]
        address = "127.0.0.1:0"
        [[listener]]
        name = "web"
        address = "127.0.0.1:0"
        [[listener]]
        name = "forward"
        address = "127.0.0.1:0"
        protocol = "forward"
        [[listener]]
        name = "raw"
        address = "127.0.0.1:0"
        protocol = "tcp"
        [[route]]
        listener = "web"
        path_prefix = "/tunnel"
        upstream = "origin"
        [[route]]
        listener = "web"
        path_prefix = "/garbage"
        upstream = "garbage"
        [[route]]
        listener = "web"
        upstream = "served"
        [[route]]
        listener = "raw"
        upstream = "origin"
        [[upstream]]
        name = "served"
        servers = ["{served}"]
        idle_timeout = "1s"
        [[upstream]]
        name = "garbage"
        servers = ["{garbage}"]
        [[upstream]]
        name = "origin"
        servers = ["{origin}"]
        idle_timeout = "1s"
        "#
    )
}

/// Answered ones over kept connections of both versions, and one that fails.
async fn requests(proxy: &Proxy) {
    let web = proxy.listener("web");
    for _ in 0..5 {
        let mut client = Wire::open(web, GET).await;
        client.expect_status(200).await;
        client.send(GET).await;
        client.expect_status(200).await;
    }
    let mut http2 = HttpClient::connect(web, Version::H2).await;
    for _ in 0..5 {
        let answer = http2.get("/").await;
        assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
    }
    let failing = "GET /garbage HTTP/1.1\r\nHost: test\r\n\r\n";
    Wire::open(web, failing).await.expect_status(502).await;
}

/// A client that goes while its answer is under way.
async fn abandoned(proxy: &Proxy, origin: &Origin) {
    let request = "GET /tunnel/long HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut client = Wire::open(proxy.listener("web"), request).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegin").await;
    client.read_until("begin").await;
    client.reset();
    server.expect_end().await;
}
