//! What is asked of a TCP socket at the end of a tunnel: what has not arrived yet, and a
//! close that the peer cannot take for a clean one.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use proxy_ebpf::Protection;
use rustix::ioctl::{Getter, Opcode, ioctl};
use tokio::{io::Interest, net::TcpStream, time::timeout};

use super::without::without;

/// First and longest wait between two looks at a send queue that is to become empty; the
/// kernel has no event for it. An acknowledgement takes a round trip: from loopback's
/// fraction of a millisecond to a satellite's half second.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// SIOCOUTQ of <linux/sockios.h> (the number of TIOCOUTQ).
const SIOCOUTQ: Opcode = 0x5411;

/// SIOCATMARK of <asm/sockios.h>.
const SIOCATMARK: Opcode = 0x8905;

/// Bytes written to the socket that its peer has not acknowledged.
pub(crate) fn unacknowledged(socket: &impl AsFd) -> io::Result<usize> {
    // SAFETY: SIOCOUTQ writes one int through its pointer and keeps nothing (tcp(7)).
    let bytes = unsafe { ioctl(socket, Getter::<SIOCOUTQ, std::ffi::c_int>::new()) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Whether the next byte to read is the last of urgent data, in front of which others than recv(2) stop.
pub(super) fn is_at_urgent(socket: &impl AsFd) -> bool {
    // SAFETY: SIOCATMARK writes one int through its pointer and keeps nothing (tcp(7)).
    let at = unsafe { ioctl(socket, Getter::<SIOCATMARK, std::ffi::c_int>::new()) };
    at.is_ok_and(|at| at != 0)
}

/// Whether closing the socket, by whatever way the process comes to that, is a reset: the
/// peer reads ECONNRESET, not the end, and what is still queued for it is lost.
pub(crate) fn reset_on_close(socket: &TcpStream, reset: bool) {
    // Fails only on a socket that is gone, and then there is nothing to reset.
    let reset = reset && !without(Protection::Reset);
    let _ = socket2::SockRef::from(socket).set_linger(reset.then_some(Duration::ZERO));
}

/// Has urgent data (TCP's URG) read in its place among the other bytes, instead of left out. What
/// is said by it being urgent ends here: RFC 6093 has applications do the same (section 6).
pub(crate) fn inline_urgent(socket: &TcpStream) {
    // Fails only on a socket that is gone.
    let _ = socket2::SockRef::from(socket).set_out_of_band_inline(true);
}

/// Resolves when the connection has failed, though nobody reads or writes: EPOLLERR comes with
/// a reset even while our receive side is not being read.
pub(crate) async fn failed(socket: &TcpStream) -> io::Error {
    loop {
        if let Err(error) = socket.ready(Interest::ERROR).await {
            return error;
        }
        match socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return error,
        }
        // A read or write has taken the error and reported it: wait for the next event.
        let _ = socket.try_io(Interest::ERROR, || -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        });
    }
}

/// Resolves when the peer's kernel has everything, or cannot get it any more.
pub(crate) async fn delivered(socket: &TcpStream) {
    let mut wait = LOOK_AGAIN.0;
    while unacknowledged(socket).is_ok_and(|bytes| bytes > 0) {
        // A socket that has failed keeps its count.
        if timeout(wait, failed(socket)).await.is_ok() {
            return;
        }
        wait = (wait * 2).min(LOOK_AGAIN.1);
    }
}

/// Sets SO_RCVLOWAT: how many bytes have to be there before the kernel tells of them (up to
/// half of what the socket may hold), and has it look at once.
pub(crate) fn set_receive_low_water(socket: &impl AsRawFd, bytes: i32) -> io::Result<()> {
    if without(Protection::Nudge) {
        return Ok(());
    }
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the option reads one int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has connect(2) wait for the first write, which then goes out with the first segment, if the
/// server has given a cookie before (TCP Fast Open, RFC 7413; `TCP_FASTOPEN_CONNECT`, Linux 4.11).
/// Without a cookie it connects as ever and asks for one.
///
/// # Errors
/// If the kernel has it not, or net.ipv4.tcp_fastopen forbids it to clients.
pub(crate) fn set_fast_open(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option reads one int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN_CONNECT,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the peer has yet to answer the first segment, or that has yet to be sent.
pub(crate) fn is_connecting(socket: &impl AsRawFd) -> bool {
    /// TCP_SYN_SENT of <net/tcp_states.h>.
    const SYN_SENT: u8 = 2;
    // The first field of `struct tcp_info` is all that is asked for.
    let mut state = 0u8;
    let mut length = size_of::<u8>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `state`, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    result == 0 && state == SYN_SENT
}

/// Sets the send buffer beyond net.core.wmem_max (needs CAP_NET_ADMIN); the kernel doubles
/// the number and no longer adapts it.
pub(crate) fn force_send_buffer(socket: &TcpStream, bytes: usize) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_send_buffer_size_force(socket, bytes)?)
}
