//! TCP_NODELAY on every TCP socket, inbound and outbound, HTTP and tunnel.

use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Version, eventually, process::nodelay_of_connections,
    tunnel::Way,
};

#[req_test("REQ-CORE-001.F-001")]
#[tokio::test]
async fn every_connection_has_nodelay() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut h1 = proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut server_of_h1 = origin.accept().await;
    server_of_h1.read_head().await;
    let mut h2 = HttpClient::connect(proxy.addr(), Version::H2).await;
    let request = h2.request(http::Method::GET, "/").body(OutBody::Empty).unwrap();
    let answer = h2.send(request);
    let mut server_of_h2 = origin.accept().await;
    server_of_h2.read_head().await;
    let mut upgraded = proxy.open(Way::Upgrade.request(&origin)).await;
    let _server = Way::Upgrade.accept(&origin).await;
    Way::Upgrade.opened(&mut upgraded).await;

    let found = nodelay_of_connections(proxy.pid());
    assert_eq!(found.len(), 6, "three clients, three servers: {found:?}");
    assert!(found.iter().all(|&nodelay| nodelay), "{found:?}");
    drop(answer);
    server_of_h1.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    h1.expect_status(200).await;

    let tcp = Proxy::tcp(origin.addr()).start();
    let _client = tcp.connect().await;
    let _server_of_tcp = origin.accept().await;
    tcp.until_tunnels(1).await;
    // The connection that asked for the table is on its way out.
    eventually("the tunnel's connections to be left", async || {
        nodelay_of_connections(tcp.pid()).len() == 2
    })
    .await;
    assert_eq!(nodelay_of_connections(tcp.pid()), [true, true]);

    let forward = Proxy::forward().start();
    let mut client = forward.open(Way::Connect.request(&origin)).await;
    let _server = origin.accept().await;
    Way::Connect.opened(&mut client).await;
    assert_eq!(nodelay_of_connections(forward.pid()), [true, true]);
}
