//! A request that is sent and whose answer is waited for, by the same task.
//!
//! A request goes out when all tasks have had their turn that were ready before it: a worker first
//! reads the requests that have come, and then sends them, one behind the other. A server that is
//! faster than the proxy would otherwise be woken for each, and rest again before the next, and
//! waking a thread that rests costs more than sending.

use std::{
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use http::Request;

use super::{Body, Link, outgoing::Failed};
use crate::{
    body::BodyStream,
    error::{Error, Kind},
    upstream::answer::{AnswerBody, Broken, Sent, Unanswered},
    wire::rest::Rest,
};

/// A request that goes out, and the head of its answer.
#[derive(Debug)]
pub struct Sending {
    link: Rc<Link>,
    /// Its body is on the wire's side once it has begun.
    request: Option<Request<BodyStream>>,
    /// The connection was kept from a request before.
    reused: bool,
    /// It has let the tasks go before it that were ready.
    has_queued: bool,
    begun: bool,
    has_body: bool,
}

impl Sending {
    /// `reused`: the connection was kept from a request before.
    pub(super) fn new(link: Rc<Link>, request: Request<BodyStream>, reused: bool) -> Self {
        let request = Some(request);
        Self { link, request, reused, has_queued: false, begun: false, has_body: false }
    }
}

impl Future for Sending {
    type Output = Sent;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Sent> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.has_queued, true) {
            // To the end of the worker's queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut wire = this.link.wire.borrow_mut();
        if !this.begun && this.reused && !wire.is_quiet() {
            // It has ended meanwhile, or something has come that nobody asked for.
            let ended = io::Error::from(io::ErrorKind::ConnectionAborted);
            let request = this.request.take();
            return Poll::Ready(Err(Unanswered::new(Broken::Http1(ended), request)));
        }
        if let Some(request) = this.request.as_mut().filter(|_| !this.begun) {
            this.begun = true;
            this.has_body = !http_body::Body::is_end_stream(request.body());
            wire.begin(request);
        }
        match wire.poll_send(cx) {
            Poll::Pending | Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Failed::Body(error))) => {
                return Poll::Ready(Err(Unanswered::new(Broken::Request(error), None)));
            }
            Poll::Ready(Err(Failed::Length)) => {
                let error = Error::new(Kind::Internal);
                return Poll::Ready(Err(Unanswered::new(Broken::Request(error), None)));
            }
            Poll::Ready(Err(Failed::Socket(error))) => {
                drop(wire.out.abandon());
                if !wire.has_begun() && !this.has_body {
                    let request = this.request.take();
                    return Poll::Ready(Err(Unanswered::new(Broken::Http1(error), request)));
                }
                // An answer may be there all the same.
            }
        }
        let (head, facts) = match ready!(wire.poll_head(cx)) {
            Ok(head) => head,
            Err(error) => {
                let written = this.request.take().filter(|_| !this.has_body);
                let error = Unanswered::maybe_seen(Broken::Http1(error), written);
                return Poll::Ready(Err(error));
            }
        };
        let is_sent = wire.out.is_done();
        let rest = match facts.status {
            101 => Rest::Over,
            _ => Rest::of(facts.framing, wire.bounds().max_bytes),
        };
        drop(wire);
        if !is_sent {
            this.link.sending.set(true);
            tokio::task::spawn_local(Rc::clone(&this.link).send_rest());
        }
        let body = AnswerBody::Http1(Body::new(Rc::clone(&this.link), rest));
        Poll::Ready(Ok(head.map(|()| body)))
    }
}
