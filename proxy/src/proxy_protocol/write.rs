//! The header that a server is sent before the first byte.

use std::net::{IpAddr, SocketAddr};

use ppp::v2;

use super::{Announced, same_family};

/// Which form it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text; no TLVs.
    V1,
    /// Binary, with the TLVs that came.
    V2,
}

/// Version 2 with the commands LOCAL and PROXY (section 2.2).
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// The header that tells of a client: what was said of it, or its own address and `local`,
/// where it connected to.
pub fn header(
    version: Version,
    announced: Option<&Announced>,
    peer: SocketAddr,
    local: impl FnOnce() -> SocketAddr,
) -> Vec<u8> {
    let (source, destination, tlvs) = match announced {
        Some(said) => (said.source, said.destination, &*said.tlvs),
        None => (peer, local(), &[][..]),
    };
    let (source, destination) = same_family(source, destination);
    match version {
        Version::V1 => line(source, destination),
        Version::V2 => binary(source, destination, tlvs),
    }
}

/// The header for a connection of our own, such as a check: the server is to take it for what
/// its socket says.
pub fn own(version: Version) -> Vec<u8> {
    match version {
        Version::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        Version::V2 => [v2::PROTOCOL_PREFIX, &[LOCAL, 0, 0, 0]].concat(),
    }
}

fn line(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let (from_port, to_port) = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

/// What does not fit behind the addresses is left out: nothing of that size is ever read.
fn binary(source: SocketAddr, destination: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(36 + tlvs.len());
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(ip) => body.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => body.extend_from_slice(&ip.octets()),
        }
    }
    body.extend_from_slice(&source.port().to_be_bytes());
    body.extend_from_slice(&destination.port().to_be_bytes());
    if body.len() + tlvs.len() <= usize::from(u16::MAX) {
        body.extend_from_slice(tlvs);
    }
    // TCP over IPv4, TCP over IPv6.
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    let length = (body.len() as u16).to_be_bytes();
    [v2::PROTOCOL_PREFIX, &[PROXY, family], &length, &body].concat()
}
