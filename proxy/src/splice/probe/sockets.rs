//! Private loopback connections for the probes, and the probes of socket options.
//!
//! Invariant: blocking sockets with a bound on every wait; nothing here is used on the
//! path of a connection.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket, Type};

/// An established connection, both ends ours.
#[derive(Debug)]
pub(super) struct Pair {
    /// The end that a mechanism is tried on.
    pub(super) near: TcpStream,
    /// The other end.
    pub(super) far: TcpStream,
}

impl Pair {
    /// Connects over loopback; no wait on it is longer than `patience`.
    pub(super) fn connect(patience: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let far = TcpStream::connect_timeout(&listener.local_addr()?, patience)?;
        // The port is open to the whole machine: take the one connection that is ours.
        let near = loop {
            let (near, peer) = listener.accept()?;
            if peer == far.local_addr()? {
                break near;
            }
        };
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            stream.set_nodelay(true)?;
        }
        Ok(Self { near, far })
    }

    /// Sends from the far end.
    pub(super) fn write_far(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.far.write_all(bytes)
    }

    /// Reads exactly this at the far end.
    pub(super) fn expect_far(&mut self, bytes: &[u8]) -> io::Result<()> {
        expect(&mut self.far, bytes)
    }
}

/// Bytes that no shift, loss or repetition turns into themselves.
pub(super) fn pattern(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(next).collect()
}

fn expect(stream: &mut TcpStream, wanted: &[u8]) -> io::Result<()> {
    let mut found = vec![0; wanted.len()];
    stream.read_exact(&mut found).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::other("bytes were sent and did not arrive")
        }
        _ => error,
    })?;
    if found == wanted { Ok(()) } else { Err(io::Error::other("bytes arrived changed")) }
}

/// Two listeners on one port.
pub(super) fn reuseport() -> io::Result<()> {
    listeners(2).map(|_| ())
}

/// So many listeners on one port of loopback, which do not block.
pub(super) fn listeners(count: usize) -> io::Result<Vec<TcpListener>> {
    let mut address: SockAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into();
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address)?;
        socket.listen(16)?;
        address = socket.local_addr()?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

/// A connection whose first bytes may go with its SYN. Whether they do is up to the peer's
/// cookie; that they arrive is what counts.
pub(super) fn fastopen() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &1i32.to_ne_bytes())?;
    socket.set_write_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(&listener.local_addr()?.into())?;
    let mut far = TcpStream::from(socket);
    far.write_all(b"early")?;
    let (mut near, _) = listener.accept()?;
    near.set_read_timeout(Some(Duration::from_secs(2)))?;
    expect(&mut near, b"early")
}

fn set_option(socket: &impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call, and the kernel reads `value.len()`
    // bytes from a slice of that length and keeps nothing.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_has_no_short_period() {
        let pattern = pattern(4096);
        for shift in 1..512 {
            assert_ne!(pattern[..512], pattern[shift..shift + 512], "shifted by {shift}");
        }
    }

    #[test]
    fn two_listeners_share_a_port() {
        reuseport().unwrap();
    }
}
