//! Where the three parties of a tunnel are: families of addresses, and peers on another
//! host, which a network namespace stands for.
//!
//! The engines look at addresses and at whose sockets are where, so the law of tunnels is
//! tried on every [`Bed`]. A [`Plan`] opens a tunnel on one.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use proxy_ebpf::Protection;

use crate::{
    clock::BOUND,
    engine,
    matrix::Engine,
    netns::{self, Namespace},
    origin::Origin,
    proxy::{Proxy, ProxyBuilder},
    skip,
    tunnel::{Tunnel, Way},
    wire::Wire,
};

/// A receive buffer that stalls a sender soon.
pub const NARROW: usize = 16 * 1024;

/// Who is where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// All on this host, IPv4.
    V4,
    /// All on this host, IPv6.
    V6,
    /// All on this host, IPv4 in AF_INET6 sockets (`::ffff:127.0.0.1`).
    Mapped,
    /// Server here, client elsewhere.
    RemoteClient,
    /// Client and server elsewhere, each in a namespace of its own.
    RemoteBoth,
    /// All on one host, IPv4, where the kernel gives a connection no more than
    /// [`netns::CONFINED_BYTES`] each way: what is held beyond that is not TCP's.
    Confined,
    /// The same with megabytes for each connection from the beginning.
    Roomy,
}

/// A topology and its namespaces.
#[derive(Debug)]
pub struct Bed {
    topology: Topology,
    client: Option<Namespace>,
    server: Option<Namespace>,
    /// Where all three are, if not here.
    host: Option<Namespace>,
}

impl Bed {
    /// Those with all parties on this host.
    pub fn local() -> Vec<Bed> {
        [Topology::V4, Topology::V6, Topology::Mapped].into_iter().filter_map(Bed::here).collect()
    }

    /// Those with a party elsewhere.
    pub fn remote() -> Vec<Bed> {
        [Topology::RemoteClient, Topology::RemoteBoth].into_iter().filter_map(Bed::here).collect()
    }

    /// All of them but the confined one, which is about memory only.
    pub fn all() -> Vec<Bed> {
        Bed::local().into_iter().chain(Bed::remote()).collect()
    }

    /// One, or a line that says why it is skipped.
    pub fn here(topology: Topology) -> Option<Bed> {
        Bed::new(topology).map_err(|why| skip::say(&format!("{topology:?}: {why}"))).ok()
    }

    /// Makes its namespaces.
    ///
    /// # Errors
    /// What the machine lacks: IPv6, or what [`Namespace::new`] needs.
    pub fn new(topology: Topology) -> Result<Bed, String> {
        use Topology::*;
        if matches!(topology, V6 | Mapped) {
            let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
            netns::listen(address, None).map_err(|e| format!("IPv6 loopback: {e}"))?;
        }
        let elsewhere = |is: bool| if is { Namespace::new().map(Some) } else { Ok(None) };
        let client = elsewhere(matches!(topology, RemoteClient | RemoteBoth))?;
        let server = elsewhere(topology == RemoteBoth)?;
        let host = elsewhere(matches!(topology, Confined | Roomy))?;
        if let Some(namespace) = &host {
            match topology {
                Roomy => namespace.set_buffers(netns::ROOMY_BYTES, netns::ROOMY_BYTES)?,
                _ => namespace.set_buffers(64 * 1024, netns::CONFINED_BYTES)?,
            }
        }
        Ok(Bed { topology, client, server, host })
    }

    /// Which one it is.
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// Address for the proxy to listen on.
    pub fn listen(&self) -> SocketAddr {
        let address: IpAddr = match (self.topology, &self.client) {
            (_, Some(namespace)) => namespace.host().into(),
            (Topology::V6, _) => Ipv6Addr::LOCALHOST.into(),
            (Topology::Mapped, _) => Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        };
        (address, 0).into()
    }

    /// A server, with this receive buffer if one is named.
    pub fn origin(&self, receive: Option<usize>) -> Origin {
        if let Some(namespace) = &self.host {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = namespace.within(|| netns::listen(address, receive));
            return Origin::over(listener.expect("bind origin"));
        }
        let address: IpAddr = match (self.topology, &self.server) {
            (_, Some(namespace)) => return Origin::over(namespace.listen(receive)),
            (Topology::V6, _) => Ipv6Addr::LOCALHOST.into(),
            (Topology::Mapped, _) => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        };
        Origin::over(netns::listen((address, 0).into(), receive).expect("bind origin"))
    }

    /// The server's address as the proxy is told it.
    pub fn target(&self, origin: &Origin) -> SocketAddr {
        match self.topology {
            Topology::Mapped => mapped(origin.addr().port()),
            _ => origin.addr(),
        }
    }

    /// A client of a listener, with this receive buffer if one is named.
    pub async fn connect(&self, listener: SocketAddr, receive: Option<usize>) -> Wire {
        match (self.topology, self.client.as_ref().or(self.host.as_ref())) {
            (_, Some(namespace)) => Wire::over(namespace.connect(listener, receive), "client"),
            (Topology::Mapped, _) => Wire::connect_with(mapped(listener.port()), receive).await,
            _ => Wire::connect_with(listener, receive).await,
        }
    }

    /// A client of the server with no proxy between, as near to it as the proxy is.
    pub async fn connect_directly(&self, origin: &Origin) -> Wire {
        match &self.host {
            Some(namespace) => Wire::over(namespace.connect(origin.addr(), None), "client"),
            None => Wire::connect(self.target(origin)).await,
        }
    }

    /// Names in `/tunnels` of what moves the bytes to the server and to the client, once
    /// the tunnel has been open for a moment. None where the proxy chooses.
    pub fn engines(&self, engine: Engine) -> Option<[&'static str; 2]> {
        match (engine, self.topology) {
            (Engine::Auto, _) => None,
            (Engine::Copy, _) => Some(["copy"; 2]),
            (Engine::Pipe, _) => Some(["pipe"; 2]),
            (Engine::Bypass, Topology::RemoteClient) => Some(["copy", "half_bypass"]),
            (Engine::Bypass, topology)
                if topology != Topology::RemoteBoth && engine::joins_applications() =>
            {
                Some(["bypass"; 2])
            }
            // One direction goes between our own sockets, see `splice/tier.rs`.
            (Engine::Kernel | Engine::Bypass, _) => Some(["copy", "kernel"]),
        }
    }

    /// Waits until the only tunnel is moved by what is to move it.
    pub async fn settled(&self, engine: Engine, proxy: &Proxy) {
        let Some(expected) = self.engines(engine) else { return };
        let begin = Instant::now();
        loop {
            let rows = proxy.tunnels().await;
            let moved = rows.first().map(|row| &row["engine"]);
            let names = ["to_upstream", "to_downstream"]
                .map(|way| moved.and_then(|moved| moved[way]["name"].as_str()));
            let is = |name: Option<&str>, expected: &str| {
                // Beside the kernel it is the proxy that chooses.
                let chosen = engine != Engine::Copy && expected == "copy" && name == Some("pipe");
                name == Some(expected) || chosen
            };
            if is(names[0], expected[0]) && is(names[1], expected[1]) {
                return;
            }
            assert!(begin.elapsed() < BOUND, "not moved by {expected:?} but by {moved:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl fmt::Display for Bed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.topology)
    }
}

fn mapped(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into()
}

/// A tunnel to be opened.
#[derive(Debug)]
pub struct Plan<'a> {
    bed: &'a Bed,
    way: Way,
    engine: Engine,
    client_receive: Option<usize>,
    server_receive: Option<usize>,
    args: Vec<String>,
    unprotected: Vec<Protection>,
}

impl<'a> Plan<'a> {
    /// A tunnel on a bed.
    pub fn new(bed: &'a Bed, way: Way, engine: Engine) -> Self {
        // A failure says where it was by this line; a success shows none of it.
        println!("{engine}, {way:?}, {bed}");
        Self {
            bed,
            way,
            engine,
            client_receive: None,
            server_receive: None,
            args: Vec::new(),
            unprotected: Vec::new(),
        }
    }

    /// With a client whose receive buffer is [`NARROW`].
    pub fn narrow_client(mut self) -> Self {
        self.client_receive = Some(NARROW);
        self
    }

    /// With a server whose receive buffer is [`NARROW`].
    pub fn narrow_server(mut self) -> Self {
        self.server_receive = Some(NARROW);
        self
    }

    /// With more arguments for the proxy.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// With a proxy that lacks these protections.
    pub fn unprotected(mut self, gone: &[Protection]) -> Self {
        self.unprotected.extend(gone);
        self
    }

    /// The server and the proxy, before anybody has connected.
    pub fn start(&self) -> (Origin, Proxy) {
        let origin = self.bed.origin(self.server_receive);
        let builder = self.builder(&origin);
        let proxy = match &self.bed.host {
            // Its admin endpoint has to be reached from here.
            Some(host) => host.within(|| builder.admin((host.inside(), 0).into()).start()),
            None => builder.start(),
        };
        (origin, proxy)
    }

    /// Connects a client that has said nothing yet.
    pub async fn connect(&self, proxy: &Proxy) -> Wire {
        self.bed.connect(proxy.addr(), self.client_receive).await
    }

    /// The head that asks for the tunnel.
    pub fn request(&self, origin: &Origin) -> String {
        self.way.request_to(self.bed.target(origin))
    }

    /// Opens the tunnel; it may be on its way to its engine still.
    pub async fn open(&self) -> Tunnel {
        let (origin, proxy) = self.start();
        let mut client = self.connect(&proxy).await;
        client.send(self.request(&origin)).await;
        let server = self.way.accept(&origin).await;
        self.way.opened(&mut client).await;
        // Without an answer to wait for, the proxy may not have seen its connection succeed:
        // a reset in that moment is a connection that failed.
        proxy.until_tunnels(1).await;
        Tunnel { client, server, origin, proxy }
    }

    /// Opens the tunnel and waits until the engine has it.
    pub async fn open_settled(&self) -> Tunnel {
        let tunnel = self.open().await;
        self.settled(&tunnel.proxy).await;
        tunnel
    }

    /// Waits until the only tunnel is moved by what is to move it.
    pub async fn settled(&self, proxy: &Proxy) {
        self.bed.settled(self.engine, proxy).await;
    }

    fn builder(&self, origin: &Origin) -> ProxyBuilder {
        let builder = self.way.proxy_to(self.bed.target(origin)).splice(self.engine);
        let builder = builder.listen(self.bed.listen()).args(self.args.clone());
        builder.unprotected(&self.unprotected)
    }
}
