//! A header as bytes: where it ends, and what it says.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ppp::{v1, v2};

use super::Announced;

/// Read before it is known which version it is; no header of either is shorter.
pub const FIRST_BYTES: usize = 12;

/// How a header of version 2 begins (section 2.2).
const SIGNATURE: &[u8] = v2::PROTOCOL_PREFIX;

/// Signature, version, family and length of version 2.
const FIXED_BYTES: usize = 16;

/// Bytes of the longest header of version 1, its end of line included (section 2.1).
const LONGEST_V1_BYTES: usize = 107;

/// Bytes that a header of version 2 may say to have behind its fixed part. A TLS client's whole
/// certificate fits; the 65,535 that the format allows nobody needs.
pub const MOST_V2_BYTES: usize = 16 * 1024;

/// PP2_TYPE_CRC32C and PP2_TYPE_NOOP (section 2.2.7).
const CRC32C: u8 = 0x03;
const NOOP: u8 = 0x04;

/// What follows from the bytes so far, all of which belong to the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// So many bytes more are of the header for certain.
    Bytes(usize),
    /// It goes on to the next end of line, which is at most so many bytes away.
    Line(usize),
    /// It is whole.
    End,
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Another connection is passed on: that one.
    Proxied(Announced),
    /// Nothing: the proxy talks for itself (a health check), or does not know.
    Nothing,
}

/// Where a header of which these bytes have come goes on.
///
/// # Errors
/// The rule that it breaks: it is no header.
pub fn next(bytes: &[u8]) -> Result<Next, &'static str> {
    let is_v1 = starts_alike(bytes, v1::PROTOCOL_PREFIX.as_bytes());
    if !is_v1 && !starts_alike(bytes, SIGNATURE) {
        return Err("no PROXY header");
    }
    if bytes.len() < FIRST_BYTES {
        return Ok(Next::Bytes(FIRST_BYTES - bytes.len()));
    }
    if is_v1 {
        return match memchr::memchr(b'\n', bytes) {
            Some(_) => Ok(Next::End),
            None if bytes.len() >= LONGEST_V1_BYTES => Err("a line of more than 107 bytes"),
            None => Ok(Next::Line(LONGEST_V1_BYTES - bytes.len())),
        };
    }
    let Some(length) = bytes.get(FIXED_BYTES - 2..FIXED_BYTES) else {
        return Ok(Next::Bytes(FIXED_BYTES - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length > MOST_V2_BYTES {
        return Err("more than 16 KiB");
    }
    match FIXED_BYTES + length - bytes.len() {
        0 => Ok(Next::End),
        missing => Ok(Next::Bytes(missing)),
    }
}

/// What a whole header says.
///
/// # Errors
/// The rule that it breaks.
pub fn said(header: &[u8]) -> Result<Said, &'static str> {
    if header.starts_with(SIGNATURE) { said_by_v2(header) } else { said_by_v1(header) }
}

fn said_by_v1(line: &[u8]) -> Result<Said, &'static str> {
    const NO_END: &str = "a line that does not end in CR LF";
    if !line.ends_with(b"\r\n") {
        return Err(NO_END);
    }
    let header = v1::Header::try_from(line).map_err(|error| match error {
        v1::BinaryParseError::InvalidUtf8(_) => "not UTF-8",
        v1::BinaryParseError::Parse(error) => line_fault(&error),
    })?;
    // It ends earlier for those who take CR for the end.
    if header.header.len() != line.len() {
        return Err(NO_END);
    }
    let (source, destination): ((std::net::IpAddr, u16), (std::net::IpAddr, u16)) =
        match header.addresses {
            v1::Addresses::Unknown => return Ok(Said::Nothing),
            v1::Addresses::Tcp4(ip) => (
                (ip.source_address.into(), ip.source_port),
                (ip.destination_address.into(), ip.destination_port),
            ),
            v1::Addresses::Tcp6(ip) => (
                (ip.source_address.into(), ip.source_port),
                (ip.destination_address.into(), ip.destination_port),
            ),
        };
    let (source, destination) = (source.into(), destination.into());
    Ok(Said::Proxied(Announced { source, destination, tlvs: Box::default() }))
}

fn line_fault(error: &v1::ParseError) -> &'static str {
    use v1::ParseError as Fault;
    match error {
        Fault::InvalidProtocol | Fault::MissingProtocol => "neither TCP4, TCP6 nor UNKNOWN",
        Fault::InvalidSourceAddress(_)
        | Fault::InvalidDestinationAddress(_)
        | Fault::MissingSourceAddress
        | Fault::MissingDestinationAddress => "no valid address",
        Fault::InvalidSourcePort(_)
        | Fault::InvalidDestinationPort(_)
        | Fault::MissingSourcePort
        | Fault::MissingDestinationPort => "no valid port",
        Fault::MissingNewLine | Fault::InvalidSuffix => "a line that does not end in CR LF",
        _ => "no PROXY header",
    }
}

fn said_by_v2(header: &[u8]) -> Result<Said, &'static str> {
    match header[SIGNATURE.len()] {
        // Whatever else it says is to be ignored (section 2.2).
        0x20 => return Ok(Said::Nothing),
        0x21 => {}
        _ => return Err("neither version 2 nor a command of it"),
    }
    let parsed = v2::Header::try_from(header).map_err(|error| match error {
        v2::ParseError::AddressFamily(_) | v2::ParseError::Protocol(_) => "an unknown family",
        _ => "too short for its addresses",
    })?;
    let tlvs = tlvs(&parsed, header)?;
    let (source, destination) = match parsed.addresses {
        v2::Addresses::IPv4(ip) => v4(ip),
        v2::Addresses::IPv6(ip) => v6(ip),
        // What came by a unix socket has no address that rules could look at.
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => return Ok(Said::Nothing),
    };
    match parsed.protocol {
        v2::Protocol::Stream => Ok(Said::Proxied(Announced { source, destination, tlvs })),
        // Without a protocol the addresses mean nothing (section 2.2).
        v2::Protocol::Unspecified => Ok(Said::Nothing),
        v2::Protocol::Datagram => Err("datagrams over TCP"),
    }
}

fn v4(ip: ppp::v2::IPv4) -> (SocketAddr, SocketAddr) {
    let of = |address: Ipv4Addr, port| SocketAddr::new(address.into(), port);
    (of(ip.source_address, ip.source_port), of(ip.destination_address, ip.destination_port))
}

fn v6(ip: ppp::v2::IPv6) -> (SocketAddr, SocketAddr) {
    let of = |address: Ipv6Addr, port| SocketAddr::new(address.into(), port);
    (of(ip.source_address, ip.source_port), of(ip.destination_address, ip.destination_port))
}

/// Those that are for the next one, the checksum checked.
fn tlvs(parsed: &v2::Header<'_>, header: &[u8]) -> Result<Box<[u8]>, &'static str> {
    let mut kept = Vec::new();
    let mut at = header.len() - parsed.tlv_bytes().len();
    for tlv in parsed.tlvs() {
        let tlv = tlv.map_err(|_| "a TLV that is longer than the header")?;
        let value = at + 3;
        at = value + tlv.len();
        match tlv.kind {
            NOOP => {}
            CRC32C => check(header, value, &tlv.value)?,
            _ => kept.extend_from_slice(&header[value - 3..at]),
        }
    }
    Ok(kept.into_boxed_slice())
}

/// Section 2.2.7: computed over the whole header with zeroes in the checksum's own place.
fn check(header: &[u8], at: usize, value: &[u8]) -> Result<(), &'static str> {
    let said: [u8; 4] = value.try_into().map_err(|_| "a checksum that is not four bytes long")?;
    let before = crc32c::crc32c(&header[..at]);
    let with_zeroes = crc32c::crc32c_append(before, &[0; 4]);
    let found = crc32c::crc32c_append(with_zeroes, &header[at + 4..]);
    if u32::from_be_bytes(said) == found { Ok(()) } else { Err("a wrong checksum") }
}

fn starts_alike(bytes: &[u8], wanted: &[u8]) -> bool {
    let known = bytes.len().min(wanted.len());
    bytes[..known] == wanted[..known]
}
