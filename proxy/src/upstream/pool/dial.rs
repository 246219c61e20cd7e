//! A new connection to the server of a pool.

use std::net::SocketAddr;

use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

use super::{Making, Secure, ServerPool};
use crate::{
    config::ForwardPolicy,
    error::{Error, Kind},
    transport::Transport,
    upstream::{connect, tls::Inside},
};

impl ServerPool {
    /// Connects, and sends what the server is to be sent first.
    ///
    /// # Errors
    /// [`Kind::ConnectTimeout`] at `deadline`, or as [`connect::connect`]. All are safe to retry
    /// elsewhere.
    pub(super) async fn dial(
        &self,
        deadline: Instant,
        policy: Option<&ForwardPolicy>,
        announcement: Option<&[u8]>,
        inside: Inside,
    ) -> Result<(Transport, SocketAddr), Error> {
        let connect = async {
            let (mut stream, address) = connect::connect(self.server(), policy).await?;
            if let Some(header) = announcement {
                let sent = stream.write_all(header).await;
                sent.map_err(|error| Error::because(Kind::Connect, error).retry_safe())?;
            }
            let transport = match &self.secure {
                None => stream.into(),
                Some(secure) => self.begin(secure, stream, address, inside).await?,
            };
            Ok((transport, address))
        };
        let connected = tokio::time::timeout_at(deadline, connect)
            .await
            .unwrap_or_else(|_| Err(Error::new(Kind::ConnectTimeout).retry_safe()));
        match connected {
            Ok(_) => self.metrics.connected(),
            Err(_) => self.metrics.connect_failed(),
        }
        connected
    }

    /// The same for a request over HTTP/1.
    pub(super) async fn dial_http(
        &self,
        deadline: Instant,
        making: &Making<'_>,
    ) -> Result<(Transport, SocketAddr), Error> {
        self.dial(deadline, making.policy, making.announcement, Inside::Http1).await
    }

    async fn begin(
        &self,
        secure: &Secure,
        stream: TcpStream,
        address: SocketAddr,
        inside: Inside,
    ) -> Result<Transport, Error> {
        secure.begin(stream, inside).await.map_err(|what| {
            // Whoever runs it has to know, and clients are told nothing of it.
            tracing::warn!(server = %address, "no TLS with a server: {what}");
            // Another server may have a better certificate.
            Error::because(Kind::UpstreamTls, anyhow::Error::msg(what)).retry_safe()
        })
    }
}
