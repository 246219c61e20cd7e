//! By what requests are told apart, for limits. Pure.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;

use crate::config::middleware::Key;

/// Whose request it is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose<'a> {
    Anybody,
    Address(IpAddr),
    Value(&'a [u8]),
}

impl<'a> Whose<'a> {
    /// `client` is the address of the other end of the connection.
    pub(super) fn of(key: &Key, client: IpAddr, fields: &'a HeaderMap) -> Self {
        match key {
            Key::All => Whose::Anybody,
            Key::Client => Whose::Address(network(client)),
            Key::Field(name) => match fields.get(name) {
                Some(value) => Whose::Value(value.as_bytes()),
                None => Whose::Address(network(client)),
            },
        }
    }
}

/// A subscriber gets a /64 at least (RFC 6177), and could count as many.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn neighbours_of_ipv6_are_one_and_mapped_addresses_are_those_they_map() {
        let fields = HeaderMap::new();
        let whose = |text: &str| Whose::of(&Key::Client, text.parse().unwrap(), &fields);
        assert_eq!(whose("2001:db8::1"), whose("2001:db8::ffff:1"));
        assert_ne!(whose("2001:db8::1"), whose("2001:db8:0:1::1"));
        assert_eq!(whose("::ffff:192.0.2.1"), whose("192.0.2.1"));
        assert_ne!(whose("192.0.2.1"), whose("192.0.2.2"));
    }

    #[test]
    fn who_does_not_say_a_value_is_known_by_the_address() {
        let key = Key::Field(HeaderName::from_static("x-api-key"));
        let client = IpAddr::from([192, 0, 2, 1]);
        let mut fields = HeaderMap::new();
        assert_eq!(Whose::of(&key, client, &fields), Whose::Address(client));
        fields.insert("x-api-key", HeaderValue::from_static("k"));
        assert_eq!(Whose::of(&key, client, &fields), Whose::Value(b"k"));
        assert_eq!(Whose::of(&Key::All, client, &fields), Whose::Anybody);
    }
}
