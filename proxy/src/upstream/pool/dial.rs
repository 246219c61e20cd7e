//! A new connection to the server of a pool.

use std::net::SocketAddr;

use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

use super::{Making, Secure, ServerPool, settings::Unsecured};
use crate::{
    config::ForwardPolicy,
    error::{Error, Kind},
    transport::Transport,
    upstream::{
        connect::{self, First},
        tls::Inside,
    },
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
        let dial = |first| self.try_dial(deadline, policy, announcement, inside, first);
        // A handshake of TLS may begin twice, and is over before anything else is sent.
        let early = self.settings.fast_open && self.secure.is_some() && announcement.is_none();
        let connected = match early {
            false => dial(First::Once).await,
            true => match dial(First::Repeatable).await {
                // The way may be to blame, which takes no first segment with data: it is told by
                // the ordinary one, if it is amiss there. A certificate is as bad the second time.
                Err(error) if error.kind == Kind::Connect && Instant::now() < deadline => {
                    dial(First::Once).await
                }
                connected => connected,
            },
        };
        self.count(connected)
    }

    /// The same for a request over HTTP/1. True: it may be that the server has yet to answer to
    /// the first segment, which the request is to go out with.
    pub(super) async fn dial_http(
        &self,
        deadline: Instant,
        making: &Making<'_>,
    ) -> Result<(Transport, SocketAddr, bool), Error> {
        let Making { policy, announcement, .. } = *making;
        let early = self.settings.fast_open && making.repeatable && self.secure.is_none();
        // Local bypass is for sockets that are connected.
        if early && announcement.is_none() && making.kernel.is_none() {
            let first = First::Repeatable;
            let connected = self.try_dial(deadline, policy, None, Inside::Http1, first).await;
            let (transport, address) = self.count(connected)?;
            return Ok((transport, address, true));
        }
        let connected = self.dial(deadline, policy, announcement, Inside::Http1).await;
        connected.map(|(transport, address)| (transport, address, false))
    }

    async fn try_dial(
        &self,
        deadline: Instant,
        policy: Option<&ForwardPolicy>,
        announcement: Option<&[u8]>,
        inside: Inside,
        first: First,
    ) -> Result<(Transport, SocketAddr), Error> {
        let connect = async {
            let (mut stream, address) = connect::connect(self.server(), policy, first).await?;
            if let Some(header) = announcement {
                let sent = stream.write_all(header).await;
                sent.map_err(|error| Error::because(Kind::Connect, error).retry_safe())?;
            }
            let transport = match &self.secure {
                None => stream.into(),
                Some(secure) => self.begin(secure, stream, address, inside, first).await?,
            };
            Ok((transport, address))
        };
        tokio::time::timeout_at(deadline, connect)
            .await
            .unwrap_or_else(|_| Err(Error::new(Kind::ConnectTimeout).retry_safe()))
    }

    fn count<T>(&self, connected: Result<T, Error>) -> Result<T, Error> {
        match connected {
            Ok(_) => self.metrics.connected(),
            Err(_) => self.metrics.connect_failed(),
        }
        connected
    }

    async fn begin(
        &self,
        secure: &Secure,
        stream: TcpStream,
        address: SocketAddr,
        inside: Inside,
        first: First,
    ) -> Result<Transport, Error> {
        secure.begin(stream, inside).await.map_err(|Unsecured { what, below }| {
            // Only now it is seen whether there is a connection.
            if below && first == First::Repeatable {
                return Error::because(Kind::Connect, anyhow::Error::msg(what)).retry_safe();
            }
            // Whoever runs it has to know, and clients are told nothing of it.
            tracing::warn!(server = %address, "no TLS with a server: {what}");
            // Another server may have a better certificate.
            Error::because(Kind::UpstreamTls, anyhow::Error::msg(what)).retry_safe()
        })
    }
}
