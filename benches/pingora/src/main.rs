//! A plain reverse proxy on Pingora: `underpass-bench-pingora LISTEN ORIGIN THREADS`.
//!
//! Does what the other proxies of the bench `peers` are told to do, and nothing else: kept
//! connections on both sides, the same forwarding fields, no access log (Pingora has none
//! unless one is written). All settings that are not named here are Pingora's own.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use pingora_core::{
    Result,
    protocols::l4::socket::SocketAddr as PeerAddr,
    server::{Server, configuration::ServerConf},
    upstreams::peer::HttpPeer,
};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// Kept connections to the origin, as many as nginx and HAProxy may keep.
const KEPT: usize = 1024;

struct Reverse {
    origin: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Reverse {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.origin, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut pingora_http::RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        if let Some(PeerAddr::Inet(client)) = session.client_addr() {
            request.insert_header("X-Forwarded-For", client.ip().to_string())?;
        }
        request.insert_header("X-Forwarded-Proto", "http")?;
        if let Some(host) = session.req_header().headers.get("host").cloned() {
            request.insert_header("X-Forwarded-Host", host)?;
        }
        Ok(())
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(listen), Some(origin), Some(threads)) = (args.next(), args.next(), args.next())
    else {
        eprintln!("usage: underpass-bench-pingora LISTEN ORIGIN THREADS");
        std::process::exit(2);
    };
    let (Ok(origin), Ok(threads)) = (origin.parse(), threads.parse()) else {
        eprintln!("ORIGIN is an address and a port, THREADS a number");
        std::process::exit(2);
    };
    let settings = ServerConf { threads, upstream_keepalive_pool_size: KEPT, ..Default::default() };
    let mut server = Server::new_with_opt_and_conf(None, settings);
    server.bootstrap();
    let configuration = Arc::clone(&server.configuration);
    let mut service = http_proxy_service(&configuration, Reverse { origin });
    service.add_tcp(&listen);
    server.add_service(service);
    server.run_forever();
}
