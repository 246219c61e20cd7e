//! The wire under hyper: nothing that two HTTP/1 parsers could read differently gets past here.
//!
//! hyper's parser is lenient where peers differ (bare LF, `Transfer-Encoding` beside
//! `Content-Length`, repeated lengths). A proxy must not be: what it forwards another
//! parser reads again. So the clients' sockets are wrapped: [`downstream::DownstreamIo`] hands
//! hyper a head only when it is complete and strictly valid, and follows the framing of bodies
//! without touching their bytes (RFC 9112). The servers' side reads what they answer by
//! [`answer`] and [`rest`] alone.
//!
//! What comes over HTTP/2 has no such framing, but goes on as HTTP/1: [`http2`], and
//! [`websocket`] for the one thing that is opened in another way. [`cancels`] is about how it ends.
//!
//! Pure: [`cancels`], [`head`], [`answer`], [`rest`], [`chunked`], [`fields`], [`track`],
//! [`spelling`], [`http2`], [`websocket`]. I/O: [`downstream`].

pub mod answer;
pub mod cancels;
pub mod chunked;
pub mod downstream;
pub mod fields;
pub mod head;
pub mod http2;
pub mod rest;
pub(crate) mod socket;
pub mod spelling;
mod stand_in;
pub mod track;
pub mod trailers;
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
