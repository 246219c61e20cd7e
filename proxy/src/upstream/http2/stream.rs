//! What one exchange has of a shared connection: a place among its streams.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use futures_util::FutureExt;
use http::Method;
use hyper::{Request, client::conn::http2::SendRequest};
use tokio::time::Instant;

use super::carrier::Carrier;
use crate::{
    body::{BodyStream, Lent},
    tunnel::h2::Sending,
    upstream::{
        answer::{AnswerBody, Sent},
        carried::Carried,
    },
    wire::http2 as http2_head,
};

/// A place among the streams of a connection. Whoever has a part of the stream to see to, the
/// request's or the answer's, holds it; with the last of them it is free.
#[derive(Debug)]
pub struct Place {
    carrier: Rc<Carrier>,
    /// Nobody wants the answer any more.
    cut: Cell<bool>,
    sender: RefCell<Option<Waker>>,
    /// What sends once it is a tunnel.
    sending: Sending,
}

/// What stands for the body of a CONNECT, which has none: by it is known whose task is which.
#[derive(Debug)]
pub struct Connecting(Rc<Place>);

impl Connecting {
    /// hyper has taken the request, and hands out the task that waits for its answer next.
    pub fn taken(&self) {
        *self.0.carrier.connecting.borrow_mut() = Some(Rc::clone(&self.0));
    }
}

impl Drop for Connecting {
    /// There is no such task, if it has not come by now.
    fn drop(&mut self) {
        let mut connecting = self.0.carrier.connecting.borrow_mut();
        if connecting.as_ref().is_some_and(|place| Rc::ptr_eq(place, &self.0)) {
            *connecting = None;
        }
    }
}

/// What a tunnel holds of a shared connection: its place, and what counts it as under way.
#[derive(Debug)]
pub struct Held {
    _place: Rc<Place>,
    _carried: Option<Box<Carried>>,
}

impl Place {
    pub(super) fn new(carrier: Rc<Carrier>) -> Rc<Self> {
        let (cut, sender) = (Cell::new(false), RefCell::new(None));
        Rc::new(Self { carrier, cut, sender, sending: Sending::default() })
    }

    pub(super) fn sending(&self) -> &Sending {
        &self.sending
    }

    /// The body of the request is asked for: what hyper hands out next is of this stream.
    pub fn asked(self: &Rc<Self>) {
        *self.carrier.asked.borrow_mut() = Some(Rc::clone(self));
    }

    /// Resolves when the stream is given up, for the request's side.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        if self.cut.get() {
            return Poll::Ready(());
        }
        let mut sender = self.sender.borrow_mut();
        match &mut *sender {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *sender = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn cut(&self) {
        self.cut.set(true);
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.carrier.closed();
    }
}

/// A checked-out stream. Dropped before the exchange is complete it is reset (CANCEL).
#[derive(Debug)]
pub struct Stream {
    /// `None`: given back.
    place: Option<Rc<Place>>,
    address: SocketAddr,
    sender: Option<SendRequest<BodyStream>>,
    body: Option<Rc<Lent>>,
    sent: Option<Instant>,
    reused: bool,
    carried: Option<Box<Carried>>,
}

impl Stream {
    pub(super) fn new(place: Rc<Place>, sender: SendRequest<BodyStream>, reused: bool) -> Self {
        let address = place.carrier.address;
        let (place, sender) = (Some(place), Some(sender));
        Self { place, address, sender, body: None, sent: None, reused, carried: None }
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether its connection has carried a request before.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// As [`crate::upstream::connection::Connection::carry`].
    pub fn carry(&mut self, carried: Option<Box<Carried>>) {
        self.carried = carried;
    }

    /// As [`crate::upstream::connection::Connection::send`]: the request becomes one of HTTP/2.
    pub fn send(
        &mut self,
        mut request: Request<BodyStream>,
    ) -> Option<impl Future<Output = Sent> + 'static + use<>> {
        // Not kept: while there are senders hyper waits for more requests.
        let mut sender = self.sender.take()?;
        let place = self.place.as_ref()?;
        http2_head::to_http2(&mut request, self.address, place.carrier.secure);
        self.sent = Some(Instant::now());
        let request = if request.method() == Method::CONNECT {
            request.map(|_| BodyStream::connecting(Connecting(Rc::clone(place))))
        } else if http_body::Body::is_end_stream(request.body()) {
            request
        } else {
            let (head, body) = request.into_parts();
            let (body, lent) = body.lend(Rc::clone(place));
            self.body = Some(lent);
            Request::from_parts(head, body)
        };
        let sending = sender.try_send_request(request);
        Some(sending.map(|sent| Ok(sent?.map(AnswerBody::Http2))))
    }

    /// Whether the server takes tunnels, once it has said so. `None`: its connection has ended.
    pub async fn extends(&self) -> Option<bool> {
        self.place.as_ref()?.carrier.extends().await
    }

    /// The answer makes it a tunnel: what goes on holding its place, and what sends on it.
    pub fn into_tunnel(mut self) -> Option<(Held, Sending)> {
        let place = self.place.take()?;
        let sending = place.sending.clone();
        Some((Held { _place: place, _carried: self.carried.take() }, sending))
    }

    /// No answer in time.
    pub fn unanswered(&self) {
        if let (Some(place), Some(sent)) = (&self.place, self.sent) {
            place.carrier.doubt(sent);
        }
    }

    /// The head of the answer is there: nothing of the request is kept any more.
    pub fn answered(&mut self) {
        if let Some(lent) = self.body.take() {
            lent.settle();
        }
    }

    /// The request's body, whole. `None`: too much of it is gone.
    pub fn reclaim(&mut self) -> Option<BodyStream> {
        self.body.take().map_or_else(|| Some(BodyStream::empty()), |lent| lent.take_back())
    }

    /// As [`crate::upstream::connection::Connection::give_back`].
    pub fn give_back(mut self) {
        self.place = None;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.cut();
        }
    }
}
