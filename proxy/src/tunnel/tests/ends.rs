//! Tunnels that we end: idle, drain, by hand, dropped. Neither peer takes it for a clean end.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::{config::SpliceMode, tunnel::End};

use super::support::*;

over_every_engine! {
    an_idle_tunnel_is_ended,
    bytes_in_either_direction_keep_a_tunnel,
    a_slow_reader_of_queued_bytes_is_not_idle,
    an_order_ends_that_tunnel_only,
    a_drain_leaves_tunnels_until_it_is_forced,
    bytes_in_the_kernel_arrive_before_the_cut,
    a_dropped_tunnel_leaves_nothing,
}

async fn an_idle_tunnel_is_ended(mode: SpliceMode) {
    let mut setup = Setup::new(mode);
    setup.idle_timeout = Duration::from_millis(50);
    let mut rig = Rig::with(setup).await;
    tokio::join!(read_to_reset(&mut rig.client), read_to_reset(&mut rig.server));
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::IdleTimeout), "{}", outcome.end);
    assert_eq!(rig.registry.len(), 0);
}

async fn bytes_in_either_direction_keep_a_tunnel(mode: SpliceMode) {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let mut setup = Setup::new(mode);
    setup.idle_timeout = TIMEOUT;
    let mut rig = Rig::with(setup).await;
    let started = std::time::Instant::now();
    let mut upwards = true;
    while started.elapsed() < 2 * TIMEOUT {
        let (from, to) = match upwards {
            true => (&mut rig.client, &mut rig.server),
            false => (&mut rig.server, &mut rig.client),
        };
        from.write_all(b"x").await.unwrap();
        expect_in_chunks(to, b"x", 1, 1).await;
        upwards = !upwards;
        tokio::time::sleep(TIMEOUT / 10).await;
    }
    // No byte sets the deadline: a poll or two per byte, none for the clock.
    assert!(rig.polls.get() < 100, "{} polls", rig.polls.get());
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::IdleTimeout), "{}", outcome.end);
}

async fn a_slow_reader_of_queued_bytes_is_not_idle(mode: SpliceMode) {
    const TIMEOUT: Duration = Duration::from_millis(1500);
    let mut setup = Setup::new(mode);
    setup.idle_timeout = TIMEOUT;
    // The tunnel's kernel takes everything at once, the client's only a little.
    setup.downstream.connecting.1 = Some(16 * 1024);
    setup.downstream.accepting.0 = Some(200_000);
    let mut rig = Rig::with(setup).await;
    let bytes = noise(60, 150_000);
    rig.server.write_all(&bytes).await.unwrap();
    while rig.view().bytes.to_downstream < 150_000 {
        tokio::task::yield_now().await;
    }
    // No more bytes for the tunnel to move, and more than two timeouts' worth of reading.
    for chunk in bytes.chunks(bytes.len() / 50) {
        expect_in_chunks(&mut rig.client, chunk, 61, chunk.len()).await;
        tokio::time::sleep(TIMEOUT / 20).await;
    }
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::IdleTimeout), "{}", outcome.end);
}

async fn an_order_ends_that_tunnel_only(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    let mut other = Rig::new(mode).await;
    rig.ping().await;
    assert!(rig.registry.end(rig.id));
    tokio::join!(read_to_reset(&mut rig.client), read_to_reset(&mut rig.server));
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::Deleted), "{}", outcome.end);
    assert!(!rig.registry.end(rig.id));
    other.ping().await;
}

async fn a_drain_leaves_tunnels_until_it_is_forced(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    rig.watchdog.wake_all();
    rig.ping().await;
    rig.watchdog.force();
    let outcome = rig.tunnel.await.unwrap();
    assert!(matches!(outcome.end, End::Drained), "{}", outcome.end);
    tokio::join!(read_to_reset(&mut rig.client), read_to_reset(&mut rig.server));
}

async fn bytes_in_the_kernel_arrive_before_the_cut(mode: SpliceMode) {
    let mut rig = Rig::with(Setup::with_buffers(mode, 32 * 1024)).await;
    let bytes = noise(62, 1 << 20);
    write_until_stalled(&mut rig.server, &bytes).await;
    // The client's kernel has a part of these, the tunnel's still holds the rest.
    let handed_on = usize::try_from(rig.view().bytes.to_downstream).unwrap();
    let polls = rig.polls.get();
    rig.registry.end(rig.id);
    while rig.polls.get() == polls {
        tokio::task::yield_now().await;
    }
    let arrived = read_to_reset(&mut rig.client).await;
    assert!(arrived == bytes[..handed_on], "{} of {handed_on} bytes", arrived.len());
    assert!(matches!(rig.tunnel.await.unwrap().end, End::Deleted));
}

async fn a_dropped_tunnel_leaves_nothing(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    rig.ping().await;
    rig.tunnel.abort();
    assert!(rig.tunnel.await.unwrap_err().is_cancelled());
    assert_eq!(rig.registry.len(), 0);
    // Nor does anybody take that for a clean end.
    read_to_reset(&mut rig.client).await;
    read_to_reset(&mut rig.server).await;
}
