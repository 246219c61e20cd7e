//! What a tunnel may hold, for how long, and how often it may wake.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::{
    config::SpliceMode,
    splice::{BUFFER_BYTES, Engine, PIPE_BYTES, buffers_in_use, pipe_pool},
    tunnel::End,
};

use super::support::*;

over_every_engine! {
    a_stalled_client_stops_the_server,
    a_stalled_server_stops_the_client,
    an_idle_tunnel_holds_neither_buffer_nor_pipe,
    a_tunnel_cut_in_mid_flow_spoils_no_other,
    a_side_that_has_ended_wakes_nobody,
    without_pipes_everything_is_copied,
}

const SOCKET_BUFFER: u32 = 32 * 1024;

/// The kernel grants twice what is asked for (socket(7)); on the way are four buffers, and
/// of the tunnel one container.
const MOST: usize = 4 * 2 * SOCKET_BUFFER as usize
    + if PIPE_BYTES > BUFFER_BYTES { PIPE_BYTES } else { BUFFER_BYTES };

async fn a_stalled_client_stops_the_server(mode: SpliceMode) {
    let rig = Rig::with(Setup::with_buffers(mode, SOCKET_BUFFER)).await;
    let Rig { mut client, mut server, .. } = rig;
    stall_and_recover(&mut server, &mut client).await;
}

async fn a_stalled_server_stops_the_client(mode: SpliceMode) {
    let rig = Rig::with(Setup::with_buffers(mode, SOCKET_BUFFER)).await;
    let Rig { mut client, mut server, .. } = rig;
    stall_and_recover(&mut client, &mut server).await;
}

async fn stall_and_recover(from: &mut tokio::net::TcpStream, to: &mut tokio::net::TcpStream) {
    let flood = noise(70, 4 << 20);
    let taken = write_until_stalled(from, &flood).await;
    assert!(taken <= MOST, "{taken} bytes accepted, {MOST} at most are accounted for");
    assert!(buffers_in_use() <= 1);
    let usage = pipe_pool::usage();
    assert!(usage.open - usage.idle <= 1);
    let send = from.write_all(&flood[taken..]);
    let (sent, ()) = tokio::join!(send, expect_in_chunks(to, &flood, 71, 100_000));
    sent.unwrap();
}

async fn an_idle_tunnel_holds_neither_buffer_nor_pipe(mode: SpliceMode) {
    let mut rig = Rig::new(mode).await;
    for _ in 0..3 {
        rig.ping().await;
        nothing_is_held();
    }
    let bulk = noise(72, 2 << 20);
    let (sent, ()) = tokio::join!(
        rig.client.write_all(&bulk),
        expect_in_chunks(&mut rig.server, &bulk, 73, 100_000)
    );
    sent.unwrap();
    rig.ping().await;
    nothing_is_held();
    if mode == SpliceMode::Pipe {
        assert!(pipe_pool::usage().idle > 0, "the pipe was not kept");
    }
}

fn nothing_is_held() {
    assert_eq!(buffers_in_use(), 0);
    let usage = pipe_pool::usage();
    assert_eq!(usage.open, usage.idle);
}

async fn a_tunnel_cut_in_mid_flow_spoils_no_other(mode: SpliceMode) {
    let mut rig = Rig::with(Setup::with_buffers(mode, SOCKET_BUFFER)).await;
    write_until_stalled(&mut rig.server, &noise(74, 4 << 20)).await;
    rig.registry.end(rig.id);
    assert!(matches!(rig.tunnel.await.unwrap().end, End::Deleted));
    // What it held went with it.
    nothing_is_held();
    let mut next = Rig::new(mode).await;
    next.ping().await;
    let fresh = noise(75, 1 << 20);
    let (sent, ()) = tokio::join!(
        next.server.write_all(&fresh),
        expect_in_chunks(&mut next.client, &fresh, 76, 100_000)
    );
    sent.unwrap();
}

async fn a_side_that_has_ended_wakes_nobody(mode: SpliceMode) {
    let mut rig = Rig::with(Setup::with_buffers(mode, SOCKET_BUFFER)).await;
    // Readiness for reading stays set after a FIN: a lane that waits for room on the other
    // side, or is done, must not look at it.
    let stuck = noise(77, MOST / 2);
    write_until_stalled(&mut rig.server, &stuck).await;
    rig.server.shutdown().await.unwrap();
    rig.client.shutdown().await.unwrap();
    expect_end(&mut rig.server).await;
    let polls = rig.polls.get();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let woken = rig.polls.get() - polls;
    assert!(woken <= 2, "polled {woken} times with nothing to do");
}

async fn without_pipes_everything_is_copied(mode: SpliceMode) {
    pipe_pool::set_budget(0);
    let mut rig = Rig::new(mode).await;
    let bulk = noise(78, 1 << 20);
    for _ in 0..5 {
        let (sent, ()) = tokio::join!(
            rig.client.write_all(&bulk),
            expect_in_chunks(&mut rig.server, &bulk, 79, 100_000)
        );
        sent.unwrap();
    }
    let engine = rig.view().engine.to_upstream;
    assert_eq!(engine.name, Engine::Copy);
    if mode == SpliceMode::Pipe {
        assert_eq!(engine.reason, Some("no pipe to be had"));
    }
    assert_eq!(pipe_pool::usage().open, 0);
    // And when there are some again they are used.
    pipe_pool::set_budget(10);
    if mode == SpliceMode::Pipe {
        for _ in 0..crate::splice::RETRY_FILLS + 1 {
            rig.ping().await;
        }
        assert_eq!(rig.view().engine.to_upstream.name, Engine::Pipe);
    }
}
