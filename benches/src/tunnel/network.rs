//! The topologies, as hosts and addresses.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use super::{
    cells::Topology,
    netns::{self, Namespace},
    spawn::Host,
};

/// Networks for documentation (RFC 5737): never anybody's.
const NEAR: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const FAR: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2)];
const NEAR_CABLE: &str = "upbench0";
const FAR_CABLE: &str = "upbench1";
/// Below the range of ports that connections get there.
const FIRST_PORT: u16 = 7001;

/// Where everybody is, and under which address.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) client: Host,
    pub(crate) proxy: Host,
    pub(crate) server: Host,
    /// The proxy, as the client sees it.
    pub(crate) proxy_ip: IpAddr,
    /// The server, as the proxy sees it.
    pub(crate) server_ip: IpAddr,
    /// The server, as the client sees it.
    pub(crate) direct_ip: IpAddr,
    next_port: u16,
}

impl Network {
    /// Makes it. On loopback with a namespace where we may, else on the host's own.
    ///
    /// # Errors
    /// If namespaces are needed and not to be had.
    pub(crate) fn new(topology: Topology) -> anyhow::Result<Self> {
        let localhost: IpAddr = Ipv4Addr::LOCALHOST.into();
        if topology == Topology::Loopback {
            let host = if netns::is_root() { Some(Arc::new(Namespace::new()?)) } else { None };
            return Ok(Self {
                client: host.clone(),
                proxy: host.clone(),
                server: host,
                proxy_ip: localhost,
                server_ip: localhost,
                direct_ip: localhost,
                next_port: FIRST_PORT,
            });
        }
        netns::require_root()?;
        let (client, proxy) = (Arc::new(Namespace::new()?), Arc::new(Namespace::new()?));
        client.connect(&proxy, NEAR_CABLE, NEAR)?;
        client.route_by(NEAR[1])?;
        let (server, server_ip, direct_ip) = if topology == Topology::Remote {
            let server = Arc::new(Namespace::new()?);
            proxy.connect(&server, FAR_CABLE, FAR)?;
            server.route_by(FAR[0])?;
            (server, FAR[1].into(), FAR[1].into())
        } else {
            (proxy.clone(), localhost, NEAR[1].into())
        };
        Ok(Self {
            client: Some(client),
            proxy: Some(proxy),
            server: Some(server),
            proxy_ip: NEAR[1].into(),
            server_ip,
            direct_ip,
            next_port: FIRST_PORT,
        })
    }

    /// An address for a proxy to listen on.
    pub(crate) fn listen(&mut self) -> anyhow::Result<SocketAddr> {
        if self.proxy.is_none() {
            // Free a moment ago; HAProxy and nginx do not tell which port they got.
            return Ok(TcpListener::bind((self.proxy_ip, 0))?.local_addr()?);
        }
        self.next_port += 1;
        Ok(SocketAddr::new(self.proxy_ip, self.next_port - 1))
    }
}
