//! Names to addresses to a connected socket. Runs off the hot path.
//!
//! Implements: REQ-CORE-001.F-001

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::net::{TcpSocket, TcpStream};

use crate::{
    config::{ForwardPolicy, Server},
    error::{Error, Kind},
    splice::socket::set_fast_open,
};

/// What the first bytes on a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// Such as the server is to get once.
    Once,
    /// Such as it may get twice, so that they may go out with the first segment (TCP Fast Open:
    /// a segment may be repeated by the network, RFC 7413 section 6). What becomes of that
    /// segment is then seen by whoever writes.
    Repeatable,
}

/// Connects to a server, trying its addresses in the order the system gives.
///
/// With a `policy` only addresses it permits are tried: the look-up and the check are of
/// the same addresses, so a name cannot point elsewhere in between.
///
/// # Errors
/// [`Kind::Resolve`], [`Kind::Connect`], [`Kind::Forbidden`]. No time limit of its own.
pub async fn connect(
    server: &Server,
    policy: Option<&ForwardPolicy>,
    first: First,
) -> Result<(TcpStream, SocketAddr), Error> {
    let addresses = resolve(server).await?;
    let mut last = Error::new(Kind::Resolve).retry_safe();
    for address in addresses {
        if let Some(policy) = policy
            && let Err(rule) = policy.permits(address.ip(), address.port())
        {
            last = Error::new(Kind::Forbidden(rule));
            continue;
        }
        match open(address, first).await {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => last = Error::because(Kind::Connect, error).retry_safe(),
        }
    }
    Err(last)
}

/// Given up before its user has said otherwise, a connection is reset: the server would take
/// a clean end for one that the client meant.
async fn open(address: SocketAddr, first: First) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    if first == First::Repeatable {
        // Where it is not to be had the connection is one as ever.
        let _ = set_fast_open(&socket);
    }
    socket.connect(address).await
}

async fn resolve(server: &Server) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = server.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, server.port)]);
    }
    // getaddrinfo, on a thread of the runtime's blocking pool: a slow resolver holds up
    // this request only.
    match tokio::net::lookup_host((server.host.as_str(), server.port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(Error::because(Kind::Resolve, error).retry_safe()),
    }
}
