//! Real applications as the ends of tunnels: whatever an application asks of its socket, it
//! gets every byte, in time, and the end.
//!
//! As the server it is met by a client on this host and by one elsewhere; as the client it
//! asks the proxy for the tunnel itself. The test is the other end, and knows every byte.

use std::net::SocketAddr;

use mantra_macros::req_test;
use underpass_tests::{
    Bed, Engine, Nginx, Proxy, Wire,
    apps::{
        Kind, Program,
        own::{self, Echo},
    },
    bed::Topology,
    curl::{curl, peer},
    over_all_engines, pattern,
    tunnel::Way,
};

over_all_engines!(
    plain_reads,
    epoll_by_edges,
    reads_of_what_fionread_says,
    splice_from_the_socket,
    node,
    python,
    java,
    nginx_behind_a_tunnel,
);

const MEGABYTE: u64 = 1 << 20;

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn plain_reads(engine: Engine) {
    own_ends(engine, own::blocking).await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn epoll_by_edges(engine: Engine) {
    own_ends(engine, own::edge_triggered).await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn reads_of_what_fionread_says(engine: Engine) {
    own_ends(engine, own::sized_reads).await;
}

/// An application that does so must not be enrolled; local bypass is off unless asked for
/// because of this. Where it is asked for all the same, the tunnel may stand still, but it
/// is seen, and it can be ended.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn splice_from_the_socket(engine: Engine) {
    if engine != Engine::Bypass {
        return own_ends(engine, own::splicing).await;
    }
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let (address, _thread) = own::serve(own::splicing);
    let (mut client, proxy) = open(engine, &bed, address).await;
    client.send(pattern::bytes(1000)).await;
    let id = proxy.tunnels().await[0]["id"].to_string();
    let answer = proxy.ask_admin("DELETE", &format!("/tunnels/{id}")).await;
    assert!((200..300).contains(&answer.status()), "{}", answer.head.start);
    client.read_to_end().await;
    proxy.until_tunnels(0).await;
    // Others are served as before.
    let (address, thread) = own::serve(own::blocking);
    let mut client = proxy.open(Way::Connect.request_to(address)).await;
    Way::Connect.opened(&mut client).await;
    converse(&mut client).await;
    thread.join().unwrap().unwrap();
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn node(engine: Engine) {
    program(engine, Kind::Node).await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn python(engine: Engine) {
    program(engine, Kind::Python).await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn java(engine: Engine) {
    program(engine, Kind::Java).await;
}

/// Small and large answers on one kept connection, requests in batches, bodies that it
/// throws away.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn nginx_behind_a_tunnel(engine: Engine) {
    let (small, large) = (pattern::bytes(100), pattern::bytes(20 << 20));
    let files: [(&str, &[u8]); 2] = [("small", &small), ("large", &large)];
    let Some(nginx) = Nginx::serve(&files) else { return };
    for bed in server_beds() {
        let (mut client, proxy) = open(engine, &bed, nginx.addr()).await;
        let get = |name: &str| format!("GET /{name} HTTP/1.1\r\nHost: test\r\n\r\n");
        for _ in 0..200 {
            client.send(get("small")).await;
            assert!(client.expect_status(200).await.body == small);
        }
        client.send(get("small").repeat(30)).await;
        for _ in 0..30 {
            assert!(client.expect_status(200).await.body == small);
        }
        for size in [1, 10_000, 900_000] {
            let head =
                format!("POST /echo-host HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
            client.send(head).await;
            client.send_rest(0, size).await;
            assert_eq!(client.expect_status(200).await.text(), "x\n");
        }
        client.send(get("large")).await;
        client.send(get("small")).await;
        assert!(client.expect_status(200).await.body == large, "not the file");
        assert!(client.expect_status(200).await.body == small);
        drop(client);
        proxy.until_tunnels(0).await;
    }
    // curl as the client, with nginx as the server: two applications that know nothing.
    if peer("curl") {
        let proxy = Proxy::forward().splice(engine).start();
        let (through, url) =
            (format!("http://{}", proxy.addr()), format!("http://{}/large", nginx.addr()));
        let curled = curl(&["-s", "--proxytunnel", "-x", &through, &url, &url]).await;
        assert_eq!(curled.code, 0, "{}", curled.stderr);
        assert!(curled.stdout == [&large[..], &large[..]].concat(), "not the file, twice");
    }
}

/// Places of the client, where the server is an application on this host.
fn server_beds() -> Vec<Bed> {
    [Topology::V4, Topology::RemoteClient].into_iter().filter_map(Bed::here).collect()
}

/// A tunnel to an application that listens, moved by its engine.
async fn open(engine: Engine, bed: &Bed, server: SocketAddr) -> (Wire, Proxy) {
    println!("{engine}, {bed}");
    let proxy = Proxy::forward().splice(engine).listen(bed.listen()).start();
    let mut client = bed.connect(proxy.addr(), None).await;
    client.send(Way::Connect.request_to(server)).await;
    Way::Connect.opened(&mut client).await;
    settled(engine, bed, &proxy).await;
    (client, proxy)
}

/// Local bypass leaves out what uses its socket in blocking mode, so it is not waited for
/// here: whoever is at the ends, the bytes have to be right.
async fn settled(engine: Engine, bed: &Bed, proxy: &Proxy) {
    match engine {
        Engine::Bypass => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        _ => bed.settled(engine, proxy).await,
    }
}

async fn own_ends(engine: Engine, echo: Echo) {
    for bed in server_beds() {
        let (address, thread) = own::serve(echo);
        let (mut client, proxy) = open(engine, &bed, address).await;
        converse(&mut client).await;
        thread.join().unwrap().unwrap();
        proxy.until_tunnels(0).await;
    }
    let Some(bed) = Bed::here(Topology::V4) else { return };
    let proxy = Proxy::forward().splice(engine).start();
    let origin = bed.origin(None);
    let thread = own::connect(echo, proxy.addr(), origin.addr());
    let mut server = origin.accept().await;
    settled(engine, &bed, &proxy).await;
    converse(&mut server).await;
    thread.join().unwrap().unwrap();
}

async fn program(engine: Engine, kind: Kind) {
    let Some(mut program) = Program::start(kind) else { return };
    for mode in kind.modes() {
        println!("{mode}");
        for bed in server_beds() {
            let (mut client, proxy) = open(engine, &bed, program.addr(mode)).await;
            converse(&mut client).await;
            proxy.until_tunnels(0).await;
        }
        let Some(bed) = Bed::here(Topology::V4) else { return };
        let proxy = Proxy::forward().splice(engine).start();
        let origin = bed.origin(None);
        program.connect(mode, proxy.addr(), origin.addr());
        let mut server = origin.accept().await;
        settled(engine, &bed, &proxy).await;
        converse(&mut server).await;
    }
}

/// Speaks with an application that sends back what it reads: in turns, in bursts with
/// silences between them, and both ways at once; then ends, and is followed.
async fn converse(end: &mut Wire) {
    let mut at = 0;
    for size in [1, 2, 100, 1, 5000, 70_000, 1, 300_000, 1].into_iter().chain([3; 50]) {
        end.exchange_stretch(at..at + size, false, at..at + size).await;
        at += size;
    }
    for round in 0..20 {
        // A silence, so that what the application finds is neither steady nor complete.
        tokio::time::sleep(std::time::Duration::from_millis(round % 4)).await;
        let size = 1 << round;
        end.exchange_stretch(at..at + size, false, at..at + size).await;
        at += size;
    }
    end.exchange_stretch(at..at + 6 * MEGABYTE, true, at..at + 6 * MEGABYTE).await;
    end.expect_fin().await;
}
