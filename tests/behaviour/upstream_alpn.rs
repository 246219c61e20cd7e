//! `protocol = "auto"`: each server of an upstream with TLS chooses which version of HTTP is spoken
//! to it (ALPN).

use std::sync::Arc;

use mantra_macros::req_test;
use tokio_rustls::TlsAcceptor;
use underpass_tests::{
    Origin, Proxy, Wire, eventually,
    h2_tunnel::upgrade,
    tls_origin::{Signer, TlsOrigin},
};

const NAME: &str = "api.example.org";
const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn proxy(servers: &[std::net::SocketAddr], signer: &Signer, lines: &str) -> Proxy {
    let servers: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    Proxy::config(text(&servers.join(", "), signer, lines)).start()
}

/// Its configuration.
fn text(servers: &str, signer: &Signer, lines: &str) -> String {
    format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nlistener = \"web\"\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nservers = [{servers}]\nprotocol = \"auto\"\n{lines}\n\
         [upstream.tls]\nca = \"{}\"\nserver_name = \"{NAME}\"\n",
        signer.ca()
    )
}

async fn ask(proxy: &Proxy) -> String {
    let answer = Wire::open(proxy.listener("web"), GET).await.read_response().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.text()
}

/// Both kinds of connections are kept side by side, and each is used again.
#[req_test("REQ-EDGE-005", "REQ-EDGE-006")]
#[tokio::test]
async fn each_server_gets_the_version_that_it_chooses() {
    let signer = Signer::default();
    let new = TlsOrigin::start(signer.server(&signer.good(NAME), &["h2", "http/1.1"])).await;
    let old = TlsOrigin::start(signer.server(&signer.good(NAME), &["http/1.1"])).await;
    // One that knows nothing of ALPN speaks HTTP/1.1, too.
    let mute = TlsOrigin::start(signer.server(&signer.good(NAME), &[])).await;
    let proxy = proxy(&[new.addr(), old.addr(), mute.addr()], &signer, "");
    for _ in 0..3 {
        let mut seen = [(); 3].map(|()| String::new());
        for about in &mut seen {
            *about = ask(&proxy).await;
        }
        seen.sort();
        assert!(seen[0].contains("alpn=- ") && seen[0].contains("scheme=-"), "{seen:?}");
        assert!(seen[1].contains("alpn=h2 ") && seen[1].contains("scheme=https"), "{seen:?}");
        assert!(seen[2].contains("alpn=http/1.1 ") && seen[2].contains("scheme=-"), "{seen:?}");
    }
    assert_eq!([&new, &old, &mute].map(|server| server.connections()), [1, 1, 1]);
}

/// Many requests at once, of which nobody knows yet what they will be sent by.
#[req_test("REQ-EDGE-005", "REQ-CTRL-001")]
#[tokio::test]
async fn requests_that_wait_for_the_choice_are_all_served() {
    for (protocols, most) in [(&["h2", "http/1.1"][..], 1), (&["http/1.1"], 20)] {
        let signer = Signer::default();
        let server = TlsOrigin::start(signer.server(&signer.good(NAME), protocols)).await;
        let proxy = proxy(&[server.addr()], &signer, "");
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(Wire::open(proxy.listener("web"), GET).await);
        }
        for client in &mut clients {
            client.expect_status(200).await;
        }
        assert!((1..=most).contains(&server.connections()), "{}", server.connections());
    }
    // With room for one connection only they come one after the other.
    let signer = Signer::default();
    let server = TlsOrigin::start(signer.server(&signer.good(NAME), &["http/1.1"])).await;
    let proxy = proxy(&[server.addr()], &signer, "max_connections = 1");
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Wire::open(proxy.listener("web"), GET).await);
    }
    for client in &mut clients {
        client.expect_status(200).await;
    }
    assert_eq!(server.connections(), 1);
}

/// What a server has chosen before is no more than a guess: it may be another one by now.
#[req_test("REQ-EDGE-005", "REQ-EDGE-006")]
#[tokio::test]
async fn a_server_may_choose_otherwise_with_each_connection() {
    let signer = Signer::default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let proxy = proxy(&[listener.local_addr().unwrap()], &signer, "");
    for protocol in ["h2", "http/1.1", "h2", "http/1.1", "http/1.1", "h2"] {
        let config = signer.server(&signer.good(NAME), &[protocol]);
        let server = TlsOrigin::over(listener.try_clone().unwrap(), config);
        // Many at once, of which some wait for a connection that others make.
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(Wire::open(proxy.listener("web"), GET).await);
        }
        for client in &mut clients {
            let answer = client.read_response().await;
            let text = answer.text();
            assert_eq!(answer.status(), 200, "{protocol}: {text}");
            assert!(text.contains(&format!("alpn={protocol} ")), "{protocol}: {text}");
        }
        if protocol == "h2" {
            assert!((1..=10).contains(&server.connections()), "{}", server.connections());
        }
        // It is gone with its connections, and the next one chooses otherwise.
        drop(server);
    }
}

/// A connection of HTTP/2 that has nothing to do is in the way of a tunnel: it makes room.
#[req_test("REQ-EDGE-005", "REQ-CTRL-001")]
#[tokio::test]
async fn an_idle_shared_connection_gives_its_place_to_a_tunnel() {
    let signer = Signer::default();
    let server = TlsOrigin::start(signer.server(&signer.good(NAME), &["h2", "http/1.1"])).await;
    let limited = format!("{{ address = \"{}\", max_connections = 1 }}", server.addr());
    let proxy = Proxy::config(text(&limited, &signer, "")).start();
    assert!(ask(&proxy).await.contains("alpn=h2 "));
    // This one does not switch, and says by what it was asked.
    let mut client = Wire::open(proxy.listener("web"), upgrade("/chat")).await;
    let answer = client.read_response().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(answer.text().contains("alpn=http/1.1 "), "{}", answer.text());
}

/// Whatever is chosen for others, a WebSocket is asked for over HTTP/1.1.
#[req_test("REQ-EDGE-005", "REQ-EDGE-006", "REQ-TUN-001")]
#[tokio::test]
async fn tunnels_are_asked_for_over_http1() {
    let signer = Signer::default();
    let origin = Origin::bind().await;
    let config = Arc::new(signer.server(&signer.good(NAME), &["h2", "http/1.1"]));
    let proxy = proxy(&[origin.addr()], &signer, "");
    let mut client = Wire::open(proxy.listener("web"), upgrade("/chat")).await;
    let stream = origin.accept().await.into_stream();
    let stream = TlsAcceptor::from(config).accept(stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    let head = client.read_head().await;
    let accept = head.get("sec-websocket-accept");
    assert_eq!((head.status(), accept), (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    proxy.until_tunnels(1).await;
    drop(socket);
}

/// A check speaks what a request would.
#[req_test("REQ-EDGE-005", "REQ-EDGE-002")]
#[tokio::test]
async fn checks_leave_the_choice_as_well() {
    for protocol in ["h2", "http/1.1"] {
        let signer = Signer::default();
        let server = TlsOrigin::start(signer.server(&signer.good(NAME), &[protocol])).await;
        let lines =
            format!("[upstream.health]\ncontains = \"alpn={protocol}\"\ninterval = \"50ms\"\n");
        let proxy = proxy(&[server.addr()], &signer, &lines);
        eventually("a check that passes", async || {
            let text = proxy.ask_admin("GET", "/upstreams").await.text();
            text.contains("\"passed\"")
                && !text.contains("\"passed\": 0")
                && !text.contains("\"passed\":0")
        })
        .await;
    }
}
