//! Clients that a trusted proxy announces: they are who everything goes by.

use mantra_macros::req_test;
use underpass_tests::{
    Engine, HttpClient, Origin, Proxy, Reply, Seen, Served, Version, Wire, collect, eventually,
    over_engines,
};

use super::{CLIENT, FRONT, LINE, SIGNATURE, TRUSTING, binary, config, tlv};

over_engines!(a_tunnel_begins_behind_the_header);

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn the_announced_client_is_the_client() {
    let origin = Served::ok().await;
    let proxy = Proxy::config(config("http", TRUSTING, "", origin.addr())).start();
    let v6 = binary("[2001:db8::7]:9", "[2001:db8::1]:443", &tlv(5, b"id"));
    let cases = [
        (LINE.as_bytes().to_vec(), "203.0.113.7", CLIENT),
        (binary(CLIENT, FRONT, &[]), "203.0.113.7", CLIENT),
        (v6, "2001:db8::7", "[2001:db8::7]:9"),
    ];
    for (count, (header, ip, address)) in cases.iter().enumerate() {
        // In one segment with the request, and byte by byte.
        let together = [&header[..], GET.as_bytes()].concat();
        proxy.open(&together).await.expect_status(200).await;
        let mut client = proxy.connect().await;
        for byte in &together {
            client.send([*byte]).await;
        }
        client.expect_status(200).await;
        // The header is said once; a second request needs none.
        client.send(GET).await;
        client.expect_status(200).await;
        let seen = origin.seen();
        assert_eq!(seen.len(), 3 * (count + 1));
        for seen in &seen[3 * count..] {
            assert_eq!(seen.message.head.get("x-forwarded-for"), Some(*ip));
        }
        proxy.log_line(&[&format!("client={address} "), "status=200"]).await;
    }
}

/// The proxy's own connections (health checks), and those of which it knows nothing.
#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn without_an_announcement_the_peer_is_the_client() {
    let origin = Served::ok().await;
    let proxy = Proxy::config(config("http", TRUSTING, "", origin.addr())).start();
    let local = [SIGNATURE, &[0x20, 0, 0, 3], &[1, 2, 3]].concat();
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ::1 ::2 3 4\r\n", &local] {
        let mut client = proxy.open([header, GET.as_bytes()].concat()).await;
        client.expect_status(200).await;
        proxy.log_line(&[&format!("client={} ", client.local_addr()), "status=200"]).await;
    }
    assert_eq!(forwarded_for(&origin), ["127.0.0.1"; 3]);
}

/// Whom the origin has been told of, request by request.
fn forwarded_for(origin: &Served) -> Vec<String> {
    let seen = origin.seen();
    let of = |seen: &Seen| seen.message.head.get("x-forwarded-for").unwrap_or("nobody").to_owned();
    seen.iter().map(of).collect()
}

#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn http2_begins_behind_the_header() {
    let origin = Served::ok().await;
    let proxy = Proxy::config(config("http", TRUSTING, "", origin.addr())).start();
    for header in [LINE.as_bytes().to_vec(), binary(CLIENT, FRONT, &[])] {
        let stream = proxy.open(header).await.into_stream();
        let mut http = HttpClient::over(stream, "test", Version::H2).await;
        let (content, _) = collect(http.get("/").await.into_body()).await.expect("an answer");
        assert_eq!(content, b"ok");
    }
    assert_eq!(forwarded_for(&origin), ["203.0.113.7"; 2]);
}

/// One that rests, and so has been given up but for its socket, is still the client's.
#[req_test("REQ-EDGE-004", "REQ-CTRL-003")]
#[tokio::test]
async fn a_connection_that_rests_remembers_its_client() {
    let origin = Served::ok().await;
    let proxy = Proxy::config(config("http", TRUSTING, "", origin.addr())).start();
    let parked = async || {
        eventually("a parked connection", async || {
            proxy.metrics().await.sum("underpass_connections_parked", &[]) == 1.0
        })
        .await;
    };
    let mut client = proxy.open(LINE).await;
    for _ in 0..2 {
        parked().await;
        client.send(GET).await;
        client.expect_status(200).await;
    }
    assert_eq!(forwarded_for(&origin), ["203.0.113.7"; 2]);
}

/// Rules and limits by address are about the client, not about the proxy in front.
#[req_test("REQ-EDGE-004", "REQ-CTRL-006")]
#[tokio::test]
async fn rules_and_limits_go_by_the_client() {
    let origin = Served::ok().await;
    let text = config(
        "http",
        &format!("middleware = [\"office\", \"slowly\"]\n{TRUSTING}"),
        "[[middleware]]\nname = \"office\"\naccess = { allow = [\"203.0.113.0/24\"] }\n\
         [[middleware]]\nname = \"slowly\"\nrate_limit = { requests = 1, per = \"1h\" }",
        origin.addr(),
    );
    let proxy = Proxy::config(text).start();
    let line = |ip: &str| format!("PROXY TCP4 {ip} 198.51.100.1 1 443\r\n{GET}");
    proxy.open(line("203.0.113.7")).await.expect_status(200).await;
    proxy.open(line("203.0.113.8")).await.expect_status(200).await;
    proxy.open(line("203.0.113.7")).await.expect_status(429).await;
    proxy.open(line("192.0.2.1")).await.expect_status(403).await;
    assert_eq!(origin.seen().len(), 2);
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-EDGE-004")]
async fn a_tunnel_begins_behind_the_header(engine: Engine) {
    let origin = Origin::bind().await;
    let text = config("tcp", TRUSTING, "", origin.addr());
    let proxy = Proxy::config(text).splice(engine).start();
    for header in [LINE.as_bytes().to_vec(), binary(CLIENT, FRONT, &tlv(5, &[7; 4000]))] {
        let mut client = proxy.open([&header[..], b"first"].concat()).await;
        let mut server = origin.accept().await;
        server.expect("first").await;
        let both = async |from: &mut Wire, to: &mut Wire| {
            tokio::join!(
                from.exchange_pattern(1 << 20, true, 1 << 20),
                to.exchange_pattern(1 << 20, true, 1 << 20)
            );
        };
        both(&mut client, &mut server).await;
        proxy.until_tunnels(0).await;
        proxy.log_line(&[&format!("client={CLIENT} "), "request_bytes=1048581 "]).await;
    }
}

/// A server that speaks first is heard as soon as the header is whole.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn a_server_that_speaks_first_is_heard_behind_the_header() {
    let origin = Origin::bind().await;
    let proxy = Proxy::config(config("tcp", TRUSTING, "", origin.addr())).start();
    let mut client = proxy.open(LINE).await;
    let mut server = origin.accept().await;
    server.send("220 ready").await;
    client.expect("220 ready").await;
}

/// The balance of an upstream that goes by the client goes by this one.
#[req_test("REQ-EDGE-002")]
#[tokio::test]
async fn a_server_is_chosen_by_the_client() {
    let first = Origin::bind().await.serve(|_| Reply::ok("first"));
    let second = Origin::bind().await.serve(|_| Reply::ok("second"));
    let text = config("http", TRUSTING, "balance = \"hash\"\nhash_by = \"client\"", first.addr())
        .replace("servers = [", &format!("servers = [\"{}\", ", second.addr()));
    let proxy = Proxy::config(text).start();
    let mut seen = std::collections::HashSet::new();
    for client in 0..64 {
        let line = format!("PROXY TCP4 203.0.113.{client} 198.51.100.1 1 443\r\n{GET}");
        let answers = [
            proxy.open(&line).await.expect_status(200).await.text(),
            proxy.open(&line).await.expect_status(200).await.text(),
        ];
        assert_eq!(answers[0], answers[1], "client {client}");
        seen.insert(answers[0].clone());
    }
    assert_eq!(seen.len(), 2, "all clients are at one server");
}
