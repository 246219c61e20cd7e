//! TLS towards clients: who is shown what, who is let in, and what of HTTP and tunnels is the
//! same inside it.

use std::net::SocketAddr;

use underpass_tests::{Proxy, ProxyBuilder, tls::Folder};

mod bodies;
mod clients;
mod handshakes;
mod names;
mod programs;
mod renewal;
mod requests;
mod sessions;
mod tunnels;

/// A proxy whose listener `web` has these keys, and these in its section of TLS. Two workers.
fn proxy(listener: &str, tls: &str, server: SocketAddr) -> ProxyBuilder {
    Proxy::config(text(listener, tls, server))
}

fn text(listener: &str, tls: &str, server: SocketAddr) -> String {
    format!(
        "workers = 2\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [listener.tls]\n{tls}\n\
         [[route]]\nlistener = \"web\"\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{server}\"]\n"
    )
}

/// `certificates` of these names of files.
fn certificates(folder: &Folder, names: &[&str]) -> String {
    let entries: Vec<_> = names.iter().map(|name| folder.entry(name)).collect();
    format!("certificates = [{}]\n", entries.join(", "))
}

/// How many handshakes have failed for this.
async fn failures(proxy: &Proxy, cause: &str) -> f64 {
    proxy.metrics().await.sum("underpass_tls_handshake_failures_total", &[("cause", cause)])
}

/// How many handshakes are complete, with these labels.
async fn handshakes(proxy: &Proxy, labels: &[(&str, &str)]) -> f64 {
    proxy.metrics().await.sum("underpass_tls_handshakes_total", labels)
}
