//! Trailer sections as they came, announced or not.
//!
//! hyper writes only those trailers that a `Trailer` field announced, and to clients only
//! if they said `TE: trailers`; RFC 9110 section 6.6.2 asks for neither. So a trailer
//! section goes round it: the body ends without one, and here, where the bytes go to the
//! socket, the section takes the place of the empty line behind the last chunk.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, BytesMut};
use http::HeaderMap;
use tokio::io::AsyncWrite;

use super::fields;
use crate::transport::Transport;

/// As many slices as hyper gives at once (`MAX_WRITEV_BUFS`); with as many there may be more.
const MAX_SLICES: usize = 64;

/// The empty line that ends a chunked body without trailers.
const END: usize = b"\r\n".len();

/// A trailer section that waits for its place.
#[derive(Debug, Default)]
pub struct Tail {
    section: RefCell<BytesMut>,
    /// Whether what hyper has queued ends with its place.
    follows: Cell<bool>,
}

impl Tail {
    /// Takes a section, of a chunked body whose end hyper is to be told of next.
    pub fn set(&self, trailers: &HeaderMap) {
        let mut section = BytesMut::new();
        for (name, value) in trailers {
            if !fields::is_forbidden_trailer(name.as_str().as_bytes()) {
                section.put_slice(name.as_str().as_bytes());
                section.put_slice(b": ");
                section.put_slice(value.as_bytes());
                section.put_slice(b"\r\n");
            }
        }
        if !section.is_empty() {
            section.put_slice(b"\r\n");
        }
        *self.section.borrow_mut() = section;
    }

    /// hyper is told that the body has ended: what it writes next ends with the place of the
    /// section. To be called before it is told.
    pub fn follows(&self) {
        self.follows.set(!self.section.borrow().is_empty());
    }

    /// Whether a section has yet to be put in its place.
    pub(super) fn is_next(&self) -> bool {
        self.follows.get()
    }

    /// Writes what hyper has queued, and the section at its place.
    pub(super) fn poll_write(
        &self,
        stream: &mut Transport,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.follows.get() {
            return Pin::new(stream).poll_write_vectored(cx, bufs);
        }
        let mut section = self.section.borrow_mut();
        // The end of the body is queued, and nothing behind it: the last bytes of a list that
        // is whole are the empty line.
        if bufs.len() >= MAX_SLICES {
            return Pin::new(stream).poll_write_vectored(cx, &bufs[..MAX_SLICES - 1]);
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total > END {
            let mut shortened = [IoSlice::new(&[]); MAX_SLICES];
            let mut left = total - END;
            let mut used = 0;
            for (slice, buf) in shortened.iter_mut().zip(bufs) {
                let length = buf.len().min(left);
                *slice = IoSlice::new(&buf[..length]);
                left -= length;
                used += usize::from(length > 0);
            }
            return Pin::new(stream).poll_write_vectored(cx, &shortened[..used]);
        }
        while !section.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &section))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            section.advance(written);
        }
        *section = BytesMut::new();
        self.follows.set(false);
        Poll::Ready(Ok(total))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Writes `bytes`, cut into slices of `size`, as hyper would.
    async fn write(tail: &Tail, stream: &mut Transport, bytes: &[u8], size: usize) {
        let mut at = 0;
        while at < bytes.len() {
            let slices: Vec<_> =
                bytes[at..].chunks(size).take(MAX_SLICES).map(IoSlice::new).collect();
            at += poll_fn(|cx| tail.poll_write(stream, cx, &slices)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_section_takes_the_place_of_the_empty_line() {
        for size in [1, 2, 3, 100] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut stream = TcpStream::connect(address).await.unwrap().into();
            let (mut peer, _) = listener.accept().await.unwrap();
            let tail = Tail::default();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "1".parse().unwrap());
            trailers.insert("content-length", "5".parse().unwrap());
            // Until the body has ended there is no place for them.
            tail.set(&trailers);
            write(&tail, &mut stream, b"3\r\nabc\r\n", size).await;
            tail.follows();
            // Long enough for more slices than one list holds.
            let data = "x".repeat(200);
            write(&tail, &mut stream, format!("c8\r\n{data}\r\n0\r\n\r\n").as_bytes(), size).await;
            write(&tail, &mut stream, b"next\r\n", size).await;
            drop(stream);
            let mut seen = String::new();
            peer.read_to_string(&mut seen).await.unwrap();
            let wanted = format!("3\r\nabc\r\nc8\r\n{data}\r\n0\r\nx-sum: 1\r\n\r\nnext\r\n");
            assert_eq!(seen, wanted, "slices of {size}");
        }
    }
}
