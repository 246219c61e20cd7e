//! The body of an answer, as it comes.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::Link;
use crate::wire::rest::Rest;

/// The body. Reads of its connection only when asked for a frame.
#[derive(Debug)]
pub struct Body {
    /// `None`: all has come, and the connection may be another's.
    link: Option<Rc<Link>>,
    rest: Rest,
    /// Something has been given of the answer, its head at first, since it was last waited for.
    gave: bool,
    /// How it has broken off, to be told when what was given has had the time to go out.
    broken: Option<io::Error>,
}

impl Body {
    pub(super) fn new(link: Rc<Link>, rest: Rest) -> Self {
        let link = (!rest.is_over()).then_some(link);
        Self { link, rest, gave: true, broken: None }
    }

    /// Whether all has come.
    pub fn is_over(&self) -> bool {
        self.rest.is_over()
    }

    /// How much has yet to come.
    pub fn size_hint(&self) -> SizeHint {
        self.rest.size_hint()
    }

    /// The next frame.
    ///
    /// # Errors
    /// Of the socket, or that the body is not whole, or that its framing is broken
    /// ([`Link::fault`] says which rule).
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = match self.broken.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => self.poll(cx),
        };
        match polled {
            Poll::Pending => {
                self.gave = false;
                Poll::Pending
            }
            Poll::Ready(Ok(frame)) => {
                self.gave = true;
                if self.rest.is_over() {
                    self.link = None;
                }
                Poll::Ready(frame.map(Ok))
            }
            // Whoever passes it on takes what there is before writing any of it, and writes
            // nothing more behind an error.
            Poll::Ready(Err(error)) if self.gave => {
                self.gave = false;
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Err(error)) => {
                self.rest = Rest::Over;
                self.link = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        let Some(link) = &self.link else { return Poll::Ready(Ok(None)) };
        let mut wire = link.wire.borrow_mut();
        loop {
            let taken = self.rest.take(&mut wire.have);
            match taken.map_err(|rule| wire.broken(rule))? {
                None if !self.rest.is_over() => {}
                frame => return Poll::Ready(Ok(frame)),
            }
            let Poll::Ready(read) = wire.poll_body(cx) else {
                if link.sending.get() {
                    *link.reader.borrow_mut() = Some(cx.waker().clone());
                }
                return Poll::Pending;
            };
            if read? == 0 {
                wire.retire();
                return Poll::Ready(match self.rest.ends() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                });
            }
        }
    }
}
