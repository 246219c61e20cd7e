//! From a request to the origin to its answer: the table of paths and their parameters.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, TRAILER, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::{
    body::{Pattern, Reply, Script, Step},
    language, page, websocket,
};

pub(super) type Answer = Response<Reply>;

/// `/download` without a size, and the most it gives.
const DOWNLOAD_BYTES: (u64, u64) = (100_000_000, 10_000_000_000);

/// `/slow` without and with the most chunks.
const SLOW_CHUNKS: (u64, u64) = (5, 1_000);

/// Pace of `/slow` and of tokens; and the slowest.
const SLOW_MILLIS: u64 = 500;
const TOKEN_MILLIS: u64 = 50;
const MAX_MILLIS: u64 = 60_000;

/// A prompt is read whole; nothing else is.
const MAX_PROMPT_BYTES: usize = 1024 * 1024;

/// Trailers of `/slow`.
const CHUNKS_SENT: HeaderName = HeaderName::from_static("x-chunks-sent");
const BYTES_SENT: HeaderName = HeaderName::from_static("x-bytes-sent");

pub(super) async fn answer(request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    let wanted = match path {
        "/echo" => return echo(request),
        "/ws" => return websocket::upgrade(request),
        "/v1/messages" | "/v1/chat/completions" => Method::POST,
        _ => Method::GET,
    };
    if *request.method() != wanted && (wanted, request.method()) != (Method::GET, &Method::HEAD) {
        return not_allowed(if path.starts_with("/v1/") { "POST" } else { "GET, HEAD" });
    }
    let query = Query(request.uri().query().unwrap_or_default());
    let answered = match path {
        "/" => Ok(page::index(request.headers())),
        "/hello" => Ok(text(StatusCode::OK, "Hello from the far side of the underpass.\n")),
        "/headers" => Ok(headers(&request)),
        "/download" => download(query),
        "/slow" => slow(query),
        "/sse" => query.tokens().map(|(tokens, pace)| stream(language::plain, tokens, pace)),
        "/v1/messages" | "/v1/chat/completions" => model(request).await,
        _ => match path.strip_prefix("/status/") {
            Some(code) => status(code),
            None => {
                Err(Refusal(StatusCode::NOT_FOUND, "not found; GET / lists what there is\n".into()))
            }
        },
    };
    answered.unwrap_or_else(|Refusal(status, advice)| text(status, advice.into_owned()))
}

fn echo(request: Request<Incoming>) -> Answer {
    // Never the type that the client names: a page made to be posted here must not run.
    typed("application/octet-stream", Reply::Echo(request.into_body()))
}

fn headers(request: &Request<Incoming>) -> Answer {
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let mut body = serde_json::to_string_pretty(&json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "version": format!("{:?}", request.version()),
        "headers": headers,
    }))
    .expect("strings are JSON");
    body.push('\n');
    typed("application/json", body.into())
}

fn download(query: Query<'_>) -> Result<Answer, Refusal> {
    let bytes = query.number("bytes", DOWNLOAD_BYTES.0, 0..=DOWNLOAD_BYTES.1)?;
    Ok(typed("text/plain; charset=us-ascii", Reply::Pattern(Pattern::new(bytes))))
}

fn slow(query: Query<'_>) -> Result<Answer, Refusal> {
    fn line(index: u64, count: u64) -> Bytes {
        format!("chunk {:04} of {count:04}\n", index + 1).into()
    }
    let chunks = query.number("chunks", SLOW_CHUNKS.0, 1..=SLOW_CHUNKS.1)?;
    let pace = query.interval(SLOW_MILLIS)?;
    let bytes = chunks * line(0, chunks).len() as u64;
    let trailers = HeaderMap::from_iter([(CHUNKS_SENT, chunks.into()), (BYTES_SENT, bytes.into())]);
    let body = Script::new(line, chunks, pace).with_trailers(trailers);
    let mut answer = typed("text/plain; charset=us-ascii", Reply::Script(body));
    // hyper sends only trailers that are announced, and only to who has said `TE: trailers`.
    answer.headers_mut().insert(TRAILER, HeaderValue::from_static("x-chunks-sent, x-bytes-sent"));
    Ok(answer)
}

async fn model(request: Request<Incoming>) -> Result<Answer, Refusal> {
    let query = Query(request.uri().query().unwrap_or_default());
    let (tokens, pace) = query.tokens()?;
    let is_chat = request.uri().path() == "/v1/chat/completions";
    let prompt = Limited::new(request.into_body(), MAX_PROMPT_BYTES).collect().await;
    let prompt =
        prompt.map_err(|_| Refusal(StatusCode::PAYLOAD_TOO_LARGE, "prompt too large\n".into()))?;
    let prompt: serde_json::Value = serde_json::from_slice(&prompt.to_bytes()).unwrap_or_default();
    if prompt["stream"] == false {
        let whole = if is_chat { language::whole_chat } else { language::whole_message };
        return Ok(typed("application/json", whole(tokens).to_string().into()));
    }
    // One chunk opens the answer, one closes it.
    Ok(stream(if is_chat { language::chat } else { language::messages }, tokens + 2, pace))
}

fn stream(step: Step, chunks: u64, pace: Duration) -> Answer {
    let mut answer =
        typed("text/event-stream; charset=utf-8", Reply::Script(Script::new(step, chunks, pace)));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

fn status(code: &str) -> Result<Answer, Refusal> {
    let refused =
        || Refusal(StatusCode::BAD_REQUEST, "a final status is needed: 200 to 599\n".into());
    let code: u16 = code.parse().map_err(|_| refused())?;
    if !(200..600).contains(&code) {
        return Err(refused());
    }
    let status = StatusCode::from_u16(code).map_err(|_| refused())?;
    let reason = status.canonical_reason().unwrap_or("no reason");
    let mut answer = match status {
        // RFC 9110 15.3.5, 15.3.6, 15.4.5: no content.
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED => {
            Response::new("".into())
        }
        _ => text(status, format!("{code} {reason}\n")),
    };
    *answer.status_mut() = status;
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/hello"));
    }
    Ok(answer)
}

pub(super) fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = typed("text/plain; charset=utf-8", body.into().into());
    *answer.status_mut() = status;
    answer
}

pub(super) fn typed(content_type: &'static str, body: Reply) -> Answer {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A request that is not answered as asked: the status, and what would be right.
struct Refusal(StatusCode, Cow<'static, str>);

/// The part of the target after `?`; all parameters are numbers.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl Query<'_> {
    fn number(
        self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, Refusal> {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let Some((_, value)) = pairs.into_iter().find(|(key, _)| *key == name) else {
            return Ok(default);
        };
        value.parse().ok().filter(|value| range.contains(value)).ok_or_else(|| {
            let (from, to) = range.into_inner();
            let advice = format!("{name} has to be a number from {from} to {to}\n");
            Refusal(StatusCode::BAD_REQUEST, advice.into())
        })
    }

    fn interval(self, default: u64) -> Result<Duration, Refusal> {
        self.number("interval_ms", default, 1..=MAX_MILLIS).map(Duration::from_millis)
    }

    fn tokens(self) -> Result<(u64, Duration), Refusal> {
        let tokens = self.number("tokens", language::default_tokens(), 1..=language::MAX_TOKENS)?;
        Ok((tokens, self.interval(TOKEN_MILLIS)?))
    }
}
