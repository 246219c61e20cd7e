//! Servers that speak HTTP/2: what they are sent, how requests share a connection, and what the
//! end of a stream or of a connection means for whom.

use underpass_tests::{Proxy, proxy::local_bypass_key};

mod broken_off;
mod ends;
mod flow;
mod messages;
mod places;
mod sharing;

/// In front of one server; `lines` are of the upstream.
fn proxy(server: std::net::SocketAddr, lines: &str) -> Proxy {
    configured(&format!("servers = [\"{server}\"]\n{lines}"))
}

fn configured(lines: &str) -> Proxy {
    let bypass = local_bypass_key();
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [limits]\nconnect_timeout = \"10s\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{bypass}\
         [[route]]\nlistener = \"web\"\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nprotocol = \"http2\"\n{bypass}{lines}\n"
    ))
    .start()
}

/// A client of the listener.
async fn client(proxy: &Proxy, version: underpass_tests::Version) -> underpass_tests::HttpClient {
    underpass_tests::HttpClient::connect(proxy.listener("web"), version).await
}
