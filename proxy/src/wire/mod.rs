//! The wire under hyper: nothing that two HTTP/1 parsers could read differently gets past here.
//!
//! hyper's parser is lenient where peers differ (bare LF, `Transfer-Encoding` beside
//! `Content-Length`, repeated lengths). A proxy must not be: what it forwards another
//! parser reads again. So both sides' sockets are wrapped: [`downstream::DownstreamIo`]
//! and [`upstream::UpstreamIo`] hand hyper a head only when it is complete and strictly
//! valid, and follow the framing of bodies without touching their bytes (RFC 9112).
//!
//! What comes over HTTP/2 has no such framing, but goes on as HTTP/1: [`http2`], and
//! [`websocket`] for the one thing that is opened in another way. [`cancels`] is about how it ends.
//!
//! Pure: [`cancels`], [`head`], [`chunked`], [`fields`], [`track`], [`http2`], [`websocket`]. I/O: [`downstream`], [`upstream`].

pub mod cancels;
pub mod chunked;
pub mod downstream;
pub mod fields;
pub mod head;
pub mod http2;
mod socket;
pub mod track;
pub mod trailers;
pub mod upstream;
pub mod websocket;

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// As many bytes as `Content-Length` says, at least one.
    Length(u64),
    /// Chunked coding, the only one besides identity that is forwarded.
    Chunked,
    /// Everything up to the end of the connection (responses only).
    UntilClose,
}
