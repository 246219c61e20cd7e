//! Tables of headers: what they say, where they end, and what is none.

use std::net::SocketAddr;

use super::{
    Announced,
    header::{Next, Said, next, said},
    write::{self, Version},
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xcb, 0x6d, 1, 0xbb];

fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn v2(command: u8, family: u8, rest: &[&[u8]]) -> Vec<u8> {
    let rest = rest.concat();
    let length = (rest.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, &rest].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
}

fn proxied(source: &str, destination: &str, tlvs: &[u8]) -> Said {
    let (source, destination) = (address(source), address(destination));
    Said::Proxied(Announced { source, destination, tlvs: tlvs.into() })
}

/// Follows [`next`] over a stream that goes on behind the header. How much is taken of it, and
/// what that says.
fn taken(stream: &[u8]) -> Result<(usize, Said), &'static str> {
    let mut at = 0;
    loop {
        match next(&stream[..at])? {
            Next::End => return Ok((at, said(&stream[..at])?)),
            Next::Bytes(count) => at += count,
            Next::Line(most) => {
                let seen = &stream[at..stream.len().min(at + most)];
                if seen.is_empty() {
                    return Err("cut");
                }
                at += seen.iter().position(|byte| *byte == b'\n').map_or(seen.len(), |end| end + 1);
            }
        }
        if at > stream.len() {
            return Err("cut");
        }
    }
}

#[test]
fn what_a_header_says() {
    let checksum = {
        let mut header = v2(0x21, 0x11, &[V4, &tlv(3, &[0; 4])]);
        let at = header.len() - 4;
        let sum = crc32c::crc32c(&header).to_be_bytes();
        header[at..].copy_from_slice(&sum);
        header
    };
    let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0xff; 16], &[0, 80, 0, 81]].concat();
    let unix = vec![b'/'; 216];
    let plain = proxied("192.0.2.7:52077", "198.51.100.1:443", &[]);
    let cases: Vec<(Vec<u8>, Said)> = vec![
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 52077 443\r\n".to_vec(), plain.clone()),
        (
            b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n".to_vec(),
            proxied("[2001:db8::1]:0", "[::1]:65535", &[]),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), Said::Nothing),
        (b"PROXY UNKNOWN ff::1 ff::2 1 2\r\n".to_vec(), Said::Nothing),
        (v2(0x21, 0x11, &[V4]), plain.clone()),
        (
            v2(0x21, 0x21, &[&v6]),
            proxied("[2001:db8::1]:80", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:81", &[]),
        ),
        // Padding and checksum are ours alone; the rest is for the next one, as it came.
        (
            v2(0x21, 0x11, &[V4, &tlv(4, &[0; 9]), &tlv(5, b"id"), &tlv(0xe0, b""), &tlv(4, b"")]),
            proxied(
                "192.0.2.7:52077",
                "198.51.100.1:443",
                &[tlv(5, b"id"), tlv(0xe0, b"")].concat(),
            ),
        ),
        (checksum, plain),
        (v2(0x20, 0, &[]), Said::Nothing),
        // A receiver of LOCAL ignores the family, whatever it is, and skips what follows.
        (v2(0x20, 0xff, &[b"anything"]), Said::Nothing),
        (v2(0x21, 0, &[b"anything"]), Said::Nothing),
        (v2(0x21, 0x31, &[&unix]), Said::Nothing),
        (v2(0x21, 0x10, &[V4]), Said::Nothing),
    ];
    for (header, wanted) in cases {
        for behind in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"\n\n\n"] {
            let stream = [&header[..], behind].concat();
            let text = String::from_utf8_lossy(&stream);
            assert_eq!(taken(&stream), Ok((header.len(), wanted.clone())), "{text:?}");
        }
        for cut in 0..header.len() {
            assert_eq!(taken(&header[..cut]), Err("cut"), "{header:?} to {cut}");
        }
    }
}

#[test]
fn what_is_no_header_is_found_out() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    assert_eq!(long.len(), 107);
    assert_eq!(taken(long.as_bytes()), Ok((107, Said::Nothing)));
    let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    let wrong_sum = v2(0x21, 0x11, &[V4, &tlv(3, &[1, 2, 3, 4])]);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "no PROXY header"),
        (b"PROXYTCP4 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(), "no PROXY header"),
        (b"PROXY\r\n\r\n\r\n\r\n".to_vec(), "a line that does not end in CR LF"),
        (b"PROXY XCP4 a\r\n".to_vec(), "neither TCP4, TCP6 nor UNKNOWN"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello".to_vec(), "no PROXY header"),
        (longer.into_bytes(), "a line of more than 107 bytes"),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n".to_vec(), "a line that does not end in CR LF"),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\rX\n".to_vec(), "a line that does not end in CR LF"),
        (b"PROXY UNKNOWN\rX\r\n".to_vec(), "a line that does not end in CR LF"),
        (b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(), "neither TCP4, TCP6 nor UNKNOWN"),
        (b"PROXY TCP4 ::1 1.1.1.1 1 1\r\n".to_vec(), "no valid address"),
        (b"PROXY TCP4 01.1.1.1 1.1.1.1 1 1\r\n".to_vec(), "no valid address"),
        (b"PROXY TCP6 fe80::1%lo ::1 1 1\r\n".to_vec(), "no valid address"),
        (b"PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n".to_vec(), "no valid address"),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n".to_vec(), "no valid port"),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n".to_vec(), "no valid port"),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n".to_vec(), "no valid port"),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n".to_vec(), "a line that does not end in CR LF"),
        (v2(0x11, 0x11, &[V4]), "neither version 2 nor a command of it"),
        (v2(0x22, 0x11, &[V4]), "neither version 2 nor a command of it"),
        (v2(0x21, 0x41, &[V4]), "an unknown family"),
        (v2(0x21, 0x13, &[V4]), "an unknown family"),
        (v2(0x21, 0x12, &[V4]), "datagrams over TCP"),
        (v2(0x21, 0x11, &[&V4[..11]]), "too short for its addresses"),
        (v2(0x21, 0x21, &[V4]), "too short for its addresses"),
        (v2(0x21, 0x11, &[V4, &[5]]), "a TLV that is longer than the header"),
        (v2(0x21, 0x11, &[V4, &[5, 0, 1]]), "a TLV that is longer than the header"),
        (v2(0x21, 0x11, &[V4, &tlv(3, &[1])]), "a checksum that is not four bytes long"),
        (wrong_sum, "a wrong checksum"),
        (v2(0x21, 0x11, &[V4, &vec![4; 16 * 1024]]), "more than 16 KiB"),
    ];
    for (stream, rule) in cases {
        let text = String::from_utf8_lossy(&stream);
        assert_eq!(taken(&stream), Err(rule), "{:?}", &text[..text.len().min(60)]);
    }
}

#[test]
fn what_is_written_says_what_was_meant() {
    let tlvs = tlv(0xe1, b"vpc");
    let cases = [
        ("192.0.2.7:1", "198.51.100.1:443", "192.0.2.7:1", "198.51.100.1:443"),
        ("[2001:db8::1]:1", "[::1]:443", "[2001:db8::1]:1", "[::1]:443"),
        ("[::ffff:192.0.2.7]:1", "[::ffff:127.0.0.1]:2", "192.0.2.7:1", "127.0.0.1:2"),
        ("[::ffff:192.0.2.7]:1", "127.0.0.1:2", "192.0.2.7:1", "127.0.0.1:2"),
        ("192.0.2.7:1", "[::1]:2", "[::ffff:192.0.2.7]:1", "[::1]:2"),
        ("[2001:db8::1]:1", "10.0.0.1:2", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:2"),
    ];
    for (source, destination, as_source, as_destination) in cases {
        for version in [Version::V1, Version::V2] {
            let with_tlvs = if version == Version::V2 { &tlvs[..] } else { &[] };
            let wanted = proxied(as_source, as_destination, with_tlvs);
            let announced = Announced {
                source: address(source),
                destination: address(destination),
                tlvs: tlvs.clone().into(),
            };
            let peer = address("203.0.113.9:9");
            let unasked = || panic!("what was said is what counts");
            let header = write::header(version, Some(&announced), peer, unasked);
            assert_eq!(taken(&header), Ok((header.len(), wanted)));

            let wanted = proxied(as_source, as_destination, &[]);
            let local = || address(destination);
            let header = write::header(version, None, address(source), local);
            assert_eq!(taken(&header), Ok((header.len(), wanted)));
        }
    }
    for version in [Version::V1, Version::V2] {
        let header = write::own(version);
        assert_eq!(taken(&header), Ok((header.len(), Said::Nothing)));
    }
}
