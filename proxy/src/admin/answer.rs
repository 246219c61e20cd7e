//! From a request to its answer: the table of paths.
//!
//! Invariant: what changes anything wants the token where there is one, and where there is none
//! only `DELETE /tunnels/ID` does; no answer may be read by a page of another site (no CORS,
//! `Cross-Origin-Resource-Policy`).

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::Full;
use serde::Serialize;

use super::{
    Stage, State, cache, certificates,
    guard::{self, Refusal},
    write::{self, Wanted},
};
use crate::metrics;

type Answer = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The page has nothing inline, so whatever a hostile string might become in it, it is
/// not run.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers one request. The body of the request, if any, is left alone.
pub(super) async fn answer<B>(state: &State, request: &Request<B>) -> Answer {
    let uri = request.uri();
    let mut answer = match guard::check(request) {
        Ok(()) if uri.path() == "/cache/purge" => purge(state, request).await,
        Ok(()) => match write::wanted(request.method(), uri.path(), uri.query()) {
            Some(wanted) => change(state, request, wanted).await,
            None => route(state, request),
        },
        Err(Refusal::BadHost) => text(StatusCode::BAD_REQUEST, "one valid Host is needed\n"),
        Err(Refusal::ForeignHost) => {
            text(StatusCode::FORBIDDEN, "use an IP address or localhost as the host\n")
        }
        Err(Refusal::ForeignOrigin) => text(StatusCode::FORBIDDEN, "not from another site\n"),
    };
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    answer
}

/// Changes something, for who may.
async fn change<B>(
    state: &State,
    request: &Request<B>,
    wanted: Result<Wanted, (StatusCode, String)>,
) -> Answer {
    let done = match (write::may_write(state, request), wanted) {
        (Err(refused), _) | (Ok(()), Err(refused)) => refused,
        (Ok(()), Ok(wanted)) => write::ask(state, wanted).await,
    };
    said(done)
}

/// Has the cache forget something, for who may.
async fn purge<B>(state: &State, request: &Request<B>) -> Answer {
    if *request.method() != Method::POST {
        return not_allowed("POST");
    }
    said(match write::may_write(state, request) {
        Ok(()) => cache::purge(state, request.uri().query()).await,
        Err(refused) => refused,
    })
}

fn said((status, what): (StatusCode, String)) -> Answer {
    let mut answer = ok(TEXT, what);
    *answer.status_mut() = status;
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"underpass\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    answer
}

fn route<B>(state: &State, request: &Request<B>) -> Answer {
    let (method, path) = (request.method(), request.uri().path());
    if let Some(id) = path.strip_prefix("/tunnels/") {
        return match *method {
            // Without a token it is as it was before there were any.
            Method::DELETE if state.token.load().is_some() => {
                match write::may_write(state, request) {
                    Ok(()) => end_tunnel(state, id),
                    Err(refused) => said(refused),
                }
            }
            Method::DELETE => end_tunnel(state, id),
            _ => not_allowed("DELETE"),
        };
    }
    let read: fn(&State) -> Answer = match path {
        "/" => |_| page(),
        "/live.js" => |_| ok(JAVASCRIPT, include_str!("page/live.js")),
        "/live.css" => |_| ok(CSS, include_str!("page/live.css")),
        "/metrics" => |state| ok(metrics::CONTENT_TYPE, state.metrics.encode()),
        "/healthz" => |_| ok(TEXT, "alive\n"),
        "/readyz" => ready,
        "/tunnels" => |state| json("tunnels", &state.tunnels.snapshot()),
        "/cache" => |state| json("the cache", &cache::view(state)),
        "/upstreams" => |state| json("upstreams", &state.upstreams.view()),
        "/certificates" => |state| json("certificates", &certificates::view(state)),
        "/config" => |state| ok(TEXT, String::clone(&state.config_text.load())),
        _ => return text(StatusCode::NOT_FOUND, "not found\n"),
    };
    match *method {
        Method::GET | Method::HEAD => read(state),
        _ => not_allowed("GET, HEAD"),
    }
}

fn page() -> Answer {
    let mut answer = ok(HTML, include_str!("page/index.html"));
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    answer
}

fn ready(state: &State) -> Answer {
    match state.readiness.stage() {
        Stage::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Stage::Ready => ok(TEXT, "ready\n"),
        Stage::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

/// Answers with a value as JSON; `what` it is, for the log.
fn json(what: &str, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => ok(JSON, body),
        Err(error) => {
            tracing::error!("admin: {what} as JSON: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "see the log\n")
        }
    }
}

fn end_tunnel(state: &State, id: &str) -> Answer {
    // `parse` alone would take a plus sign.
    let digits = id.bytes().all(|byte| byte.is_ascii_digit());
    match id.parse().ok().filter(|_| digits) {
        None => text(StatusCode::BAD_REQUEST, "a tunnel is named by its number\n"),
        Some(id) if state.tunnels.end(id) => {
            let mut answer = Answer::default();
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        }
        Some(_) => text(StatusCode::NOT_FOUND, "no such tunnel\n"),
    }
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    let mut answer = ok(TEXT, body);
    *answer.status_mut() = status;
    answer
}
