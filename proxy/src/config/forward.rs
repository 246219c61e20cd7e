//! Whom and what a forward proxy serves.
//!
//! Pure: the forward path asks [`ForwardPolicy::permits`] about every address that a name
//! resolved to, just before it connects to that very address, so that a name cannot be
//! checked with one address and reached at another (DNS rebinding).
//! Invariant: an address is judged in its plainest form. An IPv4-mapped IPv6 address is
//! the IPv4 address it carries, or `::ffff:169.254.169.254` would walk past the deny list.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Whom and what a forward proxy serves. Deny wins over allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardPolicy {
    /// If not empty, only these destinations are reached.
    pub allow: Vec<IpNet>,
    /// Never reached. By default [`ForwardPolicy::default_deny`].
    pub deny: Vec<IpNet>,
    /// If not empty, only these destination ports are reached (inclusive ranges).
    pub allow_ports: Vec<(u16, u16)>,
    /// Never reached (inclusive ranges).
    pub deny_ports: Vec<(u16, u16)>,
    /// `user:password` pairs of Basic proxy authentication (RFC 7617); empty: nobody is asked.
    pub users: Vec<String>,
}

/// Destinations that nobody browses to but that attackers ask proxies for.
const DEFAULT_DENY: &[IpNet] = &[
    // Link-local: AWS, GCP, Azure and others serve machine credentials at 169.254.169.254.
    v4([169, 254, 0, 0], 16),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    // AWS metadata over IPv6; Alibaba Cloud metadata.
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    v4([100, 100, 100, 200], 32),
    // "This host" (RFC 1122, 3.2.1.3): Linux connects 0.0.0.0 and :: to loopback.
    v4([0, 0, 0, 0], 8),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
    // Multicast and broadcast: not a peer.
    v4([224, 0, 0, 0], 4),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    v4([255, 255, 255, 255], 32),
];

impl ForwardPolicy {
    /// The networks that are denied unless `deny_defaults = false`.
    pub fn default_deny() -> &'static [IpNet] {
        DEFAULT_DENY
    }

    /// Whether a connection to this address and port is permitted; if not, why.
    pub fn permits(&self, address: IpAddr, port: u16) -> Result<(), &'static str> {
        let address = address.to_canonical();
        let embedded = nat64(address);
        let denied = |ip: &IpAddr| self.deny.iter().any(|net| net.contains(ip));
        if denied(&address) || embedded.is_some_and(|ip| denied(&ip)) {
            return Err("destination address is in a denied network");
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|net| net.contains(&address)) {
            return Err("destination address is in no allowed network");
        }
        self.permits_port(port)
    }

    /// The same of what is known before a name is looked up.
    pub fn permits_port(&self, port: u16) -> Result<(), &'static str> {
        let within = |ranges: &[(u16, u16)]| ranges.iter().any(|&(a, z)| (a..=z).contains(&port));
        if port == 0 || within(&self.deny_ports) {
            return Err("destination port is denied");
        }
        if !self.allow_ports.is_empty() && !within(&self.allow_ports) {
            return Err("destination port is not among the allowed ports");
        }
        Ok(())
    }
}

impl Default for ForwardPolicy {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: DEFAULT_DENY.to_vec(),
            allow_ports: Vec::new(),
            deny_ports: Vec::new(),
            users: Vec::new(),
        }
    }
}

/// A network in the form that [`ForwardPolicy::permits`] compares with: a network inside
/// `::ffff:0:0/96` becomes the IPv4 network it stands for.
pub(crate) fn canonical(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(net, IpNet::V4),
            None => net,
        },
        _ => net,
    }
}

/// The IPv4 address that the well-known NAT64 prefix `64:ff9b::/96` (RFC 6052) leads to.
fn nat64(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V6(v6) => match v6.octets() {
            [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => {
                Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
            _ => None,
        },
        IpAddr::V4(_) => None,
    }
}

const fn v4(octets: [u8; 4], prefix: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(segments: [u16; 8], prefix: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = segments;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| canonical(net.parse().unwrap())).collect()
    }

    #[test]
    fn metadata_unspecified_and_multicast_are_denied_by_default_in_every_spelling() {
        let policy = ForwardPolicy::default();
        for (address, permitted) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("10.0.0.1", true),
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("100.100.100.201", true),
            ("64:ff9b::192.0.2.1", true),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("64:ff9b::169.254.169.254", false),
            ("fe80::1", false),
            ("febf::1", false),
            ("fd00:ec2::254", false),
            ("100.100.100.200", false),
            ("::ffff:100.100.100.200", false),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("::", false),
            ("::ffff:0.0.0.0", false),
            ("224.0.0.1", false),
            ("239.255.255.255", false),
            ("ff02::1", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(
                policy.permits(address.parse().unwrap(), 443).is_ok(),
                permitted,
                "{address}"
            );
        }
    }

    #[test]
    fn deny_wins_over_allow_and_an_allow_list_closes_the_rest() {
        let policy = ForwardPolicy {
            allow: nets(&["10.0.0.0/8", "::ffff:192.0.2.0/120", "2001:db8::/32"]),
            deny: nets(&["10.1.0.0/16"]),
            allow_ports: vec![(443, 443), (8000, 8999)],
            deny_ports: vec![(8080, 8080)],
            users: Vec::new(),
        };
        let denied = Err("destination address is in a denied network");
        let outside = Err("destination address is in no allowed network");
        let bad_port = Err("destination port is denied");
        let other_port = Err("destination port is not among the allowed ports");
        for (address, port, answer) in [
            ("10.0.0.1", 443, Ok(())),
            ("::ffff:10.0.0.1", 443, Ok(())),
            ("192.0.2.7", 8000, Ok(())),
            ("2001:db8::7", 8999, Ok(())),
            ("10.1.0.1", 443, denied),
            ("::ffff:10.1.0.1", 443, denied),
            ("192.0.3.7", 443, outside),
            ("2001:db9::1", 443, outside),
            ("10.0.0.1", 8080, bad_port),
            ("10.0.0.1", 0, bad_port),
            ("10.0.0.1", 22, other_port),
            ("10.0.0.1", 9000, other_port),
        ] {
            assert_eq!(policy.permits(address.parse().unwrap(), port), answer, "{address}:{port}");
        }
    }
}
