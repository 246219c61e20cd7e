//! What can go wrong with an exchange: which side, what kind, whether a retry is safe.
//!
//! `response.rs` turns a [`Kind`] into a status; logs get the whole chain. Peers never
//! see the cause.

use std::{fmt, io, sync::LazyLock};

/// Where the fault lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Downstream,
    /// The server, or the way to it.
    Upstream,
    /// Ourselves.
    Internal,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Request that two parsers could read differently; the text says which rule.
    BadRequest(&'static str),
    /// Request head larger than allowed.
    HeadTooLarge,
    /// Request target longer than allowed.
    UriTooLong,
    /// No TLS ClientHello where the route depends on one; the text says which rule.
    BadClientHello(&'static str),
    /// No PROXY header where there has to be one, or a wrong one; the text says which rule.
    BadProxyHeader(&'static str),
    /// No TLS where there has to be some; the metrics say why.
    Handshake,
    /// Request head not complete in time.
    HeadTimeout,
    /// Request body stalled.
    RequestBodyTimeout,
    /// Request body larger than allowed.
    RequestBodyTooLarge,
    /// Transfer coding or method we do not implement.
    NotImplemented(&'static str),
    /// Method that is not for this listener.
    MethodNotAllowed,
    /// HTTP version we do not speak.
    VersionNotSupported,
    /// Expectation other than 100-continue (RFC 9110 10.1.1).
    ExpectationFailed,
    /// Forward proxy asks for credentials.
    ProxyAuthRequired,
    /// No credentials, or wrong ones.
    Unauthorized,
    /// More requests than in this time are allowed.
    RateLimited,
    /// More requests at once than are allowed.
    TooManyAtOnce,
    /// Not for this client; or a destination that the forward proxy does not reach.
    Forbidden(&'static str),
    /// Not for this connection: its TLS is for another host (RFC 9110 15.5.20).
    Misdirected,
    /// No route for this request.
    NoRoute,
    /// Client went away before the end.
    ClientGone,
    /// No server of the upstream may be asked.
    NoServer,
    /// Server's name has no address.
    Resolve,
    /// TCP connect refused or unreachable.
    Connect,
    /// No session of TLS with the server: its certificate, or what it speaks.
    UpstreamTls,
    /// No connection in time.
    ConnectTimeout,
    /// All connections of the server are busy.
    PoolExhausted,
    /// The upstream has as much to do as it may; the text says what of.
    Overloaded(&'static str),
    /// Server closed before its answer.
    UpstreamClosed,
    /// Server's answer breaks HTTP; the text says which rule.
    BadResponse(&'static str),
    /// No answer in time.
    ResponseTimeout,
    /// No answer, or not all of it, by the time that the client gave.
    DeadlineExceeded,
    /// Answer stopped in the middle of its body.
    ResponseBodyBroken,
    /// Answer stalled in the middle of its body.
    ResponseBodyTimeout,
    /// The process is draining.
    Draining,
    /// A fault of ours.
    Internal,
}

impl Kind {
    /// Where the fault lies.
    pub fn side(self) -> Side {
        use Kind::*;
        match self {
            BadRequest(_) | HeadTooLarge | UriTooLong | BadClientHello(_) | BadProxyHeader(_)
            | Handshake | HeadTimeout | RequestBodyTimeout | RequestBodyTooLarge
            | NotImplemented(_) | MethodNotAllowed | VersionNotSupported | ExpectationFailed
            | ProxyAuthRequired | Unauthorized | RateLimited | TooManyAtOnce | Forbidden(_)
            | Misdirected | NoRoute | ClientGone => Side::Downstream,
            NoServer | Resolve | Connect | UpstreamTls | ConnectTimeout | PoolExhausted
            | Overloaded(_) | UpstreamClosed | BadResponse(_) | ResponseTimeout
            | DeadlineExceeded | ResponseBodyBroken | ResponseBodyTimeout => Side::Upstream,
            Draining | Internal => Side::Internal,
        }
    }

    /// Short stable name for logs and metrics.
    pub fn name(self) -> &'static str {
        use Kind::*;
        match self {
            BadRequest(_) => "bad_request",
            HeadTooLarge => "head_too_large",
            UriTooLong => "uri_too_long",
            BadClientHello(_) => "bad_client_hello",
            BadProxyHeader(_) => "bad_proxy_header",
            Handshake => "tls_handshake",
            HeadTimeout => "head_timeout",
            RequestBodyTimeout => "request_body_timeout",
            RequestBodyTooLarge => "request_body_too_large",
            NotImplemented(_) => "not_implemented",
            MethodNotAllowed => "method_not_allowed",
            VersionNotSupported => "version_not_supported",
            ExpectationFailed => "expectation_failed",
            ProxyAuthRequired => "proxy_auth_required",
            Unauthorized => "unauthorized",
            RateLimited => "rate_limited",
            TooManyAtOnce => "too_many_at_once",
            Forbidden(_) => "forbidden",
            Misdirected => "misdirected",
            NoRoute => "no_route",
            ClientGone => "client_gone",
            NoServer => "no_server",
            Resolve => "resolve",
            Connect => "connect",
            UpstreamTls => "upstream_tls",
            ConnectTimeout => "connect_timeout",
            PoolExhausted => "pool_exhausted",
            Overloaded(_) => "overloaded",
            UpstreamClosed => "upstream_closed",
            BadResponse(_) => "bad_response",
            ResponseTimeout => "response_timeout",
            DeadlineExceeded => "deadline_exceeded",
            ResponseBodyBroken => "response_body_broken",
            ResponseBodyTimeout => "response_body_timeout",
            Draining => "draining",
            Internal => "internal",
        }
    }

    /// The rule that was broken, where one is known.
    pub fn detail(self) -> Option<&'static str> {
        match self {
            Kind::BadRequest(rule)
            | Kind::BadClientHello(rule)
            | Kind::BadProxyHeader(rule)
            | Kind::NotImplemented(rule)
            | Kind::Forbidden(rule)
            | Kind::Overloaded(rule)
            | Kind::BadResponse(rule) => Some(rule),
            _ => None,
        }
    }
}

/// An error of one exchange.
#[derive(Debug)]
pub struct Error {
    /// What went wrong.
    pub kind: Kind,
    /// Whether not one byte of the request can have been acted upon.
    pub retry_safe: bool,
    /// Whether others have met the same failure, so that it counts once only.
    pub known: bool,
    cause: Option<anyhow::Error>,
}

impl Error {
    /// An error without a cause below it.
    pub fn new(kind: Kind) -> Self {
        Self { kind, retry_safe: false, known: false, cause: None }
    }

    /// An error with the one that led to it.
    pub fn because(kind: Kind, cause: impl Into<anyhow::Error>) -> Self {
        Self { kind, retry_safe: false, known: false, cause: Some(cause.into()) }
    }

    /// Marks that it is one failure that many requests meet.
    pub fn known(mut self) -> Self {
        self.known = true;
        self
    }

    /// Marks that the request cannot have been acted upon.
    pub fn retry_safe(mut self) -> Self {
        self.retry_safe = true;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if let Some(detail) = self.kind.detail() {
            write!(f, ": {detail}")?;
        }
        if let Some(cause) = &self.cause {
            write!(f, ": {cause:#}")?;
        }
        Ok(())
    }
}

/// With what a stream of HTTP/2 is reset whose message the client leaves unfinished: the reason
/// that hyper finds in the chain of what ended a body. Others are an INTERNAL_ERROR.
static CANCEL: LazyLock<h2::Error> = LazyLock::new(|| h2::Reason::CANCEL.into());

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        (self.kind.side() == Side::Downstream).then(|| &*CANCEL as _)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}
