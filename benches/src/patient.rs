//! Sockets with O_NONBLOCK, and waiting beside the call.
//!
//! All peers here use their sockets like programs built on an event loop: local bypass leaves
//! sockets in blocking mode out, and a call that waits inside the kernel would be another load
//! than one that does not.

use std::{
    io::{self, ErrorKind::WouldBlock},
    net::TcpStream,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, SendFlags},
};

/// Sends all of it. Waits for room for so long at most each time.
pub(crate) fn send_all(stream: &TcpStream, bytes: &[u8], patience: Duration) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        match rustix::net::send(stream, &bytes[sent..], SendFlags::NOSIGNAL) {
            Ok(n) => sent += n,
            Err(error) => wait(stream, PollFlags::OUT, error, patience)?,
        }
    }
    Ok(())
}

/// Receives what is there; 0 is the end. Waits for so long at most.
pub(crate) fn receive(
    stream: &TcpStream,
    room: &mut [u8],
    patience: Duration,
) -> io::Result<usize> {
    loop {
        match rustix::net::recv(stream, &mut *room, RecvFlags::empty()) {
            Ok((_, n)) => return Ok(n),
            Err(error) => wait(stream, PollFlags::IN, error, patience)?,
        }
    }
}

fn wait(
    stream: &TcpStream,
    flags: PollFlags,
    error: rustix::io::Errno,
    patience: Duration,
) -> io::Result<()> {
    let error = io::Error::from(error);
    if error.kind() != WouldBlock {
        return Err(error);
    }
    let limit = Timespec::try_from(patience).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut [PollFd::new(stream, flags)], Some(&limit))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
