//! Local bypass, tried: from one application of this process to another one, past TCP and
//! past what stands for the proxy.

use std::{
    io,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use crate::config::SpliceMode;

use super::{
    super::{
        kernel::{Kernel, Set},
        meter::Engine,
    },
    BULK_BYTES, MOST_ACCEPTED_BYTES,
    rig::{Rig, text},
    sockets::Pair,
};

const PATIENCE: Duration = Duration::from_secs(1);

/// A segment may take a moment to get through loopback. More where nothing else is left to try.
const SEGMENT: Duration = Duration::from_millis(50);

/// Whether FIONREAD tells an enrolled socket of what is in TCP's queue by itself (false), or
/// only with `up_pass` (true).
pub(super) fn needs_pass(kernel: &Arc<Kernel>) -> Result<bool, String> {
    for pass in [false, true] {
        if tells_of_received(kernel, pass)? {
            return Ok(pass);
        }
    }
    Err("FIONREAD does not tell an enrolled socket of what it has received".to_owned())
}

/// Whether FIONREAD tells an enrolled socket of what is in TCP's queue, with `up_pass` or without.
pub(super) fn tells_of_received(kernel: &Arc<Kernel>, pass: bool) -> Result<bool, String> {
    let asks = || -> io::Result<bool> {
        let mut pair = Pair::connect(PATIENCE)?;
        let _app = kernel.enroll(Set::Apps, pair.near.as_fd())?;
        let _passed = match pass {
            true => Some(kernel.enroll(Set::Passed, pair.near.as_fd())?),
            false => None,
        };
        pair.write_far(&[7; 100])?;
        let (since, bound) = (Instant::now(), if pass { PATIENCE } else { SEGMENT });
        loop {
            // 100 if it is told at all. What was acknowledged is in TCP's queue; the program
            // may need a moment more.
            let waits = pass || super::super::socket::unacknowledged(&pair.far)? > 0;
            match rustix::io::ioctl_fionread(&pair.near)? {
                100 => return Ok(true),
                _ if !waits || since.elapsed() > bound => return Ok(false),
                _ => std::thread::sleep(Duration::from_micros(100)),
            }
        }
    };
    asks().map_err(text)
}

/// A tunnel between two local applications.
async fn open(kernel: &Arc<Kernel>) -> Result<Rig, String> {
    let mut rig = Rig::open(kernel, SpliceMode::Auto, [true, true])?;
    rig.settle([Some(Engine::Bypass); 2]).await?;
    Ok(rig)
}

/// Bytes go straight into the receiver's queue, both ways, and arrive as they were.
pub(super) async fn redirect(kernel: &Arc<Kernel>) -> Result<(), String> {
    let mut rig = open(kernel).await?;
    for direction in [0, 1] {
        goes_fast(&mut rig, direction, BULK_BYTES).await?;
    }
    Ok(())
}

/// FIONREAD counts what was redirected.
pub(super) async fn fionread(kernel: &Arc<Kernel>) -> Result<(), String> {
    let mut rig = open(kernel).await?;
    rig.send(0, 100)?;
    match rustix::io::ioctl_fionread(&rig.peers[1].socket) {
        Ok(100) => Ok(()),
        Ok(bytes) => Err(format!(
            "FIONREAD says {bytes} where 100 redirected bytes wait: an application that sizes \
             its reads by it would take that for the end"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// One read takes what was redirected and what has come by TCP behind it. Many readers take a read
/// that comes short for the last one until there is an event (tokio, nginx): in two queues
/// the rest of it would wait for whatever comes next.
pub(super) async fn one_queue(kernel: &Arc<Kernel>) -> Result<(), String> {
    let mut rig = open(kernel).await?;
    rig.send(0, 100)?;
    let carried = rig.carried(0);
    rig.slot(0)?.set_open(false);
    rig.send(0, 100)?;
    passes_middle(&mut rig, 0, carried + 100).await?;
    match rig.peers[1].socket.peek(&mut [0; 1000]) {
        Ok(200) => rig.arrives(0).await,
        Ok(bytes) => Err(format!(
            "a read takes {bytes} bytes where 100 redirected ones and 100 others wait: an \
             application that takes a short read for the last would leave the rest"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// splice(2) takes what waits in an enrolled socket, redirected or received.
pub(super) async fn splices(kernel: &Arc<Kernel>) -> Result<(), String> {
    for redirected in [true, false] {
        let mut rig = open(kernel).await?;
        let carried = rig.carried(0);
        rig.slot(0)?.set_open(redirected);
        rig.send(0, 100)?;
        let (_out, pipe) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| error.to_string())?;
        if !redirected {
            passes_middle(&mut rig, 0, carried + 100).await?;
        }
        let flags = SpliceFlags::NONBLOCK;
        let taken = splice(&rig.peers[1].socket, None, &pipe, None, 100, flags);
        if taken != Ok(100) {
            return Err("splice(2) from an enrolled socket does not see what waits there: keep \
                 local bypass off for applications that use it (Go's io.Copy, HAProxy with \
                 splice)"
                .to_owned());
        }
    }
    Ok(())
}

/// Bytes that are still on the slow way are not overtaken.
pub(super) async fn gate(kernel: &Arc<Kernel>) -> Result<(), String> {
    let mut rig = open(kernel).await?;
    for direction in [0, 1] {
        keeps_order(&mut rig, direction, true).await?;
    }
    Ok(())
}

/// A receiver that does not read holds its sender back, and gets everything later.
pub(super) async fn slow_reader(kernel: &Arc<Kernel>) -> Result<(), String> {
    let mut rig = open(kernel).await?;
    let accepted = rig.flood(0, MOST_ACCEPTED_BYTES)?;
    if accepted >= MOST_ACCEPTED_BYTES {
        return Err(format!(
            "this kernel does not charge redirected bytes to their receiver: {accepted} were \
             accepted for one that does not read"
        ));
    }
    rig.arrives(0).await
}

/// The end of a sender comes behind its redirected bytes, and ends one direction only.
pub(super) async fn half_close(kernel: &Arc<Kernel>) -> Result<(), String> {
    let mut rig = open(kernel).await?;
    rig.send(0, BULK_BYTES)?;
    rig.finish(0)?;
    rig.arrives(0).await?;
    rig.ends(0).await?;
    rig.send(1, BULK_BYTES)?;
    rig.arrives(1).await
}

/// From a local server out on our connection to a client: intact, in order, its end behind.
pub(super) async fn half_bypass(kernel: &Arc<Kernel>) -> Result<(), String> {
    let mut rig = Rig::open(kernel, SpliceMode::Auto, [false, true])?;
    rig.settle([None, Some(Engine::HalfBypass)]).await?;
    goes_fast(&mut rig, 1, BULK_BYTES).await?;
    keeps_order(&mut rig, 1, false).await?;
    let accepted = rig.flood(1, MOST_ACCEPTED_BYTES)?;
    if accepted >= MOST_ACCEPTED_BYTES {
        return Err(format!("{accepted} bytes were accepted for a client that does not read"));
    }
    rig.arrives(1).await?;
    rig.finish(1)?;
    rig.ends(1).await
}

/// The programs move every one of these bytes.
async fn goes_fast(rig: &mut Rig, direction: usize, bytes: usize) -> Result<(), String> {
    let before = rig.moved(direction);
    rig.send(direction, bytes)?;
    rig.arrives(direction).await?;
    match rig.moved(direction) - before {
        moved if moved == bytes as u64 => Ok(()),
        moved => Err(format!("the programs moved {moved} bytes of {bytes}")),
    }
}

/// Behind bytes on the slow way the others go slow, too, until those have got where the fast
/// way begins: with `by_reader`, until they have been read.
async fn keeps_order(rig: &mut Rig, direction: usize, by_reader: bool) -> Result<(), String> {
    const EARLY: &str = "redirected bytes would have overtaken others";
    let slot = rig.slot(direction)?;
    let carried = rig.carried(direction);
    slot.set_open(false);
    rig.send(direction, 1000)?;
    slot.set_open(true);
    let before = rig.moved(direction);
    // The first bytes wait in the middle.
    rig.send(direction, 1000)?;
    if rig.moved(direction) != before {
        return Err(EARLY.to_owned());
    }
    if by_reader {
        // They wait for their reader.
        passes_middle(rig, direction, carried + 2000).await?;
        rig.send(direction, 1000)?;
        if rig.moved(direction) != before {
            return Err(EARLY.to_owned());
        }
    }
    rig.arrives(direction).await?;
    goes_fast(rig, direction, 1000).await
}

/// Waits until so many bytes in all are in the receiver's queue.
async fn passes_middle(rig: &mut Rig, direction: usize, carried: u64) -> Result<(), String> {
    rig.pump("bytes did not pass the slow way", |rig| {
        let passed = rig.carried(direction) == carried;
        Ok((passed && rig.queued(1 - direction) == 0).then_some(()))
    })
    .await
}
