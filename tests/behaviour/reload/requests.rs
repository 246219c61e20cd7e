//! What a reload means for requests and tunnels on connections that are open.

use http::Method;
use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Served, Version, Wire, collect, over_versions, tunnel::Way,
};

use super::{ANY, GET, answers, head, listener, route};

over_versions!(
    the_next_request_on_a_kept_connection_goes_by_the_new_routes,
    a_request_under_way_is_finished_by_the_old_ones
);

fn web(server: &Served) -> String {
    head("workers = 2") + &listener("web", ANY, "") + &route("one", server.addr(), "")
}

async fn content(client: &mut HttpClient) -> Vec<u8> {
    collect(client.get("/").await.into_body()).await.unwrap().0
}

async fn the_next_request_on_a_kept_connection_goes_by_the_new_routes(version: Version) {
    let (first, second) = (answers("first").await, answers("second").await);
    let mut proxy = Proxy::config(web(&first)).start();
    let mut client = HttpClient::connect(proxy.listener("web"), version).await;
    assert_eq!(content(&mut client).await, b"first");
    proxy.reload(&web(&second)).await;
    assert_eq!(content(&mut client).await, b"second");
    let shown = proxy.ask_admin("GET", "/config").await.text();
    assert!(shown.contains(&second.addr().to_string()), "{shown}");
    // A route by host instead: whoever asks for another one is told so.
    let other = head("workers = 2")
        + &listener("web", ANY, "")
        + &route("one", first.addr(), "host = \"other.test\"");
    proxy.reload(&other).await;
    assert_eq!(client.get("/").await.status(), 404);
    assert_eq!(proxy.reloads().await, [2.0, 0.0]);
}

async fn a_request_under_way_is_finished_by_the_old_ones(version: Version) {
    let origin = Origin::bind().await;
    let second = answers("second").await;
    let mut proxy =
        Proxy::config(head("") + &listener("web", ANY, "") + &route("one", origin.addr(), ""))
            .start();
    let mut client = HttpClient::connect(proxy.listener("web"), version).await;
    let (body, out) = OutBody::pieces();
    let answer = client.send(client.request(Method::POST, "/").body(out).unwrap());
    let mut server = origin.accept().await;
    let mut upload = server.read_head().await.request_body();
    body.send("before").await;
    upload.expect(&mut server, "before").await;

    proxy.reload(&web(&second)).await;
    body.send("after").await;
    drop(body);
    assert_eq!(upload.finish(&mut server).await, b"after");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfini").await;
    let answer = answer.await.unwrap();
    server.send("shed").await;
    assert_eq!(collect(answer.into_body()).await.unwrap().0, b"finished");
    assert_eq!(content(&mut client).await, b"second");
}

/// Their route is gone, their upstream, and even their listener.
#[req_test("REQ-EDGE-008", "REQ-TUN-005")]
#[tokio::test]
async fn open_tunnels_go_on_whatever_becomes_of_their_route() {
    let origin = Origin::bind().await;
    let target = origin.addr();
    let all = head("")
        + &listener("web", ANY, "")
        + &listener("out", ANY, "protocol = \"forward\"")
        + &listener("raw", ANY, "protocol = \"tcp\"")
        + &route("up", target, "listener = \"web\"")
        + &route("tcp", target, "listener = \"raw\"");
    let mut proxy = Proxy::config(all).start();
    let mut tunnels = Vec::new();
    for (way, name) in Way::ALL.into_iter().zip(["web", "out", "raw"]) {
        let mut client = Wire::open(proxy.listener(name), way.request_to(target)).await;
        let server = way.accept(&origin).await;
        way.opened(&mut client).await;
        tunnels.push((client, server));
    }
    let other = answers("other").await;
    // Another upstream, a forward proxy that would not serve this client, and no tcp listener.
    let others = head("")
        + &listener("web", ANY, "")
        + &listener("out", ANY, "protocol = \"forward\"\nforward = { users = [\"a:b\"] }")
        + &route("elsewhere", other.addr(), "");
    proxy.reload(&others).await;
    for (client, server) in &mut tunnels {
        client.send("there").await;
        server.expect("there").await;
        server.send("and back").await;
        client.expect("and back").await;
    }
    proxy.until_tunnels(3).await;
    drop(tunnels);
    proxy.until_tunnels(0).await;
    Wire::open(proxy.listener("web"), GET).await.expect_status(200).await;
}

/// Of a forward listener the rules in force hold for every request, not those of when the
/// client connected.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn rules_of_a_forward_listener_hold_for_the_next_request() {
    let origin = answers("reached").await;
    let target = origin.addr();
    let request = format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let text = |rules: &str| {
        head("")
            + &listener("out", ANY, &format!("protocol = \"forward\"\nforward = {{ {rules} }}"))
    };
    let mut proxy = Proxy::config(text("")).start();
    let mut client = Wire::open(proxy.listener("out"), &request).await;
    client.expect_status(200).await;
    proxy.reload(&text("users = [\"name:password\"]")).await;
    client.send(&request).await;
    client.expect_status(407).await;
    // Not even over a connection to the server that was made under the old rules.
    let port = target.port();
    proxy.reload(&text(&format!("deny_ports = [{port}]"))).await;
    let mut client = Wire::open(proxy.listener("out"), &request).await;
    client.expect_status(403).await;
}

/// A listener that is gone takes no one new, and its connections end with their next answer.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn connections_of_a_removed_listener_end_with_their_next_answer() {
    let (old, new) = (answers("old").await, answers("new").await);
    let web = head("workers = 2") + &listener("web", ANY, "");
    let both = web.clone() + &listener("gone", ANY, "") + &route("old", old.addr(), "");
    let mut proxy = Proxy::config(both).start();
    let address = proxy.listener("gone");
    let mut kept = Wire::open(address, GET).await;
    kept.expect_status(200).await;
    let mut h2 = HttpClient::connect(address, Version::H2).await;
    assert_eq!(content(&mut h2).await, b"old");
    proxy.reload(&(web + &route("new", new.addr(), ""))).await;
    // The reload is over when the sockets are closed.
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it still listens");
    // Nothing of it is served by a configuration that does not know it.
    kept.send(GET).await;
    let answer = kept.expect_status(200).await;
    assert_eq!((answer.text().as_str(), answer.head.get("connection")), ("old", Some("close")));
    kept.expect_fin().await;
    h2.closed().await;
    let mut web = Wire::open(proxy.listener("web"), GET).await;
    assert_eq!(web.expect_status(200).await.text(), "new");
}

#[tokio::test]
async fn without_a_file_there_is_nothing_to_reload() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    proxy.signal(Signal::HUP);
    proxy.log_line(&["WARN", "nothing to reload"]).await;
    assert_eq!(proxy.reloads().await, [0.0, 0.0]);
    proxy.open(GET).await.expect_status(200).await;
}

/// Connections to a server that stays are used on, and those to one that is gone are closed.
#[req_test("REQ-EDGE-008", "REQ-EDGE-002")]
#[tokio::test]
async fn pools_of_servers_that_stay_are_kept() {
    let (stays, goes) = (answers("stays").await, answers("goes").await);
    let both = |keys: &str| {
        head("workers = 1")
            + &listener("web", ANY, keys)
            + "[[route]]\nupstream = \"one\"\n[[upstream]]\nname = \"one\"\n"
    };
    let servers = |list: &[&Served]| {
        let list: Vec<_> = list.iter().map(|server| format!("\"{}\"", server.addr())).collect();
        format!("servers = [{}]\n", list.join(", "))
    };
    let mut proxy = Proxy::config(both("") + &servers(&[&stays, &goes])).start();
    let mut client = Wire::open(proxy.listener("web"), GET).await;
    client.expect_status(200).await;
    client.send(GET).await;
    client.expect_status(200).await;
    assert_eq!((stays.connections(), goes.connections()), (1, 1));
    for turn in 0..3 {
        // Something else changes each time.
        let keys = format!("limits = {{ idle_timeout = \"{}m\" }}", turn + 1);
        proxy.reload(&(both(&keys) + &servers(&[&stays]))).await;
        client.send(GET).await;
        assert_eq!(client.expect_status(200).await.text(), "stays");
    }
    assert_eq!(stays.connections(), 1);
    goes.deserted().await;
}
