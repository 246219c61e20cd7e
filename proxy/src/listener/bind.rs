//! Sockets that listen: one per worker and address, so that the kernel spreads
//! connections without a shared accept queue.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections waiting to be accepted, per socket; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 4096;

/// Binds `count` sockets to one address. Port 0 is picked once, for all.
///
/// # Errors
/// As bind(2), also `AddrInUse` where another process of the same user listens with
/// SO_REUSEPORT: silently sharing its port would hand it half of our connections.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        // Without SO_REUSEPORT this fails if anybody listens there. Not listening itself,
        // it leaves no trace.
        let probe = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        probe.set_reuse_address(true)?;
        if address.is_ipv6() {
            probe.set_only_v6(true)?;
        }
        probe.bind(&address.into())?;
    }
    let first = bind_one(address)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(bind_one(bound)?);
    }
    Ok(sockets)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_picked_port_and_strangers_do_not() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert_eq!(bind(address, 2).unwrap().len(), 2);
    }
}
