//! What a lane needs of the two ends that it joins.
//!
//! Both lanes of a tunnel share both ends, so everything works through `&self`.

use std::{
    future::Future,
    io,
    task::{Context, Poll},
};

use super::{meter::Why, tcp_end::TcpEnd};

/// One end of a tunnel.
pub(crate) trait Endpoint {
    /// Ready when a read is worth trying. Lets a lane wait without holding a buffer; ends
    /// that cannot tell say ready.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads what is there; 0 is the end.
    fn poll_read(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes what there is room for, of bytes that are not none.
    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Says to the peer that no more will come (FIN, END_STREAM).
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when the connection has failed, though nobody reads or writes. To be polled after
    /// the lanes: what they wait for need not be waited for here.
    fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<io::Error>;

    /// Bytes handed over that the peer does not have yet, as far as that can be known.
    fn queued(&self) -> usize;

    /// Resolves when the peer has been given everything, or cannot be.
    fn delivered(&self) -> impl Future<Output = ()>;

    /// The socket, where bytes of this end are bytes of a socket.
    fn tcp(&self) -> Option<&TcpEnd>;

    /// The socket, whatever it carries.
    fn socket(&self) -> Option<&TcpEnd>;

    /// Why only engine `copy` can move its bytes, if so: there is no [`Self::tcp`].
    fn must_copy(&self) -> Option<Why>;
}
