//! Bulk: one blocking thread per tunnel, so that nothing but the path is in the way.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::Ordering::Relaxed,
};

use anyhow::ensure;

use super::{ask::Shared, opener::abort, protocol::CHUNK_BYTES};

/// Sends until told to stop. What has arrived is counted by the server.
pub(super) fn send(mut tunnel: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let chunk = vec![b'x'; CHUNK_BYTES];
    while !shared.stopped() {
        let result = tunnel.write_all(&chunk);
        ensure!(result.is_ok() || shared.stopped(), "bulk: {result:?}");
    }
    abort(tunnel);
    Ok(())
}

/// Receives until told to stop.
pub(super) fn receive(mut tunnel: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    while !shared.stopped() {
        let result = tunnel.read(&mut buffer);
        let n = *result.as_ref().unwrap_or(&0);
        ensure!(n > 0 || shared.stopped(), "bulk: {result:?}");
        shared.bytes.fetch_add(n as u64, Relaxed);
    }
    abort(tunnel);
    Ok(())
}
