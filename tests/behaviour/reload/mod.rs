//! SIGHUP: another configuration, all of it or nothing, and nobody who is being served notices.

use std::net::SocketAddr;

use underpass_tests::{Origin, Served, address::free};

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
