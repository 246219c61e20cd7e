//! HTTP/2 to servers: one connection carries the requests of many clients (RFC 9113).
//!
//! A [`Carrier`] is the connection, a [`Stream`] what one exchange has of it. `pool/shared.rs`
//! finds the carrier for a request, `body/lent.rs` lends the request's body to hyper, `heard.rs`
//! is the socket below it, and `fault.rs` reads what the end of a stream means. A stream that was
//! answered as a tunnel (RFC 8441) keeps its place as a [`Held`].
//!
//! What a stream does others do not feel: each has a window of its own, and that of the
//! connection is larger than all of them together
//! ([`crate::config::Http2::connection_window_bytes`]), so clients that do not read stop nobody
//! but themselves.
//!
//! Implements: REQ-EDGE-005

mod carrier;
pub mod fault;
mod heard;
mod stream;

pub use carrier::Carrier;
pub use stream::{Connecting, Held, Place, Stream};
