//! Bulk: a thread per tunnel that does nothing else, so that nothing but the path is in the
//! way.

use std::{net::TcpStream, sync::atomic::Ordering::Relaxed, time::Duration};

use anyhow::ensure;

use crate::patient;

use super::{ask::Shared, opener::abort, protocol::CHUNK_BYTES};

/// A tunnel that moves nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends until told to stop. What has arrived is counted by the server.
pub(super) fn send(tunnel: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let chunk = vec![b'x'; CHUNK_BYTES];
    while !shared.stopped() {
        let result = patient::send_all(&tunnel, &chunk, PATIENCE);
        ensure!(result.is_ok() || shared.stopped(), "bulk: {result:?}");
    }
    abort(tunnel);
    Ok(())
}

/// Receives until told to stop.
pub(super) fn receive(tunnel: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    while !shared.stopped() {
        let result = patient::receive(&tunnel, &mut buffer, PATIENCE);
        let n = *result.as_ref().unwrap_or(&0);
        ensure!(n > 0 || shared.stopped(), "bulk: {result:?}");
        shared.bytes.fetch_add(n as u64, Relaxed);
    }
    abort(tunnel);
    Ok(())
}
