//! The PROXY protocol, versions 1 and 2: what a proxy in front says of a connection before its
//! first byte, and what we say to a server.
//!
//! The header of a trusted peer names the client, and takes the place of the peer's address
//! everywhere: in the log, in forwarding fields, in rules and limits by address. It is read to
//! its last byte and not beyond, so that what follows it is in the socket as if there had been
//! none: TLS, HTTP or a tunnel, by whichever engine.
//!
//! Source: "The PROXY protocol, versions 1 & 2", W. Tarreau, haproxy.org, doc/proxy-protocol.txt.
//!
//! Pure: [`header`], [`mod@write`]. I/O: [`read`].

use std::net::{IpAddr, SocketAddr};

pub mod header;
pub mod read;
#[cfg(test)]
mod tests;
pub mod write;

/// What a proxy in front says of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
    /// More about it (section 2.2.7), in the form it came, without padding and checksum. For
    /// servers; we do not look into it.
    pub tlvs: Box<[u8]>,
}

/// Both ends of a connection in one address family, as a header needs them: IPv4 if both are
/// or stand for such an address.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| -> SocketAddr {
        SocketAddr::new(address.ip().to_canonical(), address.port())
    };
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (mapped(source), mapped(destination))
}
