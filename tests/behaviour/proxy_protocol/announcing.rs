//! Servers that are told of clients: a header, and then what the client sent.

use mantra_macros::req_test;
use underpass_tests::{
    Engine, HttpClient, Origin, Proxy, Refusing, Version, Wire, over_engines, over_versions,
    tunnel::SWITCHING,
};

use super::{CLIENT, FRONT, LINE, SIGNATURE, TRUSTING, binary, config, tlv};

over_versions!(each_request_has_a_connection_that_tells_of_its_client);
over_engines!(a_tunnel_begins_behind_our_header);

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

const V1: &str = "proxy_protocol = \"v1\"";
const V2: &str = "proxy_protocol = \"v2\"";

/// The line that tells of this connection.
fn line(client: &Wire) -> String {
    let (from, to) = (client.local_addr(), client.peer_addr());
    format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
}

/// Both connections of one request, which are kept for another.
async fn kept_connections(proxy: &Proxy, origin: &Origin) -> (Wire, Wire) {
    let mut client = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server.send(OK).await;
    client.expect_status(200).await;
    (client, server)
}

#[req_test("REQ-EDGE-004", "REQ-EDGE-002")]
async fn each_request_has_a_connection_that_tells_of_its_client(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::config(config("http", "", V1, origin.addr())).start();
    for _ in 0..2 {
        let client = proxy.connect().await;
        let line = line(&client);
        let mut http = HttpClient::over(client.into_stream(), "test", version).await;
        for _ in 0..3 {
            let answer = http.get("/");
            let serving = async {
                let mut server = origin.accept().await;
                server.expect(&line).await;
                server.read_request().await;
                server.send(OK).await;
                // The next one may be another client's.
                server.expect_fin().await;
            };
            let (answer, ()) = tokio::join!(answer, serving);
            assert_eq!(answer.status(), 200);
        }
    }
}

/// What was said of the client goes on, with what else was said of the connection.
#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn an_announcement_is_passed_on() {
    let origin = Origin::bind().await;
    let kept = [tlv(2, b"example.org"), tlv(5, b"id"), tlv(0xea, &[1; 300])].concat();
    // Padding is not for others.
    let said = [&kept[..], &tlv(4, &[0; 20])].concat();
    let v6 = ["[2001:db8::7]:9", "[2001:db8::1]:443"];
    for protocol in ["http", "tcp"] {
        let v2 = Proxy::config(config(protocol, TRUSTING, V2, origin.addr())).start();
        let v1 = Proxy::config(config(protocol, TRUSTING, V1, origin.addr())).start();
        let v6_line = b"PROXY TCP6 2001:db8::7 2001:db8::1 9 443\r\n";
        let cases = [
            (&v2, binary(CLIENT, FRONT, &said), binary(CLIENT, FRONT, &kept)),
            (&v2, LINE.into(), binary(CLIENT, FRONT, &[])),
            (&v1, binary(CLIENT, FRONT, &said), LINE.into()),
            (&v1, binary(v6[0], v6[1], &said), v6_line.to_vec()),
            (&v2, binary(v6[0], v6[1], &kept), binary(v6[0], v6[1], &kept)),
        ];
        for (proxy, came, goes) in cases {
            let mut client = proxy.open([&came[..], GET.as_bytes()].concat()).await;
            let mut server = origin.accept().await;
            server.expect(goes).await;
            assert_eq!(server.read_request().await.head.method(), "GET");
            server.send(OK).await;
            client.expect_status(200).await;
        }
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002", "REQ-EDGE-004")]
async fn a_tunnel_begins_behind_our_header(engine: Engine) {
    let origin = Origin::bind().await;
    for (protocol, upgrades) in [("tcp", false), ("http", true)] {
        let text = config(protocol, "", V1, origin.addr());
        let proxy = Proxy::config(text).splice(engine).start();
        let mut client = proxy.connect().await;
        if upgrades {
            client
                .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
                .await;
        }
        let mut server = origin.accept().await;
        server.expect(line(&client)).await;
        if upgrades {
            server.read_head().await;
            server.send(SWITCHING).await;
            assert_eq!(client.read_head().await.status(), 101);
        }
        tokio::join!(
            client.exchange_pattern(1 << 20, true, 1 << 20),
            server.exchange_pattern(1 << 20, true, 1 << 20)
        );
        proxy.until_tunnels(0).await;
        // The header is ours, and no byte of the client's.
        proxy.log_line(&["tunnel=", "request_bytes=1048576 "]).await;
    }
}

/// The server that is asked instead of one that cannot be reached is told as well.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn the_next_server_is_told_as_well() {
    let (dead, origin) = (Refusing::bind(), Origin::bind().await);
    for protocol in ["http", "tcp"] {
        let text = config(protocol, "", V1, dead.addr())
            .replace("servers = [", &format!("servers = [\"{}\", ", origin.addr()));
        let proxy = Proxy::config(text).start();
        for _ in 0..4 {
            let mut client = proxy.connect().await;
            client.send(GET).await;
            let mut server = origin.accept().await;
            server.expect(line(&client)).await;
            server.read_request().await;
            server.send(OK).await;
            client.expect_status(200).await;
        }
    }
}

/// A check is nobody's connection, and says so.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_check_says_that_it_is_our_own() {
    let origin = Origin::bind().await;
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    for (version, header) in [(V1, b"PROXY UNKNOWN\r\n".to_vec()), (V2, local)] {
        let upstream = format!("{version}\n[upstream.health]\npath = \"/health\"");
        let proxy = Proxy::config(config("http", "", &upstream, origin.addr())).start();
        let mut check = origin.accept().await;
        check.expect(&header).await;
        assert_eq!(check.read_request().await.head.target(), "/health");
        check.send(OK).await;
        drop(proxy);
    }
}

/// Kept connections, which cannot announce anybody, take no place from those that do.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn kept_connections_make_room_when_a_reload_begins_it() {
    let origin = Origin::bind().await;
    let mut proxy = Proxy::config(config("http", "", "max_connections = 1", origin.addr())).start();
    let (mut client, mut kept) = kept_connections(&proxy, &origin).await;
    let text = std::fs::read_to_string(proxy.config_path()).expect("configuration");
    proxy.reload(&text.replace("max_connections", &format!("{V1}\nmax_connections"))).await;
    kept.expect_end().await;
    client.send(GET).await;
    let mut server = origin.accept().await;
    server.expect("PROXY TCP4 ").await;
    server.read_until("\r\n").await;
    server.read_request().await;
    server.send(OK).await;
    client.expect_status(200).await;
}

/// A reload begins to announce, for the next request of an open connection, too.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn a_reload_begins_and_ends_it() {
    let origin = Origin::bind().await;
    let mut proxy = Proxy::config(config("http", "", "", origin.addr())).start();
    let (mut client, mut kept) = kept_connections(&proxy, &origin).await;
    let text = std::fs::read_to_string(proxy.config_path()).expect("configuration");

    let announcing = text.replace("name = \"one\"", &format!("name = \"one\"\n{V1}"));
    proxy.reload(&announcing).await;
    client.send(GET).await;
    let mut server = origin.accept().await;
    let head = server.read_until("\r\n").await;
    let head = String::from_utf8(head).expect("a line");
    let from = client.local_addr();
    assert!(head.starts_with(&format!("PROXY TCP4 {} 127.0.0.1 {} ", from.ip(), from.port())));
    server.read_request().await;
    server.send(OK).await;
    client.expect_status(200).await;

    proxy.reload(&text).await;
    client.send(GET).await;
    // Which of the two is not said, but not the one that was announced.
    let mut server = tokio::select! {
        server = origin.accept() => server,
        true = kept.readable() => kept,
    };
    server.read_request().await;
    server.send(OK).await;
    client.expect_status(200).await;
}
