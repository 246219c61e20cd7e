//! SIGHUP: another configuration, all of it or nothing, and nobody who is being served notices.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use underpass_tests::{Origin, Served};

mod listeners;
mod load;
mod refused;
mod requests;
mod settings;
mod watch;
mod wrong;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// Where a port is picked.
const ANY: &str = "127.0.0.1:0";

/// A server that answers with this.
async fn answers(content: &'static str) -> Served {
    Origin::bind().await.serve(move |_| underpass_tests::Reply::ok(content))
}

/// An admin endpoint and these top-level keys.
fn head(top: &str) -> String {
    format!("{top}\n[admin]\naddress = \"{ANY}\"\n")
}

/// A listener that speaks HTTP, unless `keys` say otherwise.
fn listener(name: &str, address: impl std::fmt::Display, keys: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\n{keys}\n")
}

/// An upstream of the same name as the route that leads to it, which has these keys.
fn route(name: &str, server: SocketAddr, keys: &str) -> String {
    format!(
        "[[route]]\nupstream = \"{name}\"\n{keys}\n\
         [[upstream]]\nname = \"{name}\"\nservers = [\"{server}\"]\n"
    )
}

/// An address that nobody listens on, and that nobody else picks meanwhile: of the loopback
/// network, where others take theirs from its first address.
fn free() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 100 + NEXT.fetch_add(1, Relaxed) % 100, high, low);
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}
