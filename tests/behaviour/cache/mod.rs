//! The cache, seen from outside: what reaches the origin, what reaches clients, and when.

use std::net::SocketAddr;

use underpass_tests::{Message, Proxy, ProxyBuilder, Wire};

mod beside;
mod conditions;
mod disk;
mod files;
mod fill;
mod fleet;
mod inputs;
mod join;
mod keys;
mod left_behind;
mod lent;
mod memory;
mod parts;
mod purge;
mod ranges;
mod stale;
mod told;

/// A proxy that caches everything that comes from `origin`, by these rules of `[route.cache]`.
fn proxy(origin: SocketAddr, rules: &str) -> ProxyBuilder {
    with_cache(origin, "", rules)
}

/// The same with more of `[cache]`.
fn with_cache(origin: SocketAddr, cache: &str, rules: &str) -> ProxyBuilder {
    with_upstream(origin, cache, rules, "")
}

/// The same with more of the upstream.
fn with_upstream(origin: SocketAddr, cache: &str, rules: &str, upstream: &str) -> ProxyBuilder {
    Proxy::config(format!(
        "workers = 2\n[admin]\naddress = \"127.0.0.1:0\"\n[log]\naccess = \"stderr\"\n\
         [cache]\n{cache}\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"o\"\n[route.cache]\n{rules}\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{origin}\"]\n{upstream}"
    ))
}

/// An answer with these fields.
fn answer(fields: &str, body: &str) -> String {
    let fields: String =
        fields.split('|').filter(|f| !f.is_empty()).map(|f| format!("{f}\r\n")).collect();
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Asks on this connection, with these fields.
async fn ask(wire: &mut Wire, method: &str, target: &str, fields: &str) -> Message {
    let fields: String =
        fields.split('|').filter(|f| !f.is_empty()).map(|f| format!("{f}\r\n")).collect();
    wire.send(format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n")).await;
    wire.read_response_to(method).await
}

async fn get(proxy: &Proxy, target: &str, fields: &str) -> Message {
    ask(&mut proxy.connect().await, "GET", target, fields).await
}

/// What the cache says that it did.
fn did(message: &Message) -> &str {
    message.head.get("x-cache").unwrap_or("-")
}
