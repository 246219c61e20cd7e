//! The body of an answer in a content coding that the server did not use.
//!
//! Invariant: what has come is on its way before the next is waited for. A body that breaks
//! off has no end in its coding either, so no decoder takes it for whole.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use crate::{
    error::{Error, Kind},
    middleware::compress::{Coding, Encoder},
    record::Side,
};

use super::{BodyStream, ResponseTap, Source, poll_cached, poll_last, poll_response};

/// A body and what encodes it.
#[derive(Debug)]
pub(super) struct Coded {
    source: Source,
    encoder: Encoder,
    end: End,
    /// Something has been given since more was last waited for.
    gave: bool,
}

#[derive(Debug)]
enum End {
    /// More may come.
    Open,
    /// It has broken off. To be told when what was given has had the time to go out: whoever
    /// passes it on writes nothing more behind an error.
    Broken(Error),
    /// The last bytes have gone, these have not.
    Trailers(HeaderMap),
    /// Nothing is left.
    Over,
}

type Polled = Poll<Option<Result<Frame<Bytes>, Error>>>;

impl BodyStream {
    /// Puts the body of an answer into a content coding, chunk by chunk as they come. One that
    /// has no bytes stays as it is: there is none (HEAD).
    ///
    /// # Errors
    /// If there is no memory for the coding.
    pub fn encode(&mut self, coding: Coding) -> std::io::Result<()> {
        let source = std::mem::replace(&mut self.source, Source::Empty);
        self.source = match source {
            Source::Answer(_) | Source::Fixed(_) | Source::Cached(_) if !self.is_to_head() => {
                Source::Coded(Box::new(Coded::new(source, coding)?))
            }
            other => other,
        };
        Ok(())
    }
}

impl Coded {
    pub(super) fn new(source: Source, coding: Coding) -> io::Result<Self> {
        Ok(Self { source, encoder: Encoder::new(coding)?, end: End::Open, gave: true })
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.end, End::Over)
    }

    pub(super) fn poll_frame(&mut self, tap: &mut ResponseTap, cx: &mut Context<'_>) -> Polled {
        match std::mem::replace(&mut self.end, End::Over) {
            End::Open => self.end = End::Open,
            End::Broken(error) if self.gave => {
                self.gave = false;
                self.end = End::Broken(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            End::Broken(error) => return Poll::Ready(Some(Err(error))),
            End::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            End::Over => return Poll::Ready(None),
        }
        loop {
            let frame = match &mut self.source {
                Source::Answer(body) => poll_response(body, tap, cx),
                Source::Cached(reader) => poll_cached(reader, tap, cx),
                Source::Fixed(text) if !text.is_empty() => {
                    let frame = Frame::data(std::mem::take(text));
                    // As it was before the coding, like a server's.
                    tap.exchange.record_frame(Side::Response, &frame);
                    Poll::Ready(Some(Ok(frame)))
                }
                _ => {
                    tap.ended = true;
                    poll_last(&tap.exchange, None, cx)
                }
            };
            let made = match frame {
                Poll::Pending if self.encoder.owes() => self.encoder.flush(),
                Poll::Pending => {
                    self.gave = false;
                    return Poll::Pending;
                }
                // What has come goes out before it.
                Poll::Ready(Some(Err(error))) if self.encoder.owes() => {
                    self.end = End::Broken(error);
                    self.gave = true;
                    return Poll::Ready(match self.encoder.flush() {
                        Ok(bytes) => Some(Ok(Frame::data(bytes))),
                        Err(error) => Some(Err(Error::because(Kind::Internal, error))),
                    });
                }
                Poll::Ready(Some(Err(error))) if self.gave => {
                    self.gave = false;
                    self.end = End::Broken(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => self.finish(None),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        // It has come, though it may not go on yet.
                        tap.exchange.sent(0);
                        self.encoder.push(&data)
                    }
                    Err(frame) => self.finish(frame.into_trailers().ok()),
                },
            };
            match made {
                Ok(bytes) if bytes.is_empty() && matches!(self.end, End::Open) => {}
                Ok(bytes) => {
                    self.gave = true;
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Err(error) => {
                    tap.exchange.fail(Kind::Internal);
                    tap.exchange.client().cut();
                    return Poll::Ready(Some(Err(Error::because(Kind::Internal, error))));
                }
            }
        }
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<Bytes> {
        self.end = trailers.map_or(End::Over, End::Trailers);
        self.encoder.finish()
    }
}
