//! Tunnels, opened all ways there are: Upgrade through a reverse proxy, CONNECT through a
//! forward proxy, a connection to a tcp listener. What comes after the head is the same for
//! all.

use std::net::SocketAddr;

use crate::{
    matrix::Engine,
    origin::Origin,
    proxy::{Proxy, ProxyBuilder},
    wire::Wire,
};

/// How a tunnel is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `Upgrade` and 101 (RFC 9110 7.8).
    Upgrade,
    /// CONNECT and 200 (RFC 9110 9.3.6).
    Connect,
    /// By connecting to a tcp listener; there are no heads.
    Tcp,
}

/// The answer of an origin that switches.
pub const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// An open tunnel and everything it needs.
#[derive(Debug)]
pub struct Tunnel {
    /// Its client end.
    pub client: Wire,
    /// Its server end.
    pub server: Wire,
    /// Where the server accepts.
    pub origin: Origin,
    /// What is between.
    pub proxy: Proxy,
}

impl Way {
    /// All.
    pub const ALL: [Way; 3] = [Way::Upgrade, Way::Connect, Way::Tcp];

    /// A proxy that can be asked for such a tunnel to this origin.
    pub fn proxy(self, origin: &Origin) -> ProxyBuilder {
        self.proxy_to(origin.addr())
    }

    /// A proxy that can be asked for such a tunnel to this address.
    pub fn proxy_to(self, address: SocketAddr) -> ProxyBuilder {
        match self {
            Way::Upgrade => Proxy::reverse(address),
            Way::Connect => Proxy::forward(),
            Way::Tcp => Proxy::tcp(address),
        }
    }

    /// The head that asks for it.
    pub fn request(self, origin: &Origin) -> String {
        self.request_to(origin.addr())
    }

    /// The head that asks for a tunnel to this address.
    pub fn request_to(self, authority: SocketAddr) -> String {
        match self {
            Way::Upgrade => {
                "GET /tunnel HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
                    .to_owned()
            }
            Way::Connect => format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
            Way::Tcp => String::new(),
        }
    }

    /// Plays the origin up to the moment where the tunnel is open for it.
    pub async fn accept(self, origin: &Origin) -> Wire {
        let mut server = origin.accept().await;
        if self == Way::Upgrade {
            let head = server.read_head().await;
            assert_eq!(head.get("upgrade"), Some("echo"));
            assert!(head.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("upgrade")));
            server.send(SWITCHING).await;
        }
        server
    }

    /// Reads the answer that opens the tunnel for the client.
    pub async fn opened(self, client: &mut Wire) {
        if self == Way::Tcp {
            return;
        }
        let head = client.read_head().await;
        match self {
            Way::Tcp => {}
            Way::Upgrade => {
                assert_eq!(head.status(), 101);
                assert_eq!(head.get("upgrade"), Some("echo"));
                assert!(head.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("upgrade")));
            }
            Way::Connect => {
                assert_eq!(head.status(), 200);
                // RFC 9110 9.3.6: neither frames anything here.
                assert!(!head.has("content-length") && !head.has("transfer-encoding"));
            }
        }
    }

    /// Opens a tunnel that this engine moves.
    pub async fn open(self, engine: Engine) -> Tunnel {
        self.open_with(engine, Origin::bind().await, |builder| builder).await
    }

    /// Opens a tunnel to `origin` through a proxy with further settings.
    pub async fn open_with(
        self,
        engine: Engine,
        origin: Origin,
        settings: impl FnOnce(ProxyBuilder) -> ProxyBuilder,
    ) -> Tunnel {
        let proxy = settings(self.proxy(&origin).splice(engine)).start();
        let client = proxy.connect().await;
        self.open_over(client, origin, proxy).await
    }

    /// Opens a tunnel for a client that is connected already.
    pub async fn open_over(self, mut client: Wire, origin: Origin, proxy: Proxy) -> Tunnel {
        client.send(self.request(&origin)).await;
        let server = self.accept(&origin).await;
        self.opened(&mut client).await;
        Tunnel { client, server, origin, proxy }
    }
}
