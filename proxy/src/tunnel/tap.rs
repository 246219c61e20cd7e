//! A tunnel whose bytes somebody is told of, because they are recorded: frames of a WebSocket.
//!
//! Each end is seen through a [`Tapped`] while its lane reads from it. What it reads is told and
//! passed on as it is; it is read into memory of ours, so the engine is `copy`.

use std::{
    future::Future,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use crate::{
    exchange::Exchange,
    record::{Frames, Side},
    splice::{Endpoint, TcpEnd, Why},
};

/// Whom the bytes of a tunnel are told.
#[derive(Debug)]
pub struct Tap {
    exchange: Rc<Exchange>,
    frames: Frames,
}

impl Tap {
    /// For the record of this exchange.
    pub fn new(exchange: &Rc<Exchange>) -> Self {
        Self { exchange: Rc::clone(exchange), frames: Frames::default() }
    }

    /// These bytes have come from this side.
    pub(super) fn pass(&self, side: Side, bytes: &[u8]) {
        if let Some(recording) = self.exchange.recording() {
            self.frames.pass(recording, side, bytes);
        }
    }
}

/// An end whose bytes are told.
#[derive(Debug)]
pub(super) struct Tapped<'a, E> {
    pub(super) end: &'a E,
    pub(super) tap: &'a Tap,
    pub(super) side: Side,
}

impl<E: Endpoint> Endpoint for Tapped<'_, E> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.poll_readable(cx)
    }

    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(self.end.poll_read(cx, room))?;
        self.tap.pass(self.side, &room[..read]);
        Poll::Ready(Ok(read))
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.end.poll_write(cx, bytes)
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.poll_shutdown(cx)
    }

    fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.end.poll_failed(cx)
    }

    fn queued(&self) -> usize {
        self.end.queued()
    }

    fn delivered(&self) -> impl Future<Output = ()> {
        self.end.delivered()
    }

    /// What goes by the socket alone would be told to nobody.
    fn tcp(&self) -> Option<&TcpEnd> {
        None
    }

    fn spliced(&self) -> Option<&TcpEnd> {
        None
    }

    fn socket(&self) -> Option<&TcpEnd> {
        self.end.socket()
    }

    fn must_copy(&self) -> Option<Why> {
        Some(Why::Recorded)
    }
}
