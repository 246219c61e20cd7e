//! What a lane needs of the two ends that it joins.
//!
//! Both lanes of a tunnel share both ends, so everything works through `&self`.

use std::{
    future::Future,
    io,
    task::{Context, Poll},
};

use super::{ktls::Ktls, tcp_end::TcpEnd, why::Why};

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

    /// The socket, where bytes of this end are bytes of a socket that the kernel's programs may
    /// have.
    fn tcp(&self) -> Option<&TcpEnd>;

    /// The socket, where splice(2) moves bytes of this end.
    fn spliced(&self) -> Option<&TcpEnd> {
        self.tcp()
    }

    /// So many bytes went to [`Self::spliced`] by itself.
    fn gave(&self, _bytes: usize) {}

    /// Whether what splice(2) moves is inside records: then it finds nothing, or refuses, where
    /// one is no data, and only a read tells what it is.
    fn has_records(&self) -> bool {
        false
    }

    /// The socket, whatever it carries.
    fn socket(&self) -> Option<&TcpEnd>;

    /// Why only engine `copy` can move its bytes, if so: there is no [`Self::spliced`].
    fn must_copy(&self) -> Option<Why>;

    /// Whether it could be otherwise, were the kernel given what it may have of `ktls`.
    fn suits(&self, _ktls: Ktls) -> Result<(), Why> {
        self.must_copy().map_or(Ok(()), Err)
    }

    /// The kernel is to have the keys, if there are any, or this is why not.
    fn ask(&self, _ktls: Result<Ktls, Why>) {}

    /// Whether the kernel has keys of it.
    fn is_tls_in_kernel(&self) -> bool {
        false
    }

    /// Whether [`Self::must_copy`] may change.
    fn may_yet_splice(&self) -> bool {
        false
    }
}
