//! A sender that says again what it has said: its next segment begins with bytes that the
//! other end has, as after a repeat that was cut anew.
//!
//! The kernel lets a socket be moved to another one with its place in both streams (TCP_REPAIR,
//! Linux 3.5, made for moving containers, needs CAP_NET_ADMIN). Here it gets a place further back.

use std::{
    io, mem,
    net::{SocketAddr, TcpStream},
    os::fd::{AsRawFd, RawFd},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

// <linux/tcp.h>.
const TCP_MAXSEG: i32 = 2;
const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_QUEUE: i32 = 20;
const TCP_QUEUE_SEQ: i32 = 21;
const TCP_REPAIR_OPTIONS: i32 = 22;
const TCP_TIMESTAMP: i32 = 24;
const TCP_REPAIR_WINDOW: i32 = 29;
const RECEIVE_QUEUE: u32 = 1;
const SEND_QUEUE: u32 = 2;
/// Ends the repair without a probe of the window.
const TCP_REPAIR_OFF_NO_WP: i32 = -1;

/// Options as they are numbered in a segment (RFC 9293, section 3.2; RFC 7323; RFC 2018).
const OPTIONS: [(u32, u32); 4] = [(2, SEGMENT), (3, 7 | 7 << 16), (4, 0), (8, 0)];

/// Longest segment that is sent, the most that TCP_MAXSEG takes; less 12 for the timestamp.
pub const SEGMENT: u32 = 32_767;

/// `struct tcp_repair_window`.
#[repr(C)]
#[derive(Default)]
struct Window {
    snd_wl1: u32,
    snd_wnd: u32,
    max_window: u32,
    rcv_wnd: u32,
    rcv_wup: u32,
}

/// The same connection, of which the last `bytes` that were sent will be sent again. The
/// other end has to have acknowledged everything. Fewer than [`SEGMENT`]: what is all old is
/// for the other end's TCP.
pub fn repeats(stream: TcpStream, bytes: u32) -> io::Result<TcpStream> {
    let (own, peer) = (stream.local_addr()?, stream.peer_addr()?);
    let old = stream.as_raw_fd();
    set(old, TCP_REPAIR, 1)?;
    set(old, TCP_REPAIR_QUEUE, SEND_QUEUE)?;
    let sent: u32 = get(old, TCP_QUEUE_SEQ)?;
    set(old, TCP_REPAIR_QUEUE, RECEIVE_QUEUE)?;
    let received: u32 = get(old, TCP_QUEUE_SEQ)?;
    let clock: u32 = get(old, TCP_TIMESTAMP)?;
    // In repair it goes without a word to the other end.
    drop(stream);

    let socket = Socket::new(Domain::for_address(own), Type::STREAM, None)?;
    let new = socket.as_raw_fd();
    set(new, TCP_REPAIR, 1)?;
    set(new, TCP_MAXSEG, SEGMENT)?;
    socket.bind(&own.into())?;
    set(new, TCP_REPAIR_QUEUE, SEND_QUEUE)?;
    set(new, TCP_QUEUE_SEQ, sent.wrapping_sub(bytes))?;
    set(new, TCP_REPAIR_QUEUE, RECEIVE_QUEUE)?;
    set(new, TCP_QUEUE_SEQ, received)?;
    connect(&socket, peer)?;
    set(new, TCP_REPAIR_OPTIONS, OPTIONS)?;
    set(new, TCP_TIMESTAMP, clock)?;
    let window = Window {
        snd_wl1: received,
        snd_wnd: 60_000,
        max_window: 60_000,
        rcv_wnd: 60_000,
        rcv_wup: received,
    };
    set(new, TCP_REPAIR_WINDOW, window)?;
    set(new, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Closes a socket without a word to the other end, whose connection goes on.
pub fn vanishes(stream: TcpStream) -> io::Result<()> {
    set(stream.as_raw_fd(), TCP_REPAIR, 1)
}

/// A process that is being started holds the old socket until it has its own program.
fn connect(socket: &Socket, peer: SocketAddr) -> io::Result<()> {
    for _ in 0..2000 {
        match socket.connect(&peer.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
    Err(io::ErrorKind::AddrNotAvailable.into())
}

fn set<T>(socket: RawFd, option: i32, value: T) -> io::Result<()> {
    let (value, length) = ((&raw const value).cast(), mem::size_of::<T>() as libc::socklen_t);
    // SAFETY: an open socket, a value of the length given.
    match unsafe { libc::setsockopt(socket, libc::IPPROTO_TCP, option, value, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn get<T: Default>(socket: RawFd, option: i32) -> io::Result<T> {
    let mut value = T::default();
    let mut length = mem::size_of::<T>() as libc::socklen_t;
    let at = (&raw mut value).cast();
    // SAFETY: an open socket, a value of the length given.
    match unsafe { libc::getsockopt(socket, libc::IPPROTO_TCP, option, at, &raw mut length) } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}
