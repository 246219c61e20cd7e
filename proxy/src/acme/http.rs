//! Requests to a CA, as instant-acme wants them carried.
//!
//! HTTP/1.1 over TLS, one request at a time, on a connection that is kept while an order lasts.
//! Invariants: nothing is sent but over TLS to somebody whom the settings trust; a request and
//! its answer take a bounded time, an answer has a bounded size; and what the CA says of when to
//! come back is noted, because the library's errors do not have it. The library itself is told of
//! no pause that it could not count with.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex as Cell, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header, uri::Scheme};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, sync::Mutex, time::timeout};

use super::schedule::LONGEST_PAUSE;
use crate::upstream::tls::{Connector, Inside, fault};

/// From the name of the CA to the end of its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an order that the CA is about is left alone at most, whatever the CA says: the library
/// gives up at once where it is longer than the order may take.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// Chains have a few kilobytes, directories less.
const MOST_BYTES: usize = 1 << 20;

/// A client for one order; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: Connector,
    kept: Mutex<Option<Kept>>,
    /// Retry-After of the last answer that was no success, in milliseconds and one more.
    asked: AtomicU64,
    /// `host:port` of the CA's server that was asked last, for whoever tells of a failure.
    last: Cell<String>,
}

#[derive(Debug)]
struct Kept {
    authority: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    pub(super) fn new(connector: Connector) -> Self {
        let (kept, asked, last) = (Mutex::default(), AtomicU64::new(0), Cell::default());
        Self(Arc::new(Inner { connector, kept, asked, last }))
    }

    /// What the CA asked for in its last answer, if that was no success.
    pub(super) fn asked(&self) -> Option<Duration> {
        let asked = self.0.asked.load(Relaxed);
        asked.checked_sub(1).map(Duration::from_millis)
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = Arc::clone(&self.0);
        Box::pin(async move {
            let told = |what: String| Error::Other(what.into());
            let (mut parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap_or_else(|never| match never {}).to_bytes();
            let agent = HeaderValue::from_static(concat!("underpass/", env!("CARGO_PKG_VERSION")));
            parts.headers.insert(header::USER_AGENT, agent);
            let post = parts.method == Method::POST;
            let request = Request::from_parts(parts, Full::new(bytes));
            client.asked.store(0, Relaxed);
            let done = timeout(REQUEST_TIMEOUT, client.send(request)).await;
            let done =
                done.unwrap_or_else(|_| Err(format!("no answer within {REQUEST_TIMEOUT:?}")));
            let at = || client.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut response = done.map_err(|what| told(format!("{}: {what}", at())))?;
            let success = response.status().is_success();
            let asked =
                bound(&mut response, if success && post { LONGEST_LOOK } else { LONGEST_PAUSE });
            if !success {
                let asked = asked.map_or(0, |asked| {
                    u64::try_from(asked.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
                });
                client.asked.store(asked, Relaxed);
            }
            Ok(response.into())
        })
    }
}

impl Inner {
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, String> {
        let uri = request.uri().clone();
        let host = uri.host().unwrap_or_default().to_owned();
        if uri.scheme() != Some(&Scheme::HTTPS) || host.is_empty() {
            return Err("the CA names a URL without https".to_owned());
        }
        let port = uri.port_u16().unwrap_or(443);
        let authority = format!("{host}:{port}");
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&authority);
        let mut kept = self.kept.lock().await;
        // One that the server has closed meanwhile is seen here; one that it closes just now
        // fails the request, which is then tried as any other.
        let usable =
            kept.take().filter(|kept| kept.authority == authority && kept.sender.is_ready());
        let mut sender = match usable {
            Some(kept) => kept.sender,
            None => self.connect(&host, port).await?,
        };
        let (mut parts, body) = request.into_parts();
        let named = match uri.port() {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        let named = HeaderValue::try_from(named).map_err(|error| error.to_string())?;
        parts.headers.insert(header::HOST, named);
        parts.uri = uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .parse()
            .map_err(|error: http::uri::InvalidUri| error.to_string())?;
        let sent = sender.send_request(Request::from_parts(parts, body)).await;
        let (parts, body) = sent.map_err(|error| error.to_string())?.into_parts();
        let body = Limited::new(body, MOST_BYTES).collect().await;
        let body = body.map_err(|_| {
            format!("an answer that breaks off, or of more than {MOST_BYTES} bytes")
        })?;
        if sender.ready().await.is_ok() {
            *kept = Some(Kept { authority, sender });
        }
        Ok(Response::from_parts(parts, Full::new(body.to_bytes())))
    }

    async fn connect(&self, host: &str, port: u16) -> Result<SendRequest<Full<Bytes>>, String> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| "the CA's URL names no host".to_owned())?;
        let stream = TcpStream::connect((bare, port)).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let secured = self.connector.connect(stream, name, Inside::Http1).await;
        let secured = secured.map_err(|error: io::Error| fault::of(&error))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(secured)).await.map_err(|error| error.to_string())?;
        // Ends with the sender.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("acme: a connection to the CA: {error}");
            }
        });
        Ok(sender)
    }
}

/// What the CA asks for, which is no more than this from now on: the library adds it to the time
/// without a look whether there is such a time.
fn bound<B>(response: &mut Response<B>, most: Duration) -> Option<Duration> {
    let asked = retry_after(response)?.min(most);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(asked.as_secs()));
    Some(asked)
}

/// Seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    date.duration_since(SystemTime::now()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |value: &str| {
            let response = Response::builder().header(header::RETRY_AFTER, value).body(()).unwrap();
            retry_after(&response)
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        let later = SystemTime::now() + Duration::from_secs(3600);
        let seconds = read(&httpdate::fmt_http_date(later)).unwrap().as_secs();
        assert!((3590..=3600).contains(&seconds), "{seconds}");
        for none in ["Fri, 31 Dec 1999 23:59:59 GMT", "-1", "soon", ""] {
            assert_eq!(read(none), None, "{none}");
        }
        assert_eq!(retry_after(&Response::new(())), None);
    }

    #[test]
    fn the_library_is_told_of_no_pause_that_it_cannot_count_with() {
        let most = Duration::from_secs(30);
        for (said, handed_on, asked) in [
            ("18446744073709551615", "30", Some(30)),
            ("31", "30", Some(30)),
            ("7", "7", Some(7)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", "30", Some(30)),
            // Such that the library takes it for none, or for now.
            ("18446744073709551616", "18446744073709551616", None),
            ("Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 1999 23:59:59 GMT", None),
        ] {
            let response = Response::builder().header(header::RETRY_AFTER, said);
            let mut response = response.body(()).unwrap();
            assert_eq!(bound(&mut response, most), asked.map(Duration::from_secs), "{said}");
            assert_eq!(response.headers()[header::RETRY_AFTER], handed_on, "{said}");
        }
    }
}
