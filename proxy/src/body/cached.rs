//! The body of an answer out of the cache, or shared with others while it comes.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;

use super::{BodyStream, ResponseTap, Source, Tap, poll_last};
use crate::{cache::reader::Reader, error::Error, exchange::Exchange, record::Side};

impl BodyStream {
    /// An answer out of the cache.
    pub fn cached(reader: Reader, exchange: Rc<Exchange>) -> Self {
        let ended = reader.left() == Some(0);
        let tap = ResponseTap::new(exchange, None, ended);
        Self { source: Source::Cached(Box::new(reader)), tap: Tap::Response(tap) }
    }
}

pub(super) fn poll_cached(
    reader: &mut Reader,
    tap: &mut ResponseTap,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    if let Some(last) = ready!(tap.exchange.poll_record_kept(cx)) {
        return Poll::Ready(last.map(Ok));
    }
    ready!(tap.exchange.poll_record_room(Side::Response, cx));
    let Poll::Ready(chunk) = reader.poll_next(cx) else {
        return tap.exchange.poll_stalled(cx).map(|error| Some(tap.fails(error)));
    };
    match chunk {
        Some(Ok(chunk)) => {
            let frame = Frame::data(chunk);
            tap.exchange.record_frame(Side::Response, &frame);
            tap.ended = reader.left() == Some(0);
            match tap.ended {
                true => poll_last(&tap.exchange, Some(frame), cx),
                false => Poll::Ready(Some(Ok(frame))),
            }
        }
        Some(Err(kind)) => {
            let error = tap.exchange.cache_broke(kind);
            Poll::Ready(Some(tap.fails(error)))
        }
        None => {
            tap.ended = true;
            poll_last(&tap.exchange, None, cx)
        }
    }
}
