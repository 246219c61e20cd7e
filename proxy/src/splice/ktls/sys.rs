//! The calls by which a socket is given keys, and by which records other than data go through it
//! (Documentation/networking/tls.rst of Linux).

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

use super::{Info, Suite};
use crate::splice::socket;

/// ContentType of RFC 8446 section 5.1.
pub(in crate::splice) const ALERT: u8 = 21;
pub(in crate::splice) const HANDSHAKE: u8 = 22;
pub(in crate::splice) const DATA: u8 = 23;

/// Of <linux/tls.h>.
const TLS_TX: libc::c_int = 1;
const TLS_RX: libc::c_int = 2;
const TLS_SET_RECORD_TYPE: libc::c_int = 1;
const TLS_GET_RECORD_TYPE: libc::c_int = 2;

/// Room for one control message with one byte, aligned as its head has to be.
#[repr(C)]
union Control {
    _head: libc::cmsghdr,
    bytes: [u8; 32],
}

/// Makes TLS the protocol of an established connection, which goes on as it was until it has keys.
///
/// # Errors
/// ENOENT without the module, ENOTCONN where one side has finished, EEXIST in a sockmap.
pub(in crate::splice) fn attach(socket: &impl AsFd) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")
}

/// What is written from now on is encrypted.
///
/// # Errors
/// EINVAL or ENOENT for what the kernel does not know.
pub(in crate::splice) fn send_by(socket: &impl AsFd, info: &Info) -> io::Result<()> {
    set_option(socket, libc::SOL_TLS, TLS_TX, info.bytes())
}

/// What waits to be read, and what comes, is taken for records.
///
/// # Errors
/// As [`send_by`].
pub(in crate::splice) fn receive_by(socket: &impl AsFd, info: &Info) -> io::Result<()> {
    set_option(socket, libc::SOL_TLS, TLS_RX, info.bytes())
}

/// The number of the next record that will be sent.
pub(in crate::splice) fn next_record(socket: &impl AsFd, suite: Suite) -> io::Result<u64> {
    let mut info = Info::empty(suite);
    // The kernel goes by what it is asked for, and gives keys along with the number.
    get_option(socket, libc::SOL_TLS, TLS_TX, info.bytes_mut())?;
    Ok(info.number())
}

/// Bytes that TCP has taken since the connection began: those that the peer has acknowledged, and
/// those that it has not.
pub(in crate::splice) fn taken_by_tcp(socket: &impl AsFd) -> io::Result<u64> {
    /// Where `tcpi_bytes_acked` of `struct tcp_info` begins (Linux 4.1).
    const ACKED: usize = 120;
    let mut info = [0; ACKED + 8];
    let mut unacknowledged = socket::unacknowledged(socket)?;
    loop {
        get_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
        // An acknowledgement in between is in one of the two figures and not in the other.
        let again = socket::unacknowledged(socket)?;
        if std::mem::replace(&mut unacknowledged, again) == again {
            let acked = u64::from_ne_bytes(*info.last_chunk().expect("eight bytes"));
            return Ok(acked + again as u64);
        }
    }
}

/// Sends a record of this type.
pub(in crate::splice) fn send_control(
    socket: &impl AsFd,
    kind: u8,
    bytes: &[u8],
) -> io::Result<usize> {
    let mut control = Control { bytes: [0; 32] };
    let (mut message, mut part) = (empty_message(), slice_of(bytes.as_ptr(), bytes.len()));
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // SAFETY: computes a size.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(1) } as _;
    // SAFETY: `msg_control` names room for a head and a byte, both inside `control`, which is
    // aligned as heads are.
    unsafe {
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        (*head).cmsg_level = libc::SOL_TLS;
        (*head).cmsg_type = TLS_SET_RECORD_TYPE;
        (*head).cmsg_len = libc::CMSG_LEN(1) as _;
        *libc::CMSG_DATA(head) = kind;
    }
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    retry(|| {
        // SAFETY: all that the message names outlives the call, which only reads it.
        unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) }
    })
}

/// Reads what is of one record, or of several if they are data, and says of which type it is. No
/// bytes of type [`DATA`]: the end of the connection.
pub(in crate::splice) fn receive(socket: &impl AsFd, room: &mut [u8]) -> io::Result<(usize, u8)> {
    receive_with(socket, room, libc::MSG_DONTWAIT)
}

/// The same, waiting as long as the socket does.
pub(in crate::splice) fn receive_with(
    socket: &impl AsFd,
    room: &mut [u8],
    flags: libc::c_int,
) -> io::Result<(usize, u8)> {
    let mut control = Control { bytes: [0; 32] };
    let (mut message, mut part) = (empty_message(), slice_of(room.as_mut_ptr(), room.len()));
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    let read = retry(|| {
        // SAFETY: the kernel writes into `room` and `control`, within the lengths given with
        // them, and both outlive the call.
        unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) }
    })?;
    // SAFETY: the kernel has left whole control messages in `control`, `msg_controllen` long.
    let kind = unsafe {
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        match head.is_null() {
            false
                if (*head).cmsg_level == libc::SOL_TLS
                    && (*head).cmsg_type == TLS_GET_RECORD_TYPE =>
            {
                *libc::CMSG_DATA(head)
            }
            _ => DATA,
        }
    };
    Ok((read, kind))
}

fn empty_message() -> libc::msghdr {
    // SAFETY: a structure of integers and pointers, for which zeros are null and none.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn slice_of(bytes: *const u8, length: usize) -> libc::iovec {
    libc::iovec { iov_base: bytes.cast_mut().cast(), iov_len: length }
}

fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(done) => return Ok(done),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

fn set_option(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call, and the kernel reads `value.len()` bytes
    // from a slice of that length and keeps none of the slice.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel fill all of `value`.
fn get_option(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut [u8],
) -> io::Result<()> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into a slice of that length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            ptr::from_mut(value).cast(),
            &raw mut length,
        )
    };
    match result {
        0 if length as usize == value.len() => Ok(()),
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
