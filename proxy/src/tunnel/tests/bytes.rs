//! What goes in comes out: every byte, in order, both ways, then the end.

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use crate::{
    config::SpliceMode,
    splice::{BUFFER_BYTES, Engine, PIPE_BYTES},
    tunnel::End,
};

use super::support::*;

over_every_engine! {
    an_echo_is_the_same_byte_for_byte,
    an_echo_through_small_socket_buffers_is_the_same,
    early_bytes_go_first,
    early_bytes_of_a_side_that_has_already_ended_arrive,
    a_client_that_has_finished_is_still_answered,
    a_server_that_has_finished_is_still_sent_to,
    a_slow_reader_gets_everything_before_the_end,
    counts_are_exact,
    alternating_bulk_and_messages_keep_order,
}

async fn an_echo_is_the_same_byte_for_byte(mode: SpliceMode) {
    echo(Setup::new(mode), 6 << 20).await;
}

async fn an_echo_through_small_socket_buffers_is_the_same(mode: SpliceMode) {
    echo(Setup::with_buffers(mode, 4096), 1 << 20).await;
}

async fn echo(setup: Setup, length: usize) {
    let rig = Rig::with(setup).await;
    let Rig { client, mut server, tunnel, .. } = rig;
    let sent = noise(1, length);
    let (mut from_tunnel, mut to_tunnel) = client.into_split();
    let echo = async {
        let (mut from, mut to) = server.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let send = async {
        write_in_chunks(&mut to_tunnel, &sent, 2, 200_000).await;
        to_tunnel.shutdown().await.unwrap();
    };
    let receive = async {
        expect_in_chunks(&mut from_tunnel, &sent, 3, 150_000).await;
        expect_end(&mut from_tunnel).await;
    };
    tokio::join!(echo, send, receive);
    let outcome = tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::Finished), "{}", outcome.end);
    assert_eq!((outcome.upstream_bytes, outcome.downstream_bytes), (length as u64, length as u64));
}

async fn early_bytes_go_first(mode: SpliceMode) {
    let early_client = noise(10, 300_000);
    let early_server = noise(11, 3);
    let mut setup = Setup::new(mode);
    setup.client_early = Bytes::from(early_client.clone());
    setup.server_early = Bytes::from(early_server.clone());
    let mut rig = Rig::with(setup).await;
    // In the sockets before the tunnel has run for the first time.
    rig.client.write_all(b"then this").await.unwrap();
    rig.server.write_all(b"then that").await.unwrap();
    expect_in_chunks(&mut rig.server, &early_client, 12, 70_000).await;
    expect_in_chunks(&mut rig.server, b"then this", 13, 9).await;
    expect_in_chunks(&mut rig.client, &early_server, 14, 3).await;
    expect_in_chunks(&mut rig.client, b"then that", 15, 9).await;
    drop((rig.client, rig.server));
    let outcome = rig.tunnel.await.unwrap();
    assert_eq!((outcome.upstream_bytes, outcome.downstream_bytes), (300_009, 12));
}

async fn early_bytes_of_a_side_that_has_already_ended_arrive(mode: SpliceMode) {
    let mut setup = Setup::new(mode);
    setup.client_early = Bytes::from_static(b"all I had to say");
    let mut rig = Rig::with(setup).await;
    rig.client.shutdown().await.unwrap();
    expect_in_chunks(&mut rig.server, b"all I had to say", 1, 16).await;
    expect_end(&mut rig.server).await;
}

async fn a_client_that_has_finished_is_still_answered(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    let (question, answer) = (noise(20, 100_000), noise(21, 1 << 20));
    half_close(&mut rig.client, &mut rig.server, &question).await;
    half_close(&mut rig.server, &mut rig.client, &answer).await;
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::Finished), "{}", outcome.end);
}

async fn a_server_that_has_finished_is_still_sent_to(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    let (greeting, upload) = (noise(22, 100_000), noise(23, 1 << 20));
    half_close(&mut rig.server, &mut rig.client, &greeting).await;
    half_close(&mut rig.client, &mut rig.server, &upload).await;
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::Finished), "{}", outcome.end);
}

/// Sends all from one peer, then its end; sees both at the other.
async fn half_close(
    from: &mut tokio::net::TcpStream,
    to: &mut tokio::net::TcpStream,
    bytes: &[u8],
) {
    let send = async {
        from.write_all(bytes).await.unwrap();
        from.shutdown().await.unwrap();
    };
    let receive = async {
        expect_in_chunks(to, bytes, 24, 50_000).await;
        expect_end(to).await;
    };
    tokio::join!(send, receive);
}

async fn a_slow_reader_gets_everything_before_the_end(mode: SpliceMode) {
    let rig = Rig::with(Setup::with_buffers(mode, 16 * 1024)).await;
    let Rig { mut client, mut server, tunnel, .. } = rig;
    let answer = noise(30, 2 << 20);
    let send = async {
        server.write_all(&answer).await.unwrap();
        // Close, not half-close: the kernel holds the last of it, the process nothing.
        drop(server);
    };
    let receive = async {
        for chunk in answer.chunks(3000) {
            expect_in_chunks(&mut client, chunk, 31, 3000).await;
            tokio::task::yield_now().await;
        }
        expect_end(&mut client).await;
        client.shutdown().await.unwrap();
    };
    tokio::join!(send, receive);
    let outcome = tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::Finished), "{}", outcome.end);
    assert_eq!(outcome.downstream_bytes, 2 << 20);
}

async fn counts_are_exact(mode: SpliceMode) {
    let mut setup = Setup::new(mode);
    setup.client_early = Bytes::from_static(b"early");
    let mut rig = Rig::with(setup).await;
    expect_in_chunks(&mut rig.server, b"early", 1, 5).await;
    assert_eq!(rig.view().bytes.to_upstream, 5);
    let mut expected = (5, 0);
    for length in [1, 100, 70_000] {
        let bytes = noise(length, usize::try_from(length).unwrap());
        rig.client.write_all(&bytes).await.unwrap();
        expect_in_chunks(&mut rig.server, &bytes, 1, 4096).await;
        rig.server.write_all(&bytes[1..]).await.unwrap();
        expect_in_chunks(&mut rig.client, &bytes[1..], 1, 4096).await;
        expected = (expected.0 + length, expected.1 + length - 1);
        let seen = rig.view().bytes;
        assert_eq!((seen.to_upstream, seen.to_downstream), expected);
    }
    assert_eq!(rig.registry.len(), 1);
    drop((rig.client, rig.server));
    let outcome = rig.tunnel.await.unwrap();
    assert_eq!((outcome.upstream_bytes, outcome.downstream_bytes), expected);
    assert_eq!(rig.registry.len(), 0);
}

async fn alternating_bulk_and_messages_keep_order(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    let bulk = noise(40, 8 * BUFFER_BYTES + PIPE_BYTES);
    let mut seen = [false; 2];
    // As long as it takes for the sender to be ahead often enough; once is the rule.
    for round in 0..50 {
        let send = rig.client.write_all(&bulk);
        let receive = expect_in_chunks(&mut rig.server, &bulk, round, 90_000);
        let (sent, ()) = tokio::join!(send, receive);
        sent.unwrap();
        seen[0] |= rig.view().engine.to_upstream.name == Engine::Pipe;
        for _ in 0..20 {
            rig.ping().await;
        }
        seen[1] |= rig.view().engine.to_upstream.name == Engine::Copy;
        if seen == [true; 2] && round >= 3 {
            break;
        }
    }
    match mode {
        SpliceMode::Copy => assert_eq!(seen, [false, true]),
        SpliceMode::Pipe => assert_eq!(seen, [true, false]),
        _ => assert_eq!(seen, [true; 2]),
    }
}
