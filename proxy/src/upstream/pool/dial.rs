//! A new connection to the server of a pool.

use std::net::SocketAddr;

use tokio::{io::AsyncWriteExt, time::Instant};

use super::ServerPool;
use crate::{
    config::ForwardPolicy,
    error::{Error, Kind},
    transport::Transport,
    upstream::connect,
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
    ) -> Result<(Transport, SocketAddr), Error> {
        let connect = async {
            let (mut stream, address) = connect::connect(self.server(), policy).await?;
            if let Some(header) = announcement {
                let sent = stream.write_all(header).await;
                sent.map_err(|error| Error::because(Kind::Connect, error).retry_safe())?;
            }
            Ok((stream, address))
        };
        let connected = tokio::time::timeout_at(deadline, connect)
            .await
            .unwrap_or_else(|_| Err(Error::new(Kind::ConnectTimeout).retry_safe()));
        match connected {
            Ok(_) => self.metrics.connected(),
            Err(_) => self.metrics.connect_failed(),
        }
        connected.map(|(stream, address)| (stream.into(), address))
    }
}
