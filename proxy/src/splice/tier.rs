//! The kernel's side of one tunnel: which direction goes by which of its mechanisms.
//!
//! Asked before and after each turn of the lanes, in the tunnel's own task. Local bypass
//! goes first where it is allowed; what it does not claim may be redirected between our own
//! sockets: with `--splice kernel` all that the server sends, with `auto` a direction that is
//! a stream (`stream.rs`), until it is one no longer.

use std::{io, sync::Arc, task::Context};

use crate::config::SpliceMode;

use super::{
    Lane, Meter,
    anchor::Anchors,
    bypass::{Bypass, Direction, Settled},
    hop::Excluded,
    kernel::Kernel,
    leave::{Leave, Seen},
    meter::Cause,
    redirect::{Load, Redirect},
    stream::{Advice, Streams},
    tcp_end::TcpEnd,
};

/// What the kernel does for a tunnel.
#[derive(Debug)]
pub(crate) struct Tier {
    anchors: Anchors,
    /// Boxed: most tunnels have none.
    local: Option<Box<Local>>,
    redirects: Redirects,
}

/// Local bypass, where it was asked for.
#[derive(Debug, Default)]
struct Local {
    /// While there is something to try.
    bypass: Option<Box<Bypass>>,
    /// What came of it.
    settled: Settled,
    leave: Leave,
    /// Messages that had bypassed when the streams were last looked at.
    bypassed: [u64; 2],
}

/// Which directions are redirected between our own sockets.
#[derive(Debug)]
enum Redirects {
    /// None: the kernel cannot, or it was not asked to.
    Never,
    /// What the server sends. Not both: see `stream.rs`.
    Always,
    /// Streams.
    Streams(Streams),
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
        let redirects = match mode {
            _ if kernel.abilities().redirect.is_err() => Redirects::Never,
            SpliceMode::Kernel => Redirects::Always,
            SpliceMode::Auto => Redirects::Streams(Streams::default()),
            SpliceMode::Copy | SpliceMode::Pipe => Redirects::Never,
        };
        if bypass.is_none() && matches!(redirects, Redirects::Never) {
            return Ok(None);
        }
        let local = |bypass| Box::new(Local { bypass: Some(Box::new(bypass)), ..Local::default() });
        Ok(Some(Box::new(Self {
            anchors: Anchors::new(kernel),
            local: bypass.map(local),
            redirects,
        })))
    }

    /// Why hops stay out of local bypass: the client's, the server's.
    pub(crate) fn excluded(&self) -> [Option<Excluded>; 2] {
        let Some(local) = &self.local else { return [None; 2] };
        local.bypass.as_ref().map_or(local.settled.excluded, |bypass| bypass.excluded())
    }

    /// Before a turn of the lanes.
    pub(crate) fn before(&mut self, cx: &mut Context<'_>, parts: &mut Parts<'_>) {
        let Some(local) = &mut self.local else { return };
        let idle = [parts.lanes[0].is_idle(), parts.lanes[1].is_idle()];
        let sockets = parts.sockets.map(TcpEnd::stream);
        let gives_up = local.look_at_bulk(self.anchors.kernel(), idle, parts);
        let Some(bypass) = &mut local.bypass else { return };
        if gives_up {
            // First: a lane that it holds goes on.
            bypass.end();
        }
        let fills = bypass.poll(cx, &self.anchors, sockets, idle, parts.meters);
        for (direction, lane) in Direction::ALL.into_iter().zip(&mut parts.lanes) {
            lane.set_fills(fills[direction as usize]);
            if let Some(room) = bypass.take_room(direction) {
                lane.goes_beside(room);
            }
        }
        if let Some(settled) = bypass.settled() {
            local.settled = settled;
            local.bypass = None;
        }
    }

    /// After a turn that left nothing to do. `moved`: bytes that the lanes have moved in it.
    pub(crate) fn after(&mut self, moved: [usize; 2], parts: &mut Parts<'_>) {
        // A local application is taken for quiet where nobody but this process writes to it: no
        // redirect to it begins before that is decided.
        if self.local.as_ref().is_some_and(|local| local.bypass.is_some()) {
            return;
        }
        let done = match &self.redirects {
            Redirects::Never => return,
            Redirects::Always => self.join(Direction::ToDownstream, Load::All, parts).map(|_| ()),
            Redirects::Streams(_) => self.follow(moved, parts),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "a redirect between our own sockets");
            self.redirects = Redirects::Never;
        }
    }

    /// Has streams redirected as long as they are some.
    fn follow(&mut self, moved: [usize; 2], parts: &mut Parts<'_>) -> io::Result<()> {
        // Answers that bypass this process are answers all the same.
        let mut moved = moved;
        if let Some(local) = &mut self.local {
            local.add_bypassed(&mut moved);
        }
        let joined = parts.lanes.iter_mut().position(|lane| lane.redirect().is_some());
        let Redirects::Streams(streams) = &mut self.redirects else { return Ok(()) };
        let Some(at) = joined else {
            let Advice::Join(at) = streams.turn(moved, None) else { return Ok(()) };
            let direction = Direction::ALL[at];
            let joined = parts.lanes[at].carries_messages()
                && self.join(direction, Load::Messages, parts)?;
            let messages = parts.lanes[at].redirect().map_or(0, |redirect| redirect.messages());
            if let Redirects::Streams(streams) = &mut self.redirects {
                if joined { streams.joined(messages) } else { streams.missed() }
            }
            return Ok(());
        };
        let meter = parts.meters[at];
        let Some(redirect) = parts.lanes[at].redirect() else { return Ok(()) };
        let messages = redirect.messages();
        if redirect.is_paused() {
            // The other direction cannot: see `stream.rs`.
            if streams.turn(moved, None) == Advice::Join(at) {
                redirect.go_on(meter);
                streams.joined(messages);
            }
        } else if redirect.has_passed() {
            redirect.pause(meter, Cause::Bulk);
            streams.left();
        } else if streams.turn(moved, Some((at, messages))) == Advice::Leave {
            redirect.pause(meter, Cause::Answered);
            streams.left();
        }
        Ok(())
    }

    /// Has a direction redirected, if it can be now. Whether it is. Where not, a later turn asks
    /// again: bytes that have come by now are a reason for one, and none is made for a place that
    /// nobody may ever give back.
    fn join(&self, direction: Direction, load: Load, parts: &mut Parts<'_>) -> io::Result<bool> {
        let at = direction as usize;
        if self.local.as_ref().is_some_and(|local| local.settled.open[at].is_some())
            || parts.lanes[at].redirect().is_some()
            || !parts.lanes[at].is_idle()
        {
            return Ok(false);
        }
        let (from, to) = direction.ends();
        let (end, to) = (parts.sockets[from], parts.sockets[to].stream());
        let (from, meter) = (end.stream(), parts.meters[at]);
        let redirect = Redirect::join(&self.anchors, direction, from, to, meter, load)?;
        let Some(redirect) = redirect else { return Ok(false) };
        end.has_two_queues();
        parts.lanes[at].join(redirect);
        Ok(true)
    }
}

impl Local {
    /// Whether it is to be given up as far as it has not been opened.
    fn look_at_bulk(&mut self, kernel: &Kernel, idle: [bool; 2], parts: &Parts<'_>) -> bool {
        if self.leave.is_over() {
            return false;
        }
        let (settled, enrolled) = match &self.bypass {
            Some(bypass) => (None, bypass.enrolled()),
            None => (Some(&self.settled), self.settled.enrolled),
        };
        let lanes = parts.lanes.each_ref();
        self.leave.turn(&Seen {
            kernel,
            settled,
            enrolled,
            sockets: parts.sockets.map(TcpEnd::stream),
            bulk: lanes.map(|lane| lane.carries_bulk()),
            idle,
            redirected: lanes.map(|lane| lane.is_redirected()),
            meters: parts.meters,
        })
    }

    /// Counts a direction as one that has moved something if messages have bypassed in it since.
    fn add_bypassed(&mut self, moved: &mut [usize; 2]) {
        for (at, open) in self.settled.open.iter().enumerate() {
            let Some(messages) = open.as_ref().map(|open| open.messages()) else { continue };
            if std::mem::replace(&mut self.bypassed[at], messages) != messages {
                moved[at] = moved[at].max(1);
            }
        }
    }
}
