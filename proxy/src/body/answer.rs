//! The body of an answer on its way to the client, and what lasts as long as it does.
//!
//! Over HTTP/2 the last byte of an answer of more than a frame goes by itself. hyper waits for the
//! client's window before each piece; but a piece may be larger than what is open, and with the last
//! one hyper leaves h2 to wait for the rest, which no deadline is over, and of which nobody could say
//! afterwards whether the client let it come. Before the last byte everything else has had room.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame};

use crate::{
    error::Error,
    exchange::Exchange,
    grpc,
    record::Side,
    upstream::{answer::AnswerBody, connection::Connection},
    wire::http2,
};

/// Answers of so many bytes go in one frame (RFC 9113 section 4.2, the least that a peer takes).
const ONE_FRAME: u64 = 16_384;

/// Holds what has to last as long as the response does.
#[derive(Debug)]
pub(super) struct ResponseTap {
    pub(super) exchange: Rc<Exchange>,
    pub(super) connection: Option<Connection>,
    /// Whether everything has come.
    pub(super) ended: bool,
    /// The last byte, which has yet to go.
    last: Option<Bytes>,
}

/// Counts what goes to the client.
pub(super) fn counted(
    frame: Poll<Option<Result<Frame<Bytes>, Error>>>,
    tap: &mut ResponseTap,
) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    let frame = match ready!(frame) {
        Some(Ok(frame)) => frame,
        None => {
            tap.exchange.answer_ends();
            return Poll::Ready(None);
        }
        error => return Poll::Ready(error),
    };
    let frame = match frame.into_data() {
        Ok(mut data) => {
            tap.exchange.sent(data.len());
            if tap.ended && data.len() > 1 && tap.ends_apart() {
                tap.last = Some(data.split_off(data.len() - 1));
            }
            Frame::data(data)
        }
        Err(frame) => frame,
    };
    Poll::Ready(Some(Ok(frame)))
}

pub(super) fn poll_response(
    body: &mut AnswerBody,
    tap: &mut ResponseTap,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    if let Some(last) = ready!(tap.exchange.poll_record_kept(cx)) {
        return Poll::Ready(last.map(Ok));
    }
    ready!(tap.exchange.poll_record_room(Side::Response, cx));
    let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
        // Over HTTP/2 nobody else looks at the deadline of this stream.
        return tap.exchange.poll_stalled(cx).map(|error| Some(tap.fails(error)));
    };
    Poll::Ready(match frame {
        Some(Ok(mut frame)) => {
            if frame.is_trailers() || body.is_end_stream() {
                tap.ended = true;
                tap.release();
            }
            let exchange = &tap.exchange;
            exchange.record_frame(Side::Response, &frame);
            let taken = frame
                .trailers_ref()
                .is_some_and(|trailers| exchange.pass_answer_trailers(trailers));
            if let Some(section) = frame.trailers_mut()
                && !taken
                && exchange.version() == Version::HTTP_2
            {
                http2::trailers(section);
            }
            let frame = (!taken).then_some(frame);
            if tap.ended {
                return poll_last(exchange, frame, cx);
            }
            frame.map(Ok)
        }
        Some(Err(error)) => {
            let fault = tap.connection.as_ref().and_then(Connection::fault);
            let error = tap.exchange.response_broke(error, fault);
            Some(tap.fails(error))
        }
        None => {
            let sent = tap.exchange.is_request_ended();
            let connection = tap.connection.as_ref();
            if connection.is_some_and(|connection| connection.is_broken_off(body, sent)) {
                let error = tap.exchange.response_broke_off();
                return Poll::Ready(Some(tap.fails(error)));
            }
            tap.ended = true;
            tap.release();
            return poll_last(&tap.exchange, None, cx);
        }
    })
}

/// The last frame of an answer, or its end: where traffic waits for the recorder, it is kept
/// until everything is written.
pub(super) fn poll_last(
    exchange: &Exchange,
    frame: Option<Frame<Bytes>>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    let last = match exchange.recording() {
        None => frame,
        Some(recording) => match recording.keep(frame) {
            Some(frame) => frame,
            None => ready!(exchange.poll_record_kept(cx)).flatten(),
        },
    };
    Poll::Ready(last.map(Ok))
}

impl ResponseTap {
    /// `ended`: nothing is to come.
    pub(super) fn new(exchange: Rc<Exchange>, connection: Option<Connection>, ended: bool) -> Self {
        Self { exchange, connection, ended, last: None }
    }

    /// Whether the last byte goes by itself.
    fn ends_apart(&self) -> bool {
        self.exchange.version() == Version::HTTP_2 && self.exchange.sent_bytes() > ONE_FRAME
    }

    /// The last byte, if there is nothing else to come.
    pub(super) fn take_last(&mut self) -> Option<Frame<Bytes>> {
        let last = self.last.take()?;
        self.exchange.sent(0);
        Some(Frame::data(last))
    }

    /// Whether it has yet to go.
    pub(super) fn owes_last(&self) -> bool {
        self.last.is_some()
    }

    /// The answer cannot be finished. A caller of gRPC is told why where HTTP has no way to: in
    /// the trailers.
    pub(super) fn fails(&mut self, error: Error) -> Result<Frame<Bytes>, Error> {
        self.connection = None;
        match self.exchange.is_grpc() {
            true => Ok(Frame::trailers(grpc::trailers(error.kind))),
            false => Err(error),
        }
    }

    /// The server's part is over: its connection is free if the request is through as well.
    pub(super) fn release(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.exchange.is_request_ended()
        {
            connection.give_back();
        }
    }
}

impl Drop for ResponseTap {
    fn drop(&mut self) {
        // hyper drops a body of known length without asking for its end.
        if self.ended {
            self.release();
        } else {
            self.connection = None;
        }
        // It may have gone as far as hyper, and no further.
        let whole = self.ended && self.last.is_none() && !self.exchange.is_not_taken();
        self.exchange.finish(whole && !self.exchange.record_keeps());
    }
}
