//! Sockets that listen: one per worker and address, so that the kernel spreads
//! connections without a shared accept queue.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections waiting to be accepted, per socket; the kernel caps it at `somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// Binds `count` sockets to one address. Port 0 is picked once, for all. Without `ipv6_only` the
/// address `::` takes IPv4 clients as well, as v4-mapped addresses (RFC 4291 section 2.5.5.2).
///
/// `port_is_ours`: this process listens on that port already, if on another address.
///
/// # Errors
/// As bind(2), also `AddrInUse` where another process of the same user listens with
/// SO_REUSEPORT: silently sharing its port would hand it half of our connections.
pub fn bind(
    address: SocketAddr,
    ipv6_only: bool,
    count: usize,
    port_is_ours: bool,
) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 && !port_is_ours {
        // Without SO_REUSEPORT this fails if anybody listens there. Not listening itself,
        // it leaves no trace.
        socket(address, ipv6_only)?.bind(&address.into())?;
    }
    let first = bind_one(address, ipv6_only)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(bind_one(bound, ipv6_only)?);
    }
    Ok(sockets)
}

/// One more socket beside `socket`, which another process has bound to `address`: of its own
/// where that shares the port, else a copy.
///
/// # Errors
/// As bind(2) and dup(2).
pub fn another(
    socket: &TcpListener,
    address: SocketAddr,
    ipv6_only: bool,
) -> io::Result<TcpListener> {
    if socket2::SockRef::from(socket).reuse_port()? {
        // Refused where another user bound the first.
        if let Ok(another) = bind_one(address, ipv6_only) {
            return Ok(another);
        }
    }
    socket.try_clone()
}

fn bind_one(address: SocketAddr, ipv6_only: bool) -> io::Result<TcpListener> {
    let socket = socket(address, ipv6_only)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, ipv6_only: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if let IpAddr::V6(ip) = address.ip() {
        // An IPv4 address in the clothes of IPv6 is one that only IPv4 clients reach.
        socket.set_only_v6(ipv6_only && ip.to_ipv4_mapped().is_none())?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_picked_port_and_strangers_do_not() {
        let sockets = bind("127.0.0.1:0".parse().unwrap(), true, 3, false).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        assert_eq!(bind(address, true, 1, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert_eq!(bind(address, true, 2, false).unwrap().len(), 2);
    }

    #[test]
    fn clients_of_ipv4_come_to_ipv6_sockets_where_they_are_let() {
        for (address, ipv6_only, expected) in
            [("[::]:0", true, false), ("[::]:0", false, true), ("[::ffff:127.0.0.1]:0", true, true)]
        {
            let Ok(sockets) = bind(address.parse().unwrap(), ipv6_only, 1, false) else {
                eprintln!("skipped: no IPv6 on this host");
                return;
            };
            let port = sockets[0].local_addr().unwrap().port();
            let reached = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            assert_eq!(reached, expected, "{address}, ipv6_only = {ipv6_only}");
        }
    }
}
