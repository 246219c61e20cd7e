//! What `up_hop` is asked of a connection, in the form that the program reads.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use proxy_ebpf::{HopRequest, SocketKey};

/// `own` and `peer` are the addresses of our end.
///
/// # Errors
/// `InvalidInput` for addresses of two families.
pub(super) fn request(
    own: SocketAddr,
    peer: SocketAddr,
    action: u32,
    key: SocketKey,
) -> io::Result<HopRequest> {
    let words = |address: IpAddr| match address {
        IpAddr::V4(v4) => [u32::from_ne_bytes(v4.octets()), 0, 0, 0],
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            std::array::from_fn(|word| {
                u32::from_ne_bytes(octets[4 * word..][..4].try_into().expect("four of sixteen"))
            })
        }
    };
    // An IPv6 socket that speaks IPv4 (v4-mapped) is found by its IPv4 addresses.
    let (own_ip, peer_ip) = (own.ip().to_canonical(), peer.ip().to_canonical());
    if own_ip.is_ipv4() != peer_ip.is_ipv4() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(HopRequest {
        peer_address: words(peer_ip),
        own_address: words(own_ip),
        peer_port: peer.port().to_be(),
        own_port: own.port().to_be(),
        is_v6: own_ip.is_ipv6().into(),
        action,
        reserved: 0,
        key,
    })
}
