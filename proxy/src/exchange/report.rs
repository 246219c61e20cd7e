//! The end of an exchange: told once to the metrics, the access log and the collector of traces.

use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use tokio::time::Instant;

use crate::{access_log, cache::outcome::Outcome, error::Kind, spans::Span, tunnel};

use super::Exchange;

/// The head as others are told of it; kept only if somebody is.
#[derive(Debug)]
pub(super) struct Line {
    method: Method,
    target: Uri,
    host: Option<HeaderValue>,
}

impl Line {
    pub(super) fn of<B>(request: &http::Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            target: request.uri().clone(),
            host: request.headers().get(http::header::HOST).cloned(),
        }
    }

    fn host(&self) -> Option<&str> {
        let field = self.host.as_ref().and_then(|host| host.to_str().ok());
        field.or(self.target.authority().map(|authority| authority.as_str()))
    }
}

impl Exchange {
    /// The request goes out once more.
    pub fn sent_again(&self) {
        self.resends.set(self.resends.get().saturating_add(1));
    }

    /// Tells how it ended, unless that has been told.
    pub(super) fn report(&self, end: access_log::End<'_>) {
        if self.reported.replace(true) {
            return;
        }
        let now = Instant::now();
        let duration = now.saturating_duration_since(self.started);
        let client = &self.client;
        let fault = end.fault();
        if let Some(kind) = fault {
            client.worker_metrics().error(kind);
        }
        let metrics = client.listener_metrics();
        let status = if self.answered.get() {
            self.status.get()
        } else {
            // Nobody was told; 499 is what nginx made customary for "client closed first".
            StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
        };
        metrics.request(status, self.ttfb.get(), duration);
        if let Some(metrics) = self.route().and_then(|route| route.metrics.as_ref()) {
            metrics.request(status, duration, fault);
        }
        metrics.received(self.request_bytes.get());
        metrics.sent(self.response_bytes.get());
        self.end_record(status, end);
        if let Some(line) = &self.line {
            self.log(line, status, duration, end);
            self.trace(line, status, duration, fault);
        }
        let taken_back = match end {
            access_log::End::ClientGone => true,
            access_log::End::Tunnel { end, .. } => end == tunnel::End::ClientReset.name(),
            _ => false,
        };
        client.exchange_ends(self, &self.watched, taken_back, now);
    }

    fn log(&self, line: &Line, status: StatusCode, duration: Duration, end: access_log::End<'_>) {
        let client = &self.client;
        if !client.log().is_on() {
            return;
        }
        let upstream = self.upstream.borrow();
        let visits = self.visits.borrow();
        let path = line.target.path_and_query().map_or("*", |path| path.as_str());
        let whole;
        // Over HTTP/2 the authority is no part of the target.
        let absolute = line.target.authority().is_some() && self.version != Version::HTTP_2;
        let target = if absolute || line.method == Method::CONNECT {
            whole = line.target.to_string();
            whole.as_str()
        } else {
            path
        };
        let trace = self.trace.get().map(|context| context.trace_id());
        client.log().log(&access_log::Exchange {
            listener: client.listener_name(),
            client: self.asking,
            request: Some(access_log::Request {
                method: line.method.as_str(),
                target,
                version: self.version,
                status: status.as_u16(),
            }),
            host: line.host(),
            tls: client.tls(),
            request_id: visits.request_id().and_then(|id| id.to_str().ok()),
            trace_id: trace.as_deref(),
            route: self.route().map(|route| &*route.name),
            upstream: upstream.as_ref().map(|upstream| &*upstream.name),
            server: self.server.get(),
            resends: self.resends.get(),
            cache: self.cached.get().map(Outcome::name),
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            ttfb: self.ttfb.get(),
            duration,
            end,
        });
    }

    fn trace(&self, line: &Line, status: StatusCode, duration: Duration, error: Option<Kind>) {
        let Some(tracer) = &self.client.worker().process.tracer else { return };
        let Some(context) = self.trace.get().filter(|context| context.sampled) else { return };
        let upstream = self.upstream.borrow();
        tracer.record(Span {
            context: *context,
            start: SystemTime::now() - duration,
            duration,
            method: line.method.to_string(),
            path: line.target.path().to_owned(),
            scheme: self.client.scheme(),
            host: line.host().map(str::to_owned),
            version: if self.version == Version::HTTP_2 { "2" } else { "1.1" },
            status: status.as_u16(),
            client: self.asking,
            listener: self.client.listener_name().to_owned(),
            route: self.route().map(|route| route.name.to_string()),
            upstream: upstream.as_ref().map(|upstream| upstream.name.to_string()),
            server: self.server.get(),
            resends: self.resends.get(),
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            error,
        });
    }
}
