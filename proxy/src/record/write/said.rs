//! Times and addresses as texts, made of the one before: of exchanges that follow each other the
//! second is the same, and so is the host.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, UNIX_EPOCH},
};

use super::json::{digits, padded};
use crate::access_log::timestamp::Rfc3339Micros;

/// The last second, in text.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: u64,
    text: Vec<u8>,
}

/// `2026-02-03T04:05:06.`
const SECOND_BYTES: usize = 20;

impl Clock {
    /// Appends a time, in microseconds since 1970.
    pub(super) fn say(&mut self, out: &mut Vec<u8>, micros: u64) {
        let second = micros / 1_000_000;
        if self.text.is_empty() || self.second != second {
            self.second = second;
            self.text.clear();
            let _ =
                write!(self.text, "{}", Rfc3339Micros(UNIX_EPOCH + Duration::from_secs(second)));
            self.text.truncate(SECOND_BYTES);
        }
        out.extend_from_slice(&self.text);
        padded(out, micros % 1_000_000, 6);
        out.push(b'Z');
    }
}

/// The last host, in text.
#[derive(Debug)]
pub(super) struct Host {
    address: IpAddr,
    text: Vec<u8>,
}

impl Default for Host {
    fn default() -> Self {
        Self { address: Ipv4Addr::UNSPECIFIED.into(), text: Vec::new() }
    }
}

impl Host {
    /// Appends an address and its port.
    pub(super) fn say(&mut self, out: &mut Vec<u8>, address: SocketAddr) {
        if self.text.is_empty() || self.address != address.ip() {
            self.address = address.ip();
            self.text.clear();
            let _ = match self.address {
                IpAddr::V4(v4) => write!(self.text, "{v4}:"),
                IpAddr::V6(v6) => write!(self.text, "[{v6}]:"),
            };
        }
        out.extend_from_slice(&self.text);
        digits(out, u64::from(address.port()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_addresses_are_what_they_are_alone() {
        let (mut clock, mut host) = (Clock::default(), Host::default());
        for micros in [0, 1_700_000_000_123_456, 1_700_000_000_999_999, 1_700_000_001_000_000, 7] {
            let mut out = Vec::new();
            clock.say(&mut out, micros);
            let alone = Rfc3339Micros(UNIX_EPOCH + Duration::from_micros(micros)).to_string();
            assert_eq!(out, alone.into_bytes());
        }
        for address in
            ["0.0.0.0:0", "127.0.0.1:80", "127.0.0.1:65535", "[::1]:8", "[2001:db8::1]:9"]
        {
            let mut out = Vec::new();
            host.say(&mut out, address.parse().unwrap());
            assert_eq!(out, address.as_bytes());
        }
    }
}
