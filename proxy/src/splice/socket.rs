//! What is asked of a TCP socket at the end of a tunnel: what has not arrived yet, and a
//! close that the peer cannot take for a clean one.

use std::{io, time::Duration};

use rustix::ioctl::{Getter, Opcode, ioctl};
use tokio::net::TcpStream;

/// SIOCOUTQ of <linux/sockios.h> (the number of TIOCOUTQ).
const SIOCOUTQ: Opcode = 0x5411;

/// Bytes written to the socket that its peer has not acknowledged.
pub(crate) fn unacknowledged(socket: &TcpStream) -> io::Result<usize> {
    // SAFETY: SIOCOUTQ writes one int through its pointer and keeps nothing (tcp(7)).
    let bytes = unsafe { ioctl(socket, Getter::<SIOCOUTQ, std::ffi::c_int>::new()) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Makes the coming close a reset: the peer reads ECONNRESET, not the end.
///
/// Whatever is still queued for the peer is lost with it.
pub(crate) fn reset_on_close(socket: &TcpStream) {
    // Fails only on a socket that is gone, and then there is nothing to reset.
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
