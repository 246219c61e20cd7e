//! Addresses for whoever has to know beforehand where it will listen.

use std::{
    array,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

/// An address that nobody listens on, and that nobody else picks meanwhile: of the loopback
/// network, where others take theirs from its first address.
pub fn free() -> SocketAddr {
    let [address] = free_ones();
    address
}

/// So many with one IP address.
pub fn free_ones<const N: usize>() -> [SocketAddr; N] {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 100 + NEXT.fetch_add(1, Relaxed) % 100, high, low);
    // Held together, or the next one may be the one before.
    let held: [TcpListener; N] = array::from_fn(|_| TcpListener::bind((ip, 0)).expect("bind"));
    held.map(|listener| listener.local_addr().expect("address"))
}
