//! Own sockets as targets of redirects, each at most once per tunnel.
//!
//! A socket whose bytes are sent out by others, or whose own input was taken by `up_skb`,
//! keeps what the kernel has queued for it only as long as it is in a sockhash. An anchor
//! holds it in the one that no program runs for, until the tunnel ends.

use std::{cell::OnceCell, io, sync::Arc};

use proxy_ebpf::SocketKey;
use tokio::net::TcpStream;

use super::{
    kernel::{Enrolled, Kernel, Set},
    socket,
};

/// Send buffer of a target, bytes as SO_SNDBUFFORCE takes them (the kernel doubles it).
/// What an application sends at once has to fit: it must not wait for a socket that it does
/// not know; and the kernel's worker thread gives up while half of it is in use.
const SEND_BUFFER_BYTES: usize = 1024 * 1024;

/// The two own sockets of a tunnel, as far as they are anchored.
#[derive(Debug)]
pub(crate) struct Anchors {
    kernel: Arc<Kernel>,
    /// Downstream, upstream.
    enrolled: [OnceCell<Enrolled>; 2],
}

impl Anchors {
    pub(crate) fn new(kernel: Arc<Kernel>) -> Self {
        Self { kernel, enrolled: [const { OnceCell::new() }; 2] }
    }

    pub(super) fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// Anchors a socket, `at` 0 the downstream one and 1 the upstream one.
    pub(super) fn hold(&self, at: usize, socket: &TcpStream) -> io::Result<SocketKey> {
        if let Some(enrolled) = self.enrolled[at].get() {
            return Ok(enrolled.key());
        }
        let enrolled = self.kernel.enroll(Set::Targets, socket)?;
        Ok(self.enrolled[at].get_or_init(|| enrolled).key())
    }
}

/// Gives a target that much send buffer. The kernel adapts it no longer.
pub(super) fn widen(socket: &TcpStream) -> io::Result<()> {
    // Without privilege for more than net.core.wmem_max: as much as that.
    if socket::force_send_buffer(socket, SEND_BUFFER_BYTES).is_err() {
        rustix::net::sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER_BYTES)?;
    }
    Ok(())
}
