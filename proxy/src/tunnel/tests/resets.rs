//! A reset stays a reset, and comes after the bytes that came before it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{config::SpliceMode, splice::socket::unacknowledged, tunnel::End};

use super::support::*;

over_every_engine! {
    a_client_reset_reaches_the_server,
    a_server_reset_reaches_the_client,
    a_reset_behind_bytes_comes_behind_them,
    a_reset_is_noticed_while_the_other_side_stalls,
    a_reset_after_a_half_close_is_passed_on,
    writing_to_a_side_that_is_gone_is_a_reset,
}

async fn a_client_reset_reaches_the_server(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    rig.ping().await;
    reset(rig.client);
    assert_eq!(read_to_reset(&mut rig.server).await, b"");
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::ClientReset), "{}", outcome.end);
}

async fn a_server_reset_reaches_the_client(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    rig.ping().await;
    reset(rig.server);
    assert_eq!(read_to_reset(&mut rig.client).await, b"");
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::UpstreamReset), "{}", outcome.end);
}

async fn a_reset_behind_bytes_comes_behind_them(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    let last_words = noise(50, 60_000);
    rig.server.write_all(&last_words).await.unwrap();
    while unacknowledged(&rig.server).unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    // The tunnel's kernel has them all, the tunnel perhaps not yet.
    reset(rig.server);
    assert!(read_to_reset(&mut rig.client).await == last_words);
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::UpstreamReset), "{}", outcome.end);
    assert_eq!(outcome.downstream_bytes, 60_000);
}

async fn a_reset_is_noticed_while_the_other_side_stalls(mode: SpliceMode) {
    let mut rig = Rig::with(Setup::with_buffers(mode, 16 * 1024)).await;
    let flood = noise(51, 8 << 20);
    let taken = write_until_stalled(&mut rig.server, &flood).await;
    assert!(taken < flood.len());
    // What the tunnel's kernel has acknowledged is the tunnel's to deliver.
    let due = taken - unacknowledged(&rig.server).unwrap();
    let polls = rig.polls.get();
    reset(rig.server);
    // Nobody reads or writes on the server's side of the tunnel now; the reset must wake it.
    while rig.polls.get() == polls {
        tokio::task::yield_now().await;
    }
    let arrived = read_to_reset(&mut rig.client).await;
    assert!(arrived == flood[..arrived.len()], "wrong bytes");
    assert!(arrived.len() >= due, "{} of {due} bytes", arrived.len());
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::UpstreamReset), "{}", outcome.end);
}

async fn a_reset_after_a_half_close_is_passed_on(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    rig.client.shutdown().await.unwrap();
    expect_end(&mut rig.server).await;
    rig.server.write_all(b"half an ans").await.unwrap();
    assert_eq!(rig.client.read_exact(&mut [0; 11]).await.unwrap(), 11);
    reset(rig.server);
    assert_eq!(read_to_reset(&mut rig.client).await, b"");
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::UpstreamReset), "{}", outcome.end);
}

async fn writing_to_a_side_that_is_gone_is_a_reset(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    rig.ping().await;
    drop(rig.server);
    // A FIN: the server may still be listening for all that anybody can tell.
    expect_end(&mut rig.client).await;
    // It is not, and its kernel says so to the first byte. The client has had its FIN and
    // so learns of the reset by writing (tcp(7): EPIPE after a FIN was received).
    let bytes = noise(52, 1 << 20);
    let error = loop {
        if let Err(error) = rig.client.write_all(&bytes).await {
            break error;
        }
    };
    assert!(
        matches!(
            error.kind(),
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
        ),
        "{error}"
    );
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::UpstreamReset), "{}", outcome.end);
}
