//! One request and its answer: what is known of it, counted once, told once.
//!
//! Lives from the request's head to the end of the answer's body or of the tunnel. Shared
//! on one thread by the service, the request's body and the response's body; whoever is
//! last reports it to the metrics and the access log, exactly once.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use tokio::time::Instant;

use crate::{
    access_log,
    cache::outcome::Outcome,
    connection::Client,
    error::{Error, Kind},
    grpc,
    middleware::{Visits, mirror::Copying},
    record::Recording,
    route::Matched,
    spans,
    upstream::{answer::Broken, balance::Upstream},
    watchdog::{Wait, Watched},
};

mod answer;
mod record;
mod report;
use report::Line;

/// Whether the request's body may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// The client waits for 100 (Continue), and so do we.
    Waiting,
    /// Nobody waits.
    Go,
}

/// The state of one exchange.
#[derive(Debug)]
pub struct Exchange {
    client: Rc<Client>,
    watched: Rc<Watched>,
    /// Who asked, as far as that can be believed.
    asking: std::net::SocketAddr,
    started: Instant,
    version: Version,
    to_head: bool,
    grpc: bool,
    line: Option<Line>,
    trace: OnceCell<spans::Context>,
    record: OnceCell<Box<Recording>>,
    expect: Cell<Expect>,
    unasked: Cell<bool>,
    body_waker: RefCell<Option<Waker>>,
    route: OnceCell<Rc<Matched>>,
    visits: RefCell<Visits>,
    copies: RefCell<Vec<Copying>>,
    upstream: RefCell<Option<Rc<Upstream>>>,
    server: Cell<Option<std::net::SocketAddr>>,
    resends: Cell<u8>,
    status: Cell<StatusCode>,
    ttfb: Cell<Option<Duration>>,
    cached: Cell<Option<Outcome>>,
    authorized: Cell<bool>,
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
    request_ended: Cell<bool>,
    for_server: Cell<bool>,
    answer_is_chunked: Cell<bool>,
    answered: Cell<bool>,
    own: Cell<bool>,
    fault: Cell<Option<Kind>>,
    tunnelled: Cell<bool>,
    reported: Cell<bool>,
}

impl Exchange {
    /// Begins with the head of a request.
    pub fn begin<B>(
        client: &Rc<Client>,
        watched: Rc<Watched>,
        request: &http::Request<B>,
    ) -> Rc<Self> {
        let told = client.log().is_on() || client.worker().process.tracer.is_some();
        client.exchange_begins();
        let grpc = request.version() == Version::HTTP_2 && grpc::is_call(request.headers());
        if grpc && let Some(timeout) = grpc::timeout(request.headers()) {
            watched.wait(Wait::Deadline, timeout);
        }
        Rc::new(Self {
            client: Rc::clone(client),
            asking: client.asking(request.headers()),
            watched,
            started: Instant::now(),
            version: request.version(),
            to_head: request.method() == Method::HEAD,
            grpc,
            line: told.then(|| Line::of(request)),
            trace: OnceCell::new(),
            record: OnceCell::new(),
            expect: Cell::new(Expect::Go),
            unasked: Cell::new(false),
            body_waker: RefCell::new(None),
            route: OnceCell::new(),
            visits: RefCell::default(),
            copies: RefCell::default(),
            upstream: RefCell::new(None),
            server: Cell::new(None),
            resends: Cell::new(0),
            status: Cell::new(StatusCode::INTERNAL_SERVER_ERROR),
            ttfb: Cell::new(None),
            cached: Cell::new(None),
            authorized: Cell::new(false),
            request_bytes: Cell::new(0),
            response_bytes: Cell::new(0),
            request_ended: Cell::new(false),
            for_server: Cell::new(false),
            answer_is_chunked: Cell::new(false),
            answered: Cell::new(false),
            own: Cell::new(false),
            fault: Cell::new(None),
            tunnelled: Cell::new(false),
            reported: Cell::new(false),
        })
    }

    /// The connection it came on.
    pub fn client(&self) -> &Rc<Client> {
        &self.client
    }

    /// Who asked: the peer, or whom a trusted proxy named, then with port 0 as a rule.
    pub fn asking(&self) -> std::net::SocketAddr {
        self.asking
    }

    /// HTTP version of the request.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The target is the server itself, in absolute-form.
    pub fn for_server(&self) {
        self.for_server.set(true);
    }

    /// Whether it is (RFC 9112 section 3.2.4).
    pub fn is_for_server(&self) -> bool {
        self.for_server.get()
    }

    /// Whether the request is HEAD, so that no answer has a body.
    pub fn is_to_head(&self) -> bool {
        self.to_head
    }

    /// Whether it is a call of gRPC, which is told in gRPC's form what goes wrong.
    pub fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// `limit`, or what is left until the client's deadline.
    pub fn within(&self, limit: Duration) -> Duration {
        let deadline = self.watched.deadline(Wait::Deadline);
        deadline.map_or(limit, |deadline| limit.min(deadline.duration_since(Instant::now())))
    }

    /// Whether the client's deadline has passed.
    pub fn is_late(&self) -> bool {
        self.watched.expired() == Some(Wait::Deadline)
            || self.watched.deadline(Wait::Deadline).is_some_and(|at| at <= Instant::now())
    }

    /// For how long it has been under way.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Who watches its deadlines.
    pub fn watched(&self) -> &Watched {
        &self.watched
    }

    /// Which route it takes. Once: an exchange is routed by its head, as that came.
    pub fn routed(&self, route: Rc<Matched>) -> &Rc<Matched> {
        self.route.get_or_init(|| route)
    }

    /// Its route. `None`: it has none yet, or comes to a forward proxy.
    pub fn route(&self) -> Option<&Rc<Matched>> {
        self.route.get()
    }

    /// Its place in a trace. Once: it is told to the server.
    pub fn traced(&self, context: spans::Context) {
        // A second place would be one that nobody knows of.
        let _ = self.trace.set(context);
    }

    /// What has been done with it on its way.
    pub fn visits(&self) -> &RefCell<Visits> {
        &self.visits
    }

    /// Where it goes.
    pub fn goes_to(&self, upstream: &Rc<Upstream>) {
        *self.upstream.borrow_mut() = Some(Rc::clone(upstream));
    }

    /// Whom it has reached.
    pub fn reached(&self, server: std::net::SocketAddr) {
        self.server.set(Some(server));
    }

    // -- the request's body ---------------------------------------------------------

    /// Holds the body back until [`Self::may_send_body`].
    pub fn expect_continue(&self) {
        self.expect.set(Expect::Waiting);
    }

    /// The server wants the body.
    pub fn may_send_body(&self) {
        self.expect.set(Expect::Go);
        if let Some(waker) = self.body_waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Resolves when the body may go out.
    pub fn poll_may_send_body(&self, cx: &Context<'_>) -> Poll<()> {
        if self.expect.get() == Expect::Go {
            return Poll::Ready(());
        }
        *self.body_waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the answer came before anybody asked for the body.
    pub fn is_unasked(&self) -> bool {
        self.unasked.get()
    }

    /// The next chunk is the client's to give; the server owes nothing meanwhile.
    pub fn waits_for_client(&self) {
        self.watched.wait_on(Wait::Request, self.client.limits().body_idle_timeout);
        if !self.answered.get() {
            self.watched.done(Wait::Response);
        }
    }

    /// It gave one, which the server has to take.
    pub fn client_gave(&self) {
        self.watched.done(Wait::Request);
        if !self.answered.get() {
            self.watched.wait(Wait::Response, self.client.limits().body_idle_timeout);
        }
    }

    /// Counts bytes from the client. False: more than the limit allows.
    pub fn received(&self, bytes: usize) -> bool {
        let total = self.request_bytes.get() + bytes as u64;
        self.request_bytes.set(total);
        self.client.limits().max_request_body_bytes.is_none_or(|max| total <= max)
    }

    /// The request's body is to go there as well.
    pub fn copy_into(&self, copying: Copying) {
        self.copies.borrow_mut().push(copying);
    }

    /// A chunk goes to the server.
    pub fn copy(&self, chunk: Option<&Bytes>) {
        if let Some(chunk) = chunk {
            self.copies.borrow().iter().for_each(|copying| copying.push(chunk));
        }
    }

    /// The request is complete; from now on the answer is waited for.
    pub fn request_ended(&self) {
        self.copies.borrow().iter().for_each(Copying::end);
        if !self.request_ended.replace(true) && !self.answered.get() {
            self.watched.wait(Wait::Response, self.client.limits().response_timeout);
        }
    }

    /// Whether the whole request has been passed on.
    pub fn is_request_ended(&self) -> bool {
        self.request_ended.get()
    }

    /// The request's body cannot go on, for a reason of ours.
    pub fn fail_request(&self, kind: Kind) -> Error {
        self.fault.set(Some(kind));
        Error::new(kind)
    }

    /// The request's body broke off: bad framing, or the client is gone.
    pub fn request_broke(&self, error: hyper::Error) -> Error {
        let kind = self.client.wire_body_fault().unwrap_or(Kind::ClientGone);
        self.fault.set(Some(kind));
        Error::because(kind, error)
    }

    // -- the answer -----------------------------------------------------------------

    /// What has gone wrong, if anything.
    pub fn fault(&self) -> Option<Kind> {
        self.fault.get()
    }

    /// Notes what goes wrong; the first fault is the one that is told.
    pub fn fail(&self, kind: Kind) {
        if self.fault.get().is_none() {
            self.fault.set(Some(kind));
        }
    }

    /// The head of the answer goes to the client.
    pub fn answer(&self, status: StatusCode) {
        self.status.set(status);
        self.answered.set(true);
        self.unasked.set(self.expect.get() == Expect::Waiting);
        self.client.answering(false);
        let now = Instant::now();
        self.ttfb.set(Some(now.saturating_duration_since(self.started)));
        self.watched.wait_from(now, Wait::Response, self.client.limits().body_idle_timeout);
    }

    /// The same for an answer that no server gave.
    pub fn answer_ourselves(&self, status: StatusCode) {
        self.own.set(true);
        self.answer(status);
    }

    /// Whether no server gave the answer, so that the request's body may be left unread.
    pub fn is_own(&self) -> bool {
        self.own.get()
    }

    /// Counts bytes to the client.
    pub fn sent(&self, bytes: usize) {
        self.response_bytes.set(self.response_bytes.get() + bytes as u64);
        self.watched.wait(Wait::Response, self.client.limits().body_idle_timeout);
    }

    /// Bytes of the body that went to the client.
    pub fn sent_bytes(&self) -> u64 {
        self.response_bytes.get()
    }

    /// The answer broke off at the server's side.
    pub fn response_broke(&self, error: Broken, rule: Option<&'static str>) -> Error {
        let kind = rule.map_or(Kind::ResponseBodyBroken, Kind::BadResponse);
        self.fail(kind);
        self.client.cut();
        Error::because(kind, error)
    }

    /// The answer ends before it is whole, and nobody says so.
    pub fn response_broke_off(&self) -> Error {
        self.fail(Kind::ResponseBodyBroken);
        self.client.cut();
        Error::new(Kind::ResponseBodyBroken)
    }

    /// Resolves when the server has been silent for too long in the middle of a body.
    pub fn poll_stalled(&self, cx: &Context<'_>) -> Poll<Error> {
        self.watched.register(cx);
        let kind = match self.watched.expired() {
            Some(Wait::Response) => Kind::ResponseBodyTimeout,
            Some(Wait::Deadline) => Kind::DeadlineExceeded,
            _ => return Poll::Pending,
        };
        self.fail(kind);
        self.client.cut();
        Poll::Ready(Error::new(kind))
    }

    // -- the end --------------------------------------------------------------------

    /// The exchange goes on as a tunnel, which reports its end itself.
    pub fn becomes_tunnel(&self) {
        self.tunnelled.set(true);
        self.watched.clear();
    }

    /// Whether it goes on as a tunnel.
    pub fn is_tunnel(&self) -> bool {
        self.tunnelled.get()
    }

    /// Reports the end of a tunnel.
    pub fn tunnel_ended(&self, end: access_log::End<'_>, up: u64, down: u64) {
        self.request_bytes.set(up);
        self.response_bytes.set(down);
        self.report(end);
    }

    /// The answer's body is over; `complete`: its last byte has been handed on.
    pub fn finish(&self, complete: bool) {
        if self.tunnelled.get() {
            return;
        }
        let end = match self.fault.get() {
            Some(Kind::ClientGone) => access_log::End::ClientGone,
            Some(kind) => access_log::End::Error(kind),
            None if complete => access_log::End::Complete,
            None => access_log::End::ClientGone,
        };
        self.report(end);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.reported.get() {
            self.tunnelled.set(false);
            self.finish(false);
        }
    }
}
