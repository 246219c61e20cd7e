//! Tunnels with TLS on the client's side: copied, or moved by the kernel where that has the keys,
//! and bound by the same law. `tests/kernel/ktls` has more of what the kernel does.

use std::net::SocketAddr;

use mantra_macros::req_test;
use underpass_tests::{
    End, Origin, Proxy, Wire, engine, eventually, pattern,
    tls::{Authority, Folder, Secured, TlsClient, TlsEnd},
    tunnel::Way,
};

use super::{certificates, text};

struct Bed {
    client: Secured,
    server: Wire,
    proxy: Proxy,
    _folder: Folder,
}

/// A tunnel of each kind, open.
async fn open(way: Way) -> Bed {
    open_with(way, "").await
}

/// The same, with the kernel asked to take the keys.
async fn open_with_ktls(way: Way) -> Bed {
    open_with(way, "ktls = true").await
}

/// The same, with this at the top of the configuration.
async fn open_with(way: Way, top: &str) -> Bed {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["test"]));
    let origin = Origin::bind().await;
    let listener = match way {
        Way::Upgrade => "",
        Way::Connect => "protocol = \"forward\"\n[listener.forward]\nallow = [\"127.0.0.0/8\"]",
        Way::Tcp => "protocol = \"tcp\"",
    };
    let config = text(listener, &certificates(&folder, &["site"]), origin.addr());
    let mut config = format!("{top}\n{config}");
    if way == Way::Connect {
        config.truncate(config.find("[[route]]").unwrap());
    }
    let proxy = Proxy::config(config).start();
    let mut client = TlsClient::trusting(&authority).connect(proxy.listener("web"), "test").await;
    client.send(way.request(&origin)).await;
    let server = way.accept(&origin).await;
    if way != Way::Tcp {
        let head = client.read_until("\r\n\r\n").await;
        let status = if way == Way::Upgrade { "HTTP/1.1 101" } else { "HTTP/1.1 200" };
        assert!(head.starts_with(status), "{head}");
    }
    Bed { client, server, proxy, _folder: folder }
}

#[req_test("REQ-EDGE-006", "REQ-TUN-001", "REQ-TUN-004")]
#[tokio::test]
async fn bytes_go_both_ways_and_the_table_says_how() {
    for way in Way::ALL {
        let Bed { mut client, mut server, proxy, .. } = open_with_ktls(way).await;
        client.send("ping").await;
        server.expect("ping").await;
        server.send("pong").await;
        client.expect("pong").await;
        let rows = proxy.tunnels().await;
        for direction in ["to_upstream", "to_downstream"] {
            let engine = &rows[0]["engine"][direction];
            assert_eq!(engine["name"], "copy", "{way:?}: {rows:?}");
            match engine::ktls() {
                Ok(()) => {
                    assert_eq!(rows[0]["ktls"], serde_json::json!(["downstream"]), "{rows:?}");
                    assert!(engine["reason"].is_null(), "{way:?}: {rows:?}");
                }
                Err(_) => {
                    assert!(rows[0]["ktls"].is_null(), "{rows:?}");
                    let reason = "tls, and ktls does not work here, see doctor";
                    assert_eq!(engine["reason"], reason, "{way:?}: {rows:?}");
                }
            }
        }
        // More than any buffer on the way holds, both ways at once.
        const BULK: u64 = 8 << 20;
        let (mut from, mut to) = tokio::io::split(client.0);
        let receive = async {
            let mut at = 0;
            let mut room = vec![0; 100_000];
            while at < BULK {
                let n = tokio::io::AsyncReadExt::read(&mut from, &mut room).await.unwrap();
                assert!(n > 0, "ended after {at}");
                pattern::check(at, &room[..n]);
                at += n as u64;
            }
            from
        };
        let send = async {
            use tokio::io::AsyncWriteExt;
            to.write_all(&pattern::bytes(BULK as usize)).await.unwrap();
            // The end of one direction leaves the other open.
            to.shutdown().await.unwrap();
            to
        };
        let ((), from, to) =
            tokio::join!(server.exchange_pattern(BULK, false, BULK), receive, send);
        assert_eq!(server.expect_end().await, End::Fin);
        let mut client = Secured(from.unsplit(to));
        server.send("last words").await;
        server.finish().await;
        assert_eq!(client.read_to_end().await, (b"last words".to_vec(), TlsEnd::Closed));
        eventually("the tunnel to end", async || proxy.tunnels().await.is_empty()).await;
        proxy.log_line(&["tls_version=1.3", "tunnel_end=finished"]).await;
    }
}

/// What is not asked for is not used, and says so; nor is it with the engine that copies.
#[req_test("REQ-EDGE-006", "REQ-TUN-004")]
#[tokio::test]
async fn the_kernel_has_no_keys_where_it_is_not_to_have_them() {
    for (top, reason) in [
        ("", serde_json::json!("tls, and ktls is off")),
        ("ktls = false\nsplice = \"pipe\"", serde_json::json!("tls, and ktls is off")),
        ("ktls = true\nsplice = \"copy\"", serde_json::Value::Null),
    ] {
        let Bed { mut client, mut server, proxy, .. } = open_with(Way::Tcp, top).await;
        client.send("ping").await;
        server.expect("ping").await;
        let rows = proxy.tunnels().await;
        assert!(rows[0]["ktls"].is_null(), "{rows:?}");
        for direction in ["to_upstream", "to_downstream"] {
            let engine = &rows[0]["engine"][direction];
            assert_eq!((&engine["name"], &engine["reason"]), (&"copy".into(), &reason), "{top}");
        }
        server.send("pong").await;
        server.finish().await;
        client.expect("pong").await;
        assert_eq!(client.read_to_end().await, (Vec::new(), TlsEnd::Closed));
    }
}

/// Why tunnels are copied is told at the start, once, and the proxy serves. Where nobody asked for
/// anything else nothing was tried, and nothing is told.
#[req_test("REQ-EDGE-006", "REQ-TUN-002")]
#[tokio::test]
async fn a_kernel_without_tls_is_told_of_once() {
    const LINE: &str = "tunnels inside TLS are copied";
    let Err(reason) = engine::ktls() else { return };
    let Bed { mut client, mut server, proxy, .. } = open_with_ktls(Way::Tcp).await;
    client.send("ping").await;
    server.expect("ping").await;
    proxy.log_line(&[LINE, &reason]).await;
    assert_eq!(proxy.stderr().matches(LINE).count(), 1);
    let Bed { mut client, mut server, proxy, .. } = open(Way::Tcp).await;
    client.send("ping").await;
    server.expect("ping").await;
    assert!(!proxy.stderr().contains(LINE), "{}", proxy.stderr());
}

/// A FIN alone could have been sent by anybody on the way.
#[req_test("REQ-EDGE-006", "REQ-TUN-001")]
#[tokio::test]
async fn an_end_without_a_word_is_not_passed_on_as_one() {
    for way in Way::ALL {
        let Bed { mut client, mut server, proxy, .. } = open(way).await;
        client.send("half").await;
        let socket = client.0.get_ref().0;
        socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(server.read_to_end().await, (b"half".to_vec(), End::Reset), "{way:?}");
        proxy.log_line(&["tunnel_end=client_reset"]).await;
    }
}

/// One that has been told the other side's end, and has nothing under way, may just close, as many
/// do: it is no reset for the server, which is still there to read.
#[req_test("REQ-EDGE-006", "REQ-TUN-001")]
#[tokio::test]
async fn a_client_that_just_closes_behind_the_servers_end_has_finished() {
    for way in Way::ALL {
        let Bed { mut client, mut server, proxy, .. } = open(way).await;
        client.send("question").await;
        server.expect("question").await;
        server.send("answer").await;
        server.finish().await;
        client.expect("answer").await;
        assert_eq!(client.read_to_end().await, (Vec::new(), TlsEnd::Closed));
        let socket = client.0.get_ref().0;
        socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write).unwrap();
        server.expect_fin().await;
        proxy.log_line(&["tunnel_end=finished"]).await;
    }
}

/// In the middle of a record it has not.
#[req_test("REQ-EDGE-006", "REQ-TUN-001")]
#[tokio::test]
async fn a_record_that_breaks_off_is_no_end() {
    for way in Way::ALL {
        let Bed { mut client, mut server, proxy, .. } = open(way).await;
        server.finish().await;
        assert_eq!(client.read_to_end().await, (Vec::new(), TlsEnd::Closed));
        let mut socket = client.0.get_mut().0;
        // The head of a record and a part of it.
        tokio::io::AsyncWriteExt::write_all(&mut socket, &[23, 3, 3, 0, 100, 1, 2]).await.unwrap();
        socket2::SockRef::from(&*socket).shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(server.expect_end().await, End::Reset, "{way:?}");
        proxy.log_line(&["tunnel_end=client_reset"]).await;
    }
}

/// Nor is a reset of the server a clean end for the client.
#[req_test("REQ-EDGE-006", "REQ-TUN-001")]
#[tokio::test]
async fn a_reset_of_the_server_is_no_end_for_the_client() {
    for way in Way::ALL {
        let Bed { mut client, mut server, proxy, .. } = open(way).await;
        server.send("half").await;
        client.expect("half").await;
        server.reset();
        let (rest, end) = client.read_to_end().await;
        assert!(rest.is_empty() && end != TlsEnd::Closed, "{way:?}: {end:?}");
        proxy.log_line(&["tunnel_end=upstream_reset"]).await;
    }
}

/// On a tcp listener the name of the handshake chooses, and the server gets what is inside.
#[req_test("REQ-EDGE-006", "REQ-TUN-001")]
#[tokio::test]
async fn a_tcp_listener_that_ends_tls_goes_by_the_server_name() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test", "b.test", "c.test"]));
    let (one, two) = (Origin::bind().await, Origin::bind().await);
    let route = |name: &str, server: SocketAddr| {
        format!(
            "[[route]]\nlistener = \"in\"\nsni = \"{name}.test\"\nupstream = \"{name}\"\n\
             [[upstream]]\nname = \"{name}\"\nservers = [\"{server}\"]\n"
        )
    };
    let config = format!(
        "[[listener]]\nname = \"in\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         [listener.tls]\n{}{}{}",
        certificates(&folder, &["site"]),
        route("a", one.addr()),
        route("b", two.addr())
    );
    let proxy = Proxy::config(config).start();
    let client = TlsClient::trusting(&authority);
    for (name, origin) in [("a.test", &one), ("b.test", &two)] {
        let mut connection = client.connect(proxy.listener("in"), name).await;
        connection.send("hello").await;
        let mut server = origin.accept().await;
        server.expect("hello").await;
    }
    let mut unknown = client.connect(proxy.listener("in"), "c.test").await;
    assert!(unknown.read_to_end().await.0.is_empty());
}
