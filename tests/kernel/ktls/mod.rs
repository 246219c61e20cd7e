//! Tunnels inside TLS whose keys the kernel has: the law of tunnels, with close_notify for the
//! end. The peers are rustls', which knows nothing of that.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    time::Duration,
};

use mantra_macros::req_test;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use underpass_tests::{
    Engine,
    engine::has_ktls,
    pattern,
    tls::{Secured, TlsEnd},
};

use rig::{Plan, Rig, expect_break, expect_end, receive, send};

mod rig;

const MEGABYTE: u64 = 1 << 20;

/// Which sides have TLS: the client's, the server's.
const LEGS: [[bool; 2]; 3] = [[true, false], [false, true], [true, true]];

/// Big and small pieces both ways at once, and an end of each direction by itself.
async fn both_ways(rig: &Rig, bytes: u64) {
    let (mut client, mut server) = rig.open().await;
    rig.until_taken_over().await;
    {
        let (mut from_client, mut to_client) = tokio::io::split(&mut client);
        let (mut from_server, mut to_server) = tokio::io::split(&mut server);
        tokio::join!(
            send(&mut to_client, 0, bytes, 1),
            receive(&mut from_server, 0, bytes, 2),
            send(&mut to_server, 0, bytes, 3),
            receive(&mut from_client, 0, bytes, 4),
        );
    }
    client.shutdown().await.unwrap();
    expect_end(&mut server).await;
    // The other direction goes on.
    tokio::join!(send(&mut server, bytes, bytes, 5), receive(&mut client, bytes, bytes, 6));
    server.shutdown().await.unwrap();
    expect_end(&mut client).await;
    rig.proxy.log_line(&["tunnel_end=finished"]).await;
    rig.proxy.until_tunnels(0).await;
}

#[req_test("REQ-EDGE-006", "REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_goes_through_with_each_suite() {
    if !has_ktls() {
        return;
    }
    let (new, old) = (&rustls::version::TLS13, &rustls::version::TLS12);
    for suite in [
        (new, "TLS_AES_128_GCM_SHA256"),
        (new, "TLS_AES_256_GCM_SHA384"),
        (new, "TLS_CHACHA20_POLY1305_SHA256"),
        (old, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        (old, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (old, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ] {
        println!("{suite:?}");
        // A proxy that loads no programs is there at once.
        let mut plan = Plan::new([true, false], Engine::Pipe);
        plan.suite = Some(suite);
        both_ways(&Rig::new(plan).await, MEGABYTE / 2).await;
    }
}

#[req_test("REQ-EDGE-006", "REQ-TUN-001", "REQ-TUN-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_goes_through_on_each_side_by_each_engine() {
    if !has_ktls() {
        return;
    }
    for legs in LEGS {
        for engine in [Engine::Auto, Engine::Pipe] {
            println!("{legs:?}, {engine}");
            both_ways(&Rig::new(Plan::new(legs, engine)).await, MEGABYTE).await;
        }
    }
}

/// With `pipe` there is nothing else that could have moved them.
#[req_test("REQ-EDGE-006", "REQ-TUN-002", "REQ-TUN-004")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splice_moves_the_bytes_and_the_table_says_so() {
    if !has_ktls() {
        return;
    }
    let rig = Rig::new(Plan::new([true, false], Engine::Pipe)).await;
    let (mut client, mut server) = rig.open().await;
    rig.until_taken_over().await;
    for round in 0..20 {
        tokio::join!(
            send(&mut client, round * 50_000, 50_000, round),
            receive(&mut server, round * 50_000, 50_000, round)
        );
        tokio::join!(
            send(&mut server, round * 10, 10, round),
            receive(&mut client, round * 10, 10, round)
        );
    }
    let tunnels = rig.proxy.tunnels().await;
    for direction in ["to_upstream", "to_downstream"] {
        let engine = &tunnels[0]["engine"][direction];
        assert_eq!(engine["name"], "pipe", "{tunnels:?}");
        assert!(engine["reason"].is_null(), "{tunnels:?}");
    }
    assert_eq!(tunnels[0]["bytes"]["to_upstream"], 1_000_000);
    client.shutdown().await.unwrap();
    server.shutdown().await.unwrap();
    rig.proxy.log_line(&["tunnel_end=finished", "engine_up=pipe", "engine_down=pipe"]).await;
    let metrics = rig.proxy.metrics().await;
    let piped = metrics.sum("underpass_tunnel_bytes_total", &[("engine", "pipe")]);
    assert_eq!(piped, 1_000_200.0);
}

/// What a slow reader has no room for waits in the kernel as records, which are not to be
/// forgotten when the direction ends.
#[req_test("REQ-EDGE-006", "REQ-TUN-001", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_comes_behind_megabytes_for_a_slow_reader() {
    if !has_ktls() {
        return;
    }
    for (legs, engine) in [
        ([true, false], Engine::Auto),
        ([true, false], Engine::Pipe),
        ([false, true], Engine::Pipe),
        ([true, true], Engine::Auto),
    ] {
        println!("{legs:?}, {engine}");
        let mut plan = Plan::new(legs, engine);
        plan.narrow = true;
        let rig = Rig::new(plan).await;
        let (mut client, mut server) = rig.open().await;
        rig.until_taken_over().await;
        slow_reader(&mut server, &mut client).await;
        slow_reader(&mut client, &mut server).await;
        rig.proxy.log_line(&["tunnel_end=finished"]).await;
    }
}

async fn slow_reader(from: &mut Box<dyn rig::Io>, to: &mut Box<dyn rig::Io>) {
    let mut sent = 0;
    while sent < 20 * MEGABYTE {
        let piece = pattern::at(sent, 20_000);
        match tokio::time::timeout(underpass_tests::clock::STALL, from.write(piece)).await {
            Ok(written) => sent += written.unwrap() as u64,
            Err(_) => break,
        }
    }
    assert!(sent > 100_000, "only {sent} bytes were taken");
    let slowly = async {
        let mut got = 0;
        while got < sent {
            let piece = (sent / 20).min(sent - got);
            receive(to, got, piece, got).await;
            got += piece;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        expect_end(to).await;
    };
    let ((), end) = tokio::join!(slowly, from.shutdown());
    end.unwrap();
}

/// The kernel begins with a whole record; the session has read a part of one.
#[req_test("REQ-EDGE-006", "REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_half_there_at_the_hand_over_is_whole_behind_it() {
    if !has_ktls() {
        return;
    }
    const FIRST: usize = 40_000;
    let rig = Rig::new(Plan::new([true, false], Engine::Auto)).await;
    // All of the last record is missing, its head in part, its payload in part.
    for missing in [1, 100, 7_000, 7_225, 7_226, 7_229, 10_000] {
        println!("{missing} bytes later");
        let mut session = rig.tls_client().session("test");
        let mut socket = rig.connect().await.into_std().unwrap();
        socket.set_nonblocking(false).unwrap();
        let (mut session, mut socket, rest) = tokio::task::spawn_blocking(move || {
            while session.is_handshaking() {
                while session.wants_write() {
                    session.write_tls(&mut socket).unwrap();
                }
                session.read_tls(&mut socket).unwrap();
                session.process_new_packets().unwrap();
            }
            // Behind our Finished, in one segment with it.
            session.writer().write_all(&pattern::bytes(FIRST)).unwrap();
            let mut bytes = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut bytes).unwrap();
            }
            let rest = bytes.split_off(bytes.len() - missing);
            socket.write_all(&bytes).unwrap();
            (session, socket, rest)
        })
        .await
        .unwrap();
        let mut server = rig.accept().await;
        rig.proxy.until_tunnels(1).await;
        // A direction does not wait for the other.
        server.write_all(b"hello").await.unwrap();
        receive(&mut server, 0, 16_384, 1).await;
        let talk = tokio::task::spawn_blocking(move || {
            let mut hello = [0; 5];
            let mut got = 0;
            while got < hello.len() {
                session.read_tls(&mut socket).unwrap();
                session.process_new_packets().unwrap();
                got += session.reader().read(&mut hello[got..]).unwrap_or(0);
            }
            assert_eq!(&hello, b"hello");
            socket.write_all(&rest).unwrap();
            (session, socket)
        });
        let (mut session, mut socket) = talk.await.unwrap();
        receive(&mut server, 16_384, FIRST as u64 - 16_384, 2).await;
        rig.until_taken_over().await;
        let talk = tokio::task::spawn_blocking(move || {
            session.writer().write_all(&pattern::bytes(FIRST)).unwrap();
            session.send_close_notify();
            while session.wants_write() {
                session.write_tls(&mut socket).unwrap();
            }
            (session, socket)
        });
        receive(&mut server, 0, FIRST as u64, 3).await;
        expect_end(&mut server).await;
        server.shutdown().await.unwrap();
        drop(talk.await.unwrap());
        rig.proxy.until_tunnels(0).await;
    }
}

async fn secured(rig: &Rig) -> (Secured, Box<dyn rig::Io>) {
    let (stream, client) = (rig.connect().await, rig.tls_client());
    let (client, server) = tokio::join!(client.over(stream, "test"), rig.accept());
    rig.until_taken_over().await;
    (client.unwrap(), server)
}

fn cut(client: &Secured) {
    socket2::SockRef::from(client.0.get_ref().0).shutdown(Shutdown::Write).unwrap();
}

/// A FIN alone could have been sent by anybody on the way.
#[req_test("REQ-EDGE-006", "REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_without_a_word_is_not_passed_on_as_one() {
    if !has_ktls() {
        return;
    }
    for engine in [Engine::Auto, Engine::Pipe] {
        let rig = Rig::new(Plan::new([true, false], engine)).await;
        let (mut client, mut server) = secured(&rig).await;
        client.send("half").await;
        let mut half = [0; 4];
        server.read_exact(&mut half).await.unwrap();
        cut(&client);
        expect_break(&mut server).await;
        rig.proxy.log_line(&["tunnel_end=client_reset"]).await;
    }
}

/// Even if it knows of the other side's end: whether it is within a record the kernel does not tell.
#[req_test("REQ-EDGE-006", "REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_just_closes_behind_the_servers_end_has_not_finished() {
    if !has_ktls() {
        return;
    }
    for whole in [true, false] {
        let rig = Rig::new(Plan::new([true, false], Engine::Pipe)).await;
        let (mut client, mut server) = secured(&rig).await;
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(client.read_to_end().await, (b"answer".to_vec(), TlsEnd::Closed));
        if !whole {
            let mut socket = client.0.get_mut().0;
            AsyncWriteExt::write_all(&mut socket, &[23, 3, 3, 0, 100, 1, 2]).await.unwrap();
        }
        cut(&client);
        expect_break(&mut server).await;
        rig.proxy.log_line(&["tunnel_end=client_reset"]).await;
    }
}

/// Neither a reset of the server nor a tunnel that is ended by hand is a clean end.
#[req_test("REQ-EDGE-006", "REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_breaks_has_no_end_for_the_client() {
    if !has_ktls() {
        return;
    }
    for by_hand in [true, false] {
        let rig = Rig::new(Plan::new([true, false], Engine::Pipe)).await;
        let (stream, client) = (rig.connect().await, rig.tls_client());
        let (client, mut server) = tokio::join!(client.over(stream, "test"), rig.origin.accept());
        let mut client = client.unwrap();
        rig.until_taken_over().await;
        server.send("half").await;
        client.expect("half").await;
        if by_hand {
            let id = rig.proxy.tunnels().await[0]["id"].clone();
            rig.proxy.ask_admin("DELETE", &format!("/tunnels/{id}")).await;
        } else {
            server.reset();
        }
        let (rest, end) = client.read_to_end().await;
        assert!(rest.is_empty() && end != TlsEnd::Closed, "{end:?}");
    }
}

/// The kernel could not read what comes behind: the tunnel ends, with what came before whole, and
/// the log says why.
#[req_test("REQ-EDGE-006", "REQ-TUN-001")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_keys_ends_the_tunnel_with_a_reason() {
    if !has_ktls() {
        return;
    }
    for engine in [Engine::Auto, Engine::Pipe] {
        let rig = Rig::new(Plan::new([true, false], engine)).await;
        let (mut client, mut server) = secured(&rig).await;
        send(&mut client.0, 0, 100_000, 1).await;
        client.0.get_mut().1.refresh_traffic_keys().unwrap();
        client.send("with other keys").await;
        receive(&mut server, 0, 100_000, 2).await;
        expect_break(&mut server).await;
        rig.proxy.log_line(&["tunnel_end=downstream_error"]).await;
        rig.proxy.log_line(&["keys were changed"]).await;
    }
}

/// A reader that does not read holds the sender back, and what the proxy and its kernel hold for it
/// is bounded.
#[req_test("REQ-EDGE-006", "REQ-TUN-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_stops_the_server() {
    if !has_ktls() {
        return;
    }
    let rig = Rig::new(Plan::new([true, false], Engine::Pipe)).await;
    let (client, server) = tokio::join!(
        async {
            let stream = rig.connect().await;
            rig.tls_client().over(stream, "test").await.unwrap()
        },
        rig.origin.accept()
    );
    let mut server = server;
    rig.until_taken_over().await;
    let sent = server.send_until_stalled(0, 64 * MEGABYTE).await;
    assert!(sent < 40 * MEGABYTE, "{sent} bytes were taken");
    drop(client);
}
