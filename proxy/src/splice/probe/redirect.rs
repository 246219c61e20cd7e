//! Engine `kernel`, tried: what one of our sockets receives goes out on the other.

use std::{
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_ebpf::{Form, Route};

use crate::config::SpliceMode;

use super::{
    super::{
        kernel::{Kernel, Set},
        meter::Engine,
    },
    BULK_BYTES, MOST_ACCEPTED_BYTES,
    rig::{Rig, text},
    sockets::{self, Pair},
};

const PATIENCE: Duration = Duration::from_secs(4);

/// A sender that was taken nothing from for so long is held back.
const HELD_BACK: Duration = Duration::from_millis(5);

async fn open(kernel: &Arc<Kernel>) -> Result<Rig, String> {
    let mut rig = Rig::open(kernel, SpliceMode::Kernel, [false, false])?;
    rig.settle([None, Some(Engine::Kernel)]).await?;
    Ok(rig)
}

/// Bytes go from socket to socket, beside those of the other direction, and arrive as they
/// were.
pub(super) async fn redirect(kernel: &Arc<Kernel>) -> Result<(), String> {
    let mut rig = open(kernel).await?;
    let before = rig.moved(1);
    for direction in [0, 1] {
        rig.send(direction, BULK_BYTES)?;
        rig.arrives(direction).await?;
    }
    if rig.moved(1) == before {
        return Err("the program moved nothing".to_owned());
    }
    Ok(())
}

/// What was in the receive queue before the socket came under the program is redirected
/// once, after a nudge.
pub(super) fn early_data(kernel: &Arc<Kernel>) -> Result<(), String> {
    let mut from = Pair::connect(PATIENCE).map_err(text)?;
    let mut to = Pair::connect(PATIENCE).map_err(text)?;
    let pattern = sockets::pattern(BULK_BYTES);
    from.write_far(&pattern).map_err(text)?;

    let target = kernel.enroll(Set::Targets, to.near.as_fd()).map_err(text)?;
    let addresses = |socket: &TcpStream| -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((socket.local_addr()?, socket.peer_addr()?))
    };
    let look = |socket| {
        let (own, peer) = addresses(socket)?;
        kernel.look(own, peer, 0, target.key()).map(|report| report.own)
    };
    let (near, far) = (look(&from.near).map_err(text)?, look(&to.near).map_err(text)?);
    if near.address == 0 || far.address == 0 {
        return Err("our own connection was not found by its addresses".to_owned());
    }
    let slot = kernel.lane().ok_or("no lane is free")?;
    let _route = kernel
        .route(Route {
            target: target.key(),
            receiver: far.address,
            sender: near.address,
            form: Form::Skb as u32,
            lane: slot.index(),
            k: far.write_seq,
            budget_bytes: u32::MAX / 2,
        })
        .map_err(text)?;
    slot.set_open(true);
    let _source = kernel.enroll(Set::Sources, from.near.as_fd()).map_err(text)?;
    super::super::socket::set_receive_low_water(&from.near, 1).map_err(text)?;
    to.expect_far(&pattern).map_err(text)?;
    // Once: what comes next is what is sent next.
    from.write_far(&[1; 8]).map_err(text)?;
    to.expect_far(&[1; 8]).map_err(text)
}

/// A receiver that does not read holds its sender back, and gets everything later.
pub(super) async fn slow_reader(kernel: &Arc<Kernel>) -> Result<(), String> {
    let mut rig = open(kernel).await?;
    let mut accepted = 0;
    let mut last = Instant::now();
    rig.pump("a sender was neither held back nor let go", |rig| {
        let more = rig.flood(1, MOST_ACCEPTED_BYTES - accepted).map_err(std::io::Error::other)?;
        accepted += more;
        if more > 0 {
            last = Instant::now();
        }
        let over = accepted >= MOST_ACCEPTED_BYTES || last.elapsed() > HELD_BACK;
        Ok(over.then_some(()))
    })
    .await?;
    if accepted >= MOST_ACCEPTED_BYTES {
        return Err(format!("{accepted} bytes were accepted for a receiver that does not read"));
    }
    rig.arrives(1).await
}

/// The end of a sender comes behind its redirected bytes, and ends one direction only.
pub(super) async fn half_close(kernel: &Arc<Kernel>) -> Result<(), String> {
    let mut rig = open(kernel).await?;
    rig.send(1, BULK_BYTES)?;
    rig.finish(1)?;
    rig.arrives(1).await?;
    rig.ends(1).await?;
    rig.send(0, BULK_BYTES)?;
    rig.arrives(0).await
}
