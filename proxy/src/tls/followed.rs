//! A socket that carries records of TLS, and where it stands between them.
//!
//! A session reads as much as there is, so what it holds may end in the middle of a record. Who
//! takes the connection over from it has to know (`splice/tls_end.rs`): the kernel begins with a
//! whole one. And a FIN is never an end in the middle of one.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// The socket of a connection with TLS.
#[derive(Debug)]
pub struct Followed {
    stream: TcpStream,
    record: Record,
}

impl Followed {
    /// Of a socket from which these bytes have been read, the first of it.
    pub fn behind(stream: TcpStream, bytes: &[u8]) -> Self {
        let record = Record::default();
        record.came(bytes);
        Self { stream, record }
    }

    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.stream
    }

    /// The socket, and where what was read from it ends.
    pub fn into_parts(self) -> (TcpStream, Record) {
        (self.stream, self.record)
    }
}

impl From<TcpStream> for Followed {
    /// Of a socket from which no record has been read.
    fn from(stream: TcpStream) -> Self {
        Self { stream, record: Record::default() }
    }
}

impl AsyncRead for Followed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, record } = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(stream).poll_read(cx, buf);
        record.came(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for Followed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Bytes before the payload of a record: type, version and length (RFC 8446 section 5.1).
const HEAD: usize = 5;

/// How far a record has come.
#[derive(Debug, Default)]
pub struct Record {
    /// Bytes of its head.
    head: Cell<usize>,
    /// Bytes that are missing of its payload.
    missing: Cell<usize>,
}

impl Record {
    /// Whether the next byte begins one.
    pub fn is_whole(&self) -> bool {
        self.head.get() == 0 && self.missing.get() == 0
    }

    /// How many bytes may be read without one of the record after this. Its length is not known
    /// before the last of them.
    pub fn left(&self) -> usize {
        match self.head.get() {
            at @ 0..HEAD => HEAD - at,
            _ => self.missing.get(),
        }
    }

    /// These have been read.
    pub fn came(&self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            match self.head.get() {
                // The length is in the last two.
                at @ 0..3 => self.head.set(at + 1),
                3 => {
                    self.head.set(4);
                    self.missing.set(usize::from(*first) << 8);
                }
                4 => {
                    self.missing.set(self.missing.get() | usize::from(*first));
                    self.head.set(if self.missing.get() == 0 { 0 } else { HEAD });
                }
                _ => {
                    let taken = bytes.len().min(self.missing.get());
                    self.missing.set(self.missing.get() - taken);
                    if self.missing.get() == 0 {
                        self.head.set(0);
                    }
                    bytes = &bytes[taken..];
                    continue;
                }
            }
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::{Followed, Record};

    const BYTES: [&[u8]; 3] = [&[23, 3, 3, 1, 2], &[0; 258], &[21, 3, 3, 0, 2, 1, 0]];

    #[test]
    fn records_are_whole_where_the_next_begins() {
        let bytes = BYTES.concat();
        for size in 1..=bytes.len() {
            let (record, mut come) = (Record::default(), 0);
            for chunk in bytes.chunks(size) {
                record.came(chunk);
                come += chunk.len();
                assert_eq!(record.is_whole(), matches!(come, 263 | 270), "{come} by {size}");
            }
        }
    }

    #[test]
    fn who_reads_what_is_left_stops_at_the_end_of_each_record() {
        let bytes = BYTES.concat();
        let (record, mut at, mut ends) = (Record::default(), 0, Vec::new());
        while at < bytes.len() {
            let piece = record.left().min(100);
            record.came(&bytes[at..at + piece]);
            at += piece;
            if record.is_whole() {
                ends.push(at);
            }
        }
        assert_eq!(ends, [263, 270]);
    }

    /// Another than the session may have read the beginning, and the session the rest of it.
    #[tokio::test]
    async fn what_was_read_before_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (cut, left) in [(0, 5), (3, 2), (5, 258), (200, 63), (263, 5), (268, 2), (270, 5)] {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let followed = Followed::behind(stream, &BYTES.concat()[..cut]);
            let (_, record) = followed.into_parts();
            assert_eq!(record.left(), left, "{cut}");
            assert_eq!(record.is_whole(), matches!(cut, 0 | 263 | 270), "{cut}");
        }
    }
}
