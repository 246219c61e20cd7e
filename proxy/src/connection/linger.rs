//! Closing a connection whose client may still be sending.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::{transport::Transport, worker::Worker};

/// How long, and for how many bytes, a client may go on sending what nobody will read
/// before the socket is closed under it: closing at once would have its kernel throw away
/// the answer (RFC 9112 section 9.6).
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1 << 20);

/// Lets the client finish sending, so that it reads our last answer (RFC 9112 section 9.6).
pub(super) async fn linger(worker: &Worker, mut stream: Transport) {
    // hyper has not, if it ended for an error or had ever been asked for an upgrade.
    let _ = stream.shutdown().await;
    // On the heap, and only now: every connection would carry it otherwise.
    let mut scrap = vec![0u8; 4096];
    let mut left = LINGER.1;
    let deadline = Instant::now() + LINGER.0;
    let drain = async {
        while left > 0 {
            match stream.read(&mut scrap).await {
                Ok(0) | Err(_) => break,
                Ok(n) => left = left.saturating_sub(n),
            }
        }
    };
    if !worker.is_forced() {
        let _ = tokio::time::timeout_at(deadline, drain).await;
    }
}
