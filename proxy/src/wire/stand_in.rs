//! Bytes that are written in the place of others, which were to be sent from a file and are not in
//! memory any more: read again by a thread ([`crate::lend`]), while the writer waits.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{io::AsyncWrite, sync::oneshot};

use super::spelling::first;
use crate::{lend::Loan, transport::Transport};

/// What stands in for a stretch of what is to be written. That goes in its order, whoever writes
/// it: what is in front is known by its length.
#[derive(Debug)]
pub(super) struct StandIn {
    /// Bytes in front that have not been written.
    in_front: usize,
    read: Option<oneshot::Receiver<Bytes>>,
    bytes: Bytes,
}

impl StandIn {
    /// For the beginning of this part of what is to be written.
    pub(super) fn of(loan: &Loan, slices: &[IoSlice<'_>]) -> Self {
        Self::new(loan.in_front(slices), loan.read_again())
    }

    fn new(in_front: usize, read: oneshot::Receiver<Bytes>) -> Self {
        Self { in_front, read: Some(read), bytes: Bytes::new() }
    }

    /// Whether all of it has been written.
    pub(super) fn is_over(&self) -> bool {
        self.read.is_none() && self.bytes.is_empty()
    }

    /// Writes what is in front, and of this what there is room for: how many bytes of both. What is
    /// behind waits.
    ///
    /// # Errors
    /// As write(2); `InvalidData` if there is nothing in their place.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Transport,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(read) = &mut self.read {
            let bytes = ready!(Pin::new(read).poll(cx));
            self.read = None;
            let lost = |_| io::Error::new(io::ErrorKind::InvalidData, "the disk has lost it");
            self.bytes = bytes.map_err(lost)?;
        }
        let all = first(slices, self.in_front).chain([&self.bytes[..]]);
        let all: Vec<_> = all.map(IoSlice::new).collect();
        let written = ready!(Pin::new(stream).poll_write_vectored(cx, &all))?;
        let of_it = written.saturating_sub(self.in_front);
        self.in_front -= written - of_it;
        self.bytes.advance(of_it);
        Poll::Ready(Ok(written))
    }
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;
    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::wire::spelling::skip;

    /// All goes in its order, whatever is written at once, and not a byte more than was asked for.
    #[req_test("REQ-CACHE-007")]
    #[tokio::test]
    async fn it_takes_the_place_of_what_it_stands_for_and_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let mut stream = Transport::Plain(near);
        // The same bytes twice, of which the second are stood in for.
        let twice = vec![b'x'; 300_000];
        let text = b"between".as_slice();
        let (sender, read) = oneshot::channel();
        let mut stand_in = StandIn::new(twice.len() + text.len(), read);
        let mut done = 0;
        let reads = tokio::spawn(async move {
            let mut seen = Vec::new();
            far.read_to_end(&mut seen).await.map(|_| seen)
        });
        let mut sender = Some(sender);
        std::future::poll_fn(|cx| {
            while !stand_in.is_over() {
                // What hyper would give: all that has not been written, and what is behind.
                let parts = [&twice[..], text, &twice[..50_000], b"behind"];
                let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
                let slices: Vec<_> = skip(&slices, done).map(IoSlice::new).collect();
                match stand_in.poll_write(&mut stream, cx, &slices) {
                    Poll::Ready(written) => done += written.unwrap(),
                    Poll::Pending => {
                        let Some(sender) = sender.take() else { return Poll::Pending };
                        sender.send(Bytes::from(vec![b'y'; 50_000])).unwrap();
                    }
                }
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(done, twice.len() + text.len() + 50_000);
        drop(stream);
        let seen = reads.await.unwrap().unwrap();
        let expected = [&twice[..], text, &[b'y'; 50_000]].concat();
        assert!(seen == expected, "{} bytes", seen.len());
    }

    #[tokio::test]
    async fn what_is_lost_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut stream = Transport::Plain(near);
        let mut stand_in = StandIn::new(0, oneshot::channel().1);
        let written =
            std::future::poll_fn(|cx| stand_in.poll_write(&mut stream, cx, &[IoSlice::new(b"x")]));
        assert_eq!(written.await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
