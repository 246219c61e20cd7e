//! WebSockets over HTTP/2 (RFC 8441), of clients and to servers: how they open, how they are
//! refused, and that what is a tunnel then ends and holds back as every tunnel does.

use underpass_tests::{
    Origin, Proxy, ProxyBuilder, Wire,
    h2_origin::{H2Origin, H2Peer},
    h2_tunnel::{H2Caller, Leg, extended, grant, granting, upgrade},
};

mod bounds;
mod ends;
mod many;
mod opening;
mod recorded;
mod refused;
mod servers;

/// Over what a tunnel goes: from the client, to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    StreamToSocket,
    SocketToStream,
    StreamToStream,
}

/// What keeps a tunnel's connections open.
#[derive(Debug)]
enum Kept {
    Caller(H2Caller),
    Peer(H2Peer),
}

struct Opened {
    client: Leg,
    server: Leg,
    proxy: Proxy,
    _kept: Vec<Kept>,
}

/// A listener in front of this server; `limits` are lines of that section.
fn proxy(server: std::net::SocketAddr, http2: bool, limits: &str) -> ProxyBuilder {
    let protocol = if http2 { "http2" } else { "http1" };
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n[limits]\n{limits}\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nlistener = \"web\"\nupstream = \"app\"\n\
         [[upstream]]\nname = \"app\"\nservers = [\"{server}\"]\nprotocol = \"{protocol}\"\n"
    ))
}

impl Path {
    const ALL: [Self; 3] = [Self::StreamToSocket, Self::SocketToStream, Self::StreamToStream];

    async fn open(self, limits: &str) -> Opened {
        match self {
            Self::StreamToSocket => {
                let origin = Origin::bind().await;
                let proxy = proxy(origin.addr(), false, limits).start();
                let mut caller = H2Caller::connect(proxy.listener("web")).await;
                let called = caller.websocket("/chat").await;
                let mut server = origin.accept().await;
                let head = server.read_head().await;
                server.send(granting(&head, "")).await;
                let client = called.opened().await.1.into_leg();
                let _kept = vec![Kept::Caller(caller)];
                Opened { client, server: Leg::Tcp(server), proxy, _kept }
            }
            Self::SocketToStream => {
                let origin = H2Origin::bind().await;
                let proxy = proxy(origin.addr(), true, limits).start();
                let mut client = Wire::open(proxy.listener("web"), upgrade("/chat")).await;
                let mut peer = origin.accept_with(&extended()).await;
                let (_, server) = grant(&mut peer).await;
                assert_eq!(client.read_head().await.status(), 101);
                let _kept = vec![Kept::Peer(peer)];
                Opened { client: Leg::Tcp(client), server: server.into_leg(), proxy, _kept }
            }
            Self::StreamToStream => {
                let origin = H2Origin::bind().await;
                let proxy = proxy(origin.addr(), true, limits).start();
                let mut caller = H2Caller::connect(proxy.listener("web")).await;
                let called = caller.websocket("/chat").await;
                let mut peer = origin.accept_with(&extended()).await;
                let (_, server) = grant(&mut peer).await;
                let client = called.opened().await.1.into_leg();
                let _kept = vec![Kept::Caller(caller), Kept::Peer(peer)];
                Opened { client, server: server.into_leg(), proxy, _kept }
            }
        }
    }
}
