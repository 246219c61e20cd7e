//! One connection whose keys the kernel has: how it reads, writes and ends.
//!
//! Invariant: FIN comes behind close_notify, and that behind the last byte. The kernel may take a
//! record that TCP has no room for; it sends the rest when there is some, and forgets it if the
//! socket is shut down or closed first (`tls_sw_release_resources_tx`). Nobody is told when it
//! has been sent, so it is counted: what TCP has taken against what it is to take, which is the
//! bytes written and so much more for each record.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, ErrorKind::UnexpectedEof},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls::ExtractedSecrets;
use tokio::time::{Sleep, sleep};

use super::{
    Keys, Suite,
    control::{Control, Said},
    sys::{self, ALERT, DATA},
};
use crate::splice::{endpoint::Endpoint, socket, tcp_end::TcpEnd};

/// Level and description of the alert that ends a direction (RFC 8446 section 6.1).
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// First and longest wait between two looks at what TCP has taken.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// What is known of it besides its socket.
#[derive(Debug)]
pub(in crate::splice) struct InKernel {
    suite: Suite,
    /// The record that the kernel sent first, and what TCP had taken before it.
    first: u64,
    before: u64,
    /// Bytes that the kernel was given, in records of any type.
    given: Cell<u64>,
    control: Control,
    end_seen: Cell<bool>,
    end_said: Cell<bool>,
    /// While it waits for TCP to take the last of them.
    waits: RefCell<Option<(Pin<Box<Sleep>>, Duration)>>,
}

impl InKernel {
    /// Gives a socket its keys, whose peer has everything that was sent before.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(in crate::splice) fn begin(
        tcp: &TcpEnd,
        suite: Suite,
        secrets: &ExtractedSecrets,
    ) -> io::Result<Self> {
        let keys = Keys::of(suite, secrets).ok_or(io::ErrorKind::InvalidData)?;
        let before = sys::taken_by_tcp(tcp.stream())?;
        sys::send_by(tcp.stream(), &keys.send)?;
        sys::receive_by(tcp.stream(), &keys.receive)?;
        Ok(Self {
            suite,
            first: keys.first,
            before,
            given: Cell::new(0),
            control: Control::new(suite.version),
            end_seen: Cell::new(false),
            end_said: Cell::new(false),
            waits: RefCell::new(None),
        })
    }

    pub(in crate::splice) fn poll_readable(
        &self,
        cx: &mut Context<'_>,
        tcp: &TcpEnd,
    ) -> Poll<io::Result<()>> {
        if self.end_seen.get() { Poll::Ready(Ok(())) } else { tcp.poll_readable(cx) }
    }

    /// Reads data; what else comes is judged here.
    pub(in crate::splice) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        tcp: &TcpEnd,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        while !self.end_seen.get() {
            let mut kind = DATA;
            // One that comes short says nothing: it ends where the type of records changes.
            let read = ready!(tcp.poll_read_with(cx, usize::MIN, || {
                let (read, of) = sys::receive(tcp.stream(), room)?;
                kind = of;
                Ok(read)
            }))?;
            match kind {
                DATA if read > 0 => return Poll::Ready(Ok(read)),
                // A FIN alone. Whether it came in the middle of a record is not to be seen from here:
                // the kernel may have taken the beginning out of TCP's queue.
                DATA => return Poll::Ready(Err(UnexpectedEof.into())),
                kind => match self.control.judge(kind, &room[..read]) {
                    Ok(Said::End) => self.end_seen.set(true),
                    Ok(Said::Nothing) => {}
                    Err(error) => {
                        let peer = tcp.stream().peer_addr().ok();
                        tracing::info!(?peer, %error, "a tunnel inside TLS ends");
                        return Poll::Ready(Err(error));
                    }
                },
            }
        }
        Poll::Ready(Ok(0))
    }

    pub(in crate::splice) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        tcp: &TcpEnd,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(tcp.poll_write(cx, bytes))?;
        self.gave(written);
        Poll::Ready(Ok(written))
    }

    /// So many bytes have come to the kernel, by whichever call.
    pub(in crate::splice) fn gave(&self, bytes: usize) {
        self.given.set(self.given.get() + bytes as u64);
    }

    pub(in crate::splice) fn poll_shutdown(
        &self,
        cx: &mut Context<'_>,
        tcp: &TcpEnd,
    ) -> Poll<io::Result<()>> {
        if !self.end_said.get() {
            ready!(tcp.poll_write_with(cx, 0, || {
                sys::send_control(tcp.stream(), ALERT, &CLOSE_NOTIFY)
            }))?;
            self.gave(CLOSE_NOTIFY.len());
            self.end_said.set(true);
        }
        ready!(self.poll_taken(cx, tcp))?;
        tcp.poll_shutdown(cx)
    }

    /// Ready when TCP has all records.
    fn poll_taken(&self, cx: &mut Context<'_>, tcp: &TcpEnd) -> Poll<io::Result<()>> {
        let mut waits = self.waits.borrow_mut();
        loop {
            let records = sys::next_record(tcp.stream(), self.suite)?.wrapping_sub(self.first);
            let all = self.before + self.given.get() + records * self.suite.overhead();
            if sys::taken_by_tcp(tcp.stream())? >= all {
                *waits = None;
                return Poll::Ready(Ok(()));
            }
            let (timer, wait) =
                waits.get_or_insert_with(|| (Box::pin(sleep(LOOK_AGAIN.0)), LOOK_AGAIN.0));
            ready!(timer.as_mut().poll(cx));
            *wait = (*wait * 2).min(LOOK_AGAIN.1);
            timer.set(sleep(*wait));
        }
    }

    /// Resolves when the peer has everything, or cannot get it any more.
    pub(in crate::splice) async fn delivered(&self, tcp: &TcpEnd) {
        let taken = poll_fn(|cx| {
            if tcp.poll_failed(cx).is_ready() {
                return Poll::Ready(false);
            }
            self.poll_taken(cx, tcp).map(|taken| taken.is_ok())
        });
        if taken.await {
            socket::delivered(tcp.stream()).await;
        }
    }
}
