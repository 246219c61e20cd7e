//! Engine `copy`: one read into a pooled buffer, one write out of it.
//!
//! Invariant: a buffer is taken only when the source is readable, and filled only when
//! empty. Works for every kind of end; the other engines are measured against it.

use std::{
    io,
    task::{Context, Poll, ready},
};

use super::{buffer::Buffer, endpoint::Endpoint};

/// Reads once, into `held` or a buffer from the pool. The end is `None`.
pub(super) fn poll_fill(
    cx: &mut Context<'_>,
    from: &impl Endpoint,
    held: Option<Buffer>,
) -> Poll<io::Result<Option<Buffer>>> {
    // On `Pending` and at the end `held` is dropped: back into the pool.
    ready!(from.poll_readable(cx))?;
    let mut buffer = held.unwrap_or_else(Buffer::take);
    let n = ready!(from.poll_read(cx, buffer.room()))?;
    buffer.filled(n);
    Poll::Ready(Ok((n > 0).then_some(buffer)))
}

/// Writes once; returns how much.
pub(super) fn poll_drain(
    cx: &mut Context<'_>,
    to: &impl Endpoint,
    buffer: &mut Buffer,
) -> Poll<io::Result<usize>> {
    let n = ready!(to.poll_write(cx, buffer.pending()))?;
    buffer.sent(n);
    Poll::Ready(Ok(n))
}
