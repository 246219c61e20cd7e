//! The kernel's side of one tunnel: which direction goes by which of its mechanisms.
//!
//! Asked before and after each turn of the lanes, in the tunnel's own task. Local bypass
//! goes first where it is allowed; what the server sends, if bypass does not claim it, may be
//! redirected between our own sockets.

use std::{io, sync::Arc, task::Context};

use crate::config::SpliceMode;

use super::{
    Lane, Meter,
    anchor::Anchors,
    bypass::{Bypass, Direction},
    hop::Excluded,
    kernel::Kernel,
    redirect::Redirect,
    tcp_end::TcpEnd,
};

/// What the kernel does for a tunnel.
#[derive(Debug)]
pub(crate) struct Tier {
    anchors: Anchors,
    bypass: Option<Bypass>,
    /// Whether every direction is to be redirected (`--splice kernel`).
    always: bool,
    /// Joining has failed: not tried again.
    failed: bool,
}

/// The parts of a tunnel, by direction: towards the server, towards the client.
pub(crate) struct Parts<'a> {
    /// Downstream, upstream.
    pub(crate) sockets: [&'a TcpEnd; 2],
    pub(crate) lanes: [&'a mut Lane; 2],
    pub(crate) meters: [&'a Meter; 2],
}

impl Tier {
    /// `None` where the kernel has nothing to do.
    pub(crate) fn new(
        kernel: Arc<Kernel>,
        mode: SpliceMode,
        sockets: [&TcpEnd; 2],
        local_bypass: [bool; 2],
        meters: [&Meter; 2],
    ) -> io::Result<Option<Box<Self>>> {
        let [downstream, upstream] = sockets.map(TcpEnd::stream);
        let bypass = Bypass::new(
            Arc::clone(&kernel),
            (downstream, local_bypass[0]),
            (upstream, local_bypass[1]),
            meters,
        )?;
        let always = mode == SpliceMode::Kernel && kernel.abilities().redirect.is_ok();
        if bypass.is_none() && !always {
            return Ok(None);
        }
        Ok(Some(Box::new(Self { anchors: Anchors::new(kernel), bypass, always, failed: false })))
    }

    /// Why hops stay out of local bypass: the client's, the server's.
    pub(crate) fn excluded(&self) -> [Option<Excluded>; 2] {
        self.bypass.as_ref().map_or([None; 2], Bypass::excluded)
    }

    /// Before a turn of the lanes.
    pub(crate) fn before(&mut self, cx: &mut Context<'_>, parts: &mut Parts<'_>) {
        let Some(bypass) = &mut self.bypass else { return };
        let idle = [parts.lanes[0].is_idle(), parts.lanes[1].is_idle()];
        let sockets = parts.sockets.map(TcpEnd::stream);
        let fills = bypass.poll(cx, &self.anchors, sockets, idle, parts.meters);
        for (lane, fills) in parts.lanes.iter_mut().zip(fills) {
            lane.set_fills(fills);
        }
    }

    /// After a turn that left nothing to do.
    pub(crate) fn after(&mut self, cx: &mut Context<'_>, parts: &mut Parts<'_>) {
        if !self.always || self.failed {
            return;
        }
        // One direction only. What a socket's program passes and what others send out on it
        // wait in one queue in the kernel; with both directions there, a client that does not
        // read would stall what it sends, and two of them could wait for each other.
        if let Err(error) = self.join(cx, Direction::ToDownstream, parts) {
            tracing::debug!(%error, "joining a redirect");
            self.failed = true;
        }
    }

    fn join(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        parts: &mut Parts<'_>,
    ) -> io::Result<()> {
        let at = direction as usize;
        let claimed = self.bypass.as_ref().is_some_and(|bypass| bypass.claims(direction));
        if claimed || parts.lanes[at].redirect().is_some() || !parts.lanes[at].is_idle() {
            return Ok(());
        }
        let (from, to) = direction.ends();
        let (end, to) = (parts.sockets[from], parts.sockets[to].stream());
        match Redirect::join(&self.anchors, direction, end.stream(), to, parts.meters[at])? {
            Some(redirect) => {
                end.has_two_queues();
                parts.lanes[at].join(redirect);
            }
            // It has bytes by now: the lane reads them first.
            None => cx.waker().wake_by_ref(),
        }
        Ok(())
    }
}
