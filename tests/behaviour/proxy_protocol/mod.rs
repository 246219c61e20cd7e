//! The PROXY protocol: what a proxy in front says of clients, and what we tell servers.

mod announced;
mod announcing;
mod peers;
mod refused;

use std::net::SocketAddr;

/// How a header of version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A client and what it connected to, that are not those of this test.
const CLIENT: &str = "203.0.113.7:52077";
const FRONT: &str = "198.51.100.1:443";

/// The line of version 1 that tells of them.
const LINE: &str = "PROXY TCP4 203.0.113.7 198.51.100.1 52077 443\r\n";

/// A TLV (type, length, value).
fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
}

/// A header of version 2 with the command PROXY, over TCP.
fn binary(source: &str, destination: &str, tlvs: &[u8]) -> Vec<u8> {
    let [source, destination] =
        [source, destination].map(|address| address.parse::<SocketAddr>().expect("address"));
    let octets = |address: SocketAddr| match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let body = [octets(source), octets(destination), ports, tlvs.to_vec()].concat();
    let family = if source.is_ipv4() { 0x11 } else { 0x21 };
    [SIGNATURE, &[0x21, family], &(body.len() as u16).to_be_bytes(), &body].concat()
}

/// A configuration with one listener of this protocol, and one upstream.
fn config(protocol: &str, listener: &str, upstream: &str, server: SocketAddr) -> String {
    format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\n\
         {listener}\n\
         [[route]]\nlistener = \"web\"\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{server}\"]\n{upstream}\n"
    )
}

/// The keys of a listener that believes this machine.
const TRUSTING: &str = "proxy_protocol = { trusted = [\"127.0.0.0/8\"] }";
