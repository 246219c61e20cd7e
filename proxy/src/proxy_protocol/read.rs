//! A header read from a socket, to its last byte and not beyond.
//!
//! Invariant: what is not of the header stays in the socket. Version 2 says how long it is. A
//! line of version 1 is looked at before it is taken (MSG_PEEK), so far as it may go.

use std::io;

use tokio::{net::TcpStream, time::Instant};

use super::header::{self, FIRST_BYTES, Next, Said};
use crate::error::{Error, Kind};

/// Longest piece that is looked at, or taken, at once.
const PIECE_BYTES: usize = 512;

/// Reads the header with which a connection begins.
///
/// # Errors
/// [`Kind::BadProxyHeader`]; [`Kind::HeadTimeout`] at `deadline`, where there is one;
/// [`Kind::ClientGone`].
pub async fn header(stream: &TcpStream, deadline: Option<Instant>) -> Result<Said, Error> {
    let reading = read(stream);
    match deadline {
        None => reading.await,
        Some(deadline) => tokio::time::timeout_at(deadline, reading)
            .await
            .unwrap_or_else(|_| Err(Error::new(Kind::HeadTimeout))),
    }
}

async fn read(stream: &TcpStream) -> Result<Said, Error> {
    let mut header = Vec::with_capacity(FIRST_BYTES);
    let mut piece = [0; PIECE_BYTES];
    loop {
        let bad = |rule| Error::new(Kind::BadProxyHeader(rule));
        let wanted = match header::next(&header).map_err(bad)? {
            Next::End => return header::said(&header).map_err(bad),
            Next::Bytes(count) => count.min(PIECE_BYTES),
            Next::Line(most) => {
                let seen = stream.peek(&mut piece[..most.min(PIECE_BYTES)]).await;
                let seen = came(seen)?;
                memchr::memchr(b'\n', &piece[..seen]).map_or(seen, |end| end + 1)
            }
        };
        let read = came(take(stream, &mut piece[..wanted]).await)?;
        header.extend_from_slice(&piece[..read]);
    }
}

async fn take(stream: &TcpStream, piece: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(piece) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

/// How many bytes have come, which is some.
fn came(read: io::Result<usize>) -> Result<usize, Error> {
    match read {
        Ok(0) => Err(Error::new(Kind::ClientGone)),
        Ok(count) => Ok(count),
        Err(error) => Err(Error::because(Kind::ClientGone, error)),
    }
}
