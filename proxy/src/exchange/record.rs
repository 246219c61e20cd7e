//! What the recorder is told of an exchange. All of it does nothing where it is not recorded.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body::Frame;

use crate::{
    access_log,
    record::{Begin, Chosen, End, Lane, Recording, Side},
    tunnel,
    watchdog::Wait,
};

use super::Exchange;

impl Exchange {
    /// Begins a record, if this exchange is to have one: its route is known, and its head as the
    /// client sent it. Waits where traffic is to wait for the recorder.
    pub async fn begin_record<B>(&self, head: &Request<B>) {
        let Some(lane) = &self.client.worker().recorder else { return };
        let wanted = self.route().and_then(|route| route.record);
        if !wanted.unwrap_or(self.client.listener().config.record) {
            return;
        }
        let chosen = Chosen::by(lane);
        if chosen == Chosen::Yes {
            lane.room().await;
        }
        self.begin_record_on(lane, chosen, head);
    }

    fn begin_record_on<B>(&self, lane: &Rc<Lane>, chosen: Chosen, head: &Request<B>) {
        let (uri, whole);
        let target = match (head.uri().authority(), self.version) {
            // Absolute-form, or authority-form.
            (Some(_), version) if version != Version::HTTP_2 => {
                whole = head.uri().to_string();
                whole.as_str()
            }
            _ => {
                uri = head.uri().path_and_query();
                uri.map_or("*", |path| path.as_str())
            }
        };
        let begin = Begin {
            listener: self.client.listener_name(),
            client: self.asking,
            route: self.route().map(|route| &*route.name),
            version: match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            scheme: self.client.scheme(),
            method: head.method().as_str(),
            target,
            host: authority(head),
            fields: head.headers(),
        };
        if let Some(recording) = Recording::begin(lane, chosen, self.started, &begin) {
            // A second record would be one of the same exchange.
            let _ = self.record.set(recording);
        }
    }

    /// The record, while there is one.
    pub fn recording(&self) -> Option<&Recording> {
        self.record.get().map(Box::as_ref)
    }

    /// The head of an answer. `of_server`: as a server sent it. The first one counts.
    pub fn record_answer(&self, status: StatusCode, fields: &HeaderMap, of_server: bool) {
        if let Some(recording) = self.recording() {
            recording.answer(status, fields, of_server);
        }
    }

    /// Who is told of what goes through the tunnel that it becomes, where frames of WebSockets are
    /// to be recorded.
    pub fn taps_frames(self: &Rc<Self>, kind: tunnel::registry::Kind) -> Option<tunnel::Tap> {
        let wanted = kind == tunnel::registry::Kind::WebSocket
            && self.recording().is_some_and(Recording::wants_frames);
        wanted.then(|| tunnel::Tap::new(self))
    }

    /// A chunk or the trailers of a body.
    pub fn record_frame(&self, side: Side, frame: &Frame<Bytes>) {
        let Some(recording) = self.recording() else { return };
        if let Some(data) = frame.data_ref() {
            recording.chunk(side, data);
        } else if let Some(trailers) = frame.trailers_ref() {
            recording.trailers(side, trailers);
        }
    }

    /// Resolves when the recorder can take what comes in this direction: at once, unless traffic
    /// is to wait for it.
    pub fn poll_record_room(&self, side: Side, cx: &mut Context<'_>) -> Poll<()> {
        self.held_back(side, |recording| recording.poll_room(side, cx))
            .map(Option::unwrap_or_default)
    }

    /// The last frame of the answer, where it was kept, once everything is written.
    pub fn poll_record_kept(&self, cx: &mut Context<'_>) -> Poll<Option<Option<Frame<Bytes>>>> {
        let kept = self.held_back(Side::Response, |recording| recording.poll_kept(cx));
        kept.map(Option::flatten)
    }

    /// The same for what comes before the bodies.
    pub async fn record_room(&self) {
        poll_fn(|cx| self.poll_record_room(Side::Response, cx)).await;
    }

    /// Resolves when all that has come is written: an answer without a body is done with its
    /// head.
    pub async fn record_written(&self) {
        poll_fn(|cx| self.held_back(Side::Response, |recording| recording.poll_written(cx))).await;
    }

    /// No peer is blamed for what we hold back: its deadline does not run meanwhile.
    fn held_back<T>(
        &self,
        side: Side,
        poll: impl FnOnce(&Recording) -> Poll<T>,
    ) -> Poll<Option<T>> {
        let Some(recording) = self.recording() else { return Poll::Ready(None) };
        let was_held = recording.is_held(side);
        let polled = poll(recording);
        if polled.is_pending() {
            // An answer that goes out already has a deadline of its own.
            if side == Side::Response || !self.answered.get() {
                self.watched.done(Wait::Response);
            }
            if side == Side::Request {
                self.watched.done(Wait::Request);
            }
        } else if was_held && side == Side::Response && self.answered.get() {
            self.watched.wait(Wait::Response, self.client.limits().body_idle_timeout);
        }
        polled.map(Some)
    }

    /// Whether the last frame of the answer waits for the recorder.
    pub fn record_keeps(&self) -> bool {
        self.recording().is_some_and(Recording::keeps)
    }

    pub(super) fn end_record(&self, status: StatusCode, end: access_log::End<'_>) {
        let Some(recording) = self.recording() else { return };
        let fault = end.fault();
        let upstream = self.upstream.borrow();
        recording.end(&End {
            how: match end {
                access_log::End::Complete => "complete",
                access_log::End::ClientGone => "client_gone",
                access_log::End::Error(_) => "error",
                access_log::End::Tunnel { .. } => "tunnel",
            },
            error: fault.map(|kind| kind.name()),
            upstream: upstream.as_ref().map(|upstream| &*upstream.name),
            server: self.server.get(),
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            failed: status.is_server_error() || fault.is_some(),
        });
    }
}

/// `Host` or `:authority`.
fn authority<B>(head: &Request<B>) -> &str {
    match head.uri().authority() {
        Some(authority) => authority.as_str(),
        None => {
            let field = head.headers().get(http::header::HOST);
            field.and_then(|host| host.to_str().ok()).unwrap_or_default()
        }
    }
}
