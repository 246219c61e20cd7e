//! Every limit and time of a connection, in one table, with its default.
//!
//! The answer that each one gives is in `response.rs`; the user guide's table is
//! made of the docstrings here.

use std::time::Duration;

/// Limits of one listener. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request or response head, request line included. 431 downstream, 502 upstream.
    pub max_head_bytes: usize,
    /// Header fields in a head. 431 downstream, 502 upstream.
    pub max_headers: usize,
    /// Request target. 414.
    pub max_uri_bytes: usize,
    /// Request body, `None`: no limit. 413.
    pub max_request_body_bytes: Option<u64>,
    /// Open connections of the listener over all workers; beyond it accepting pauses.
    pub max_connections: usize,
    /// From the first byte of a head (or from accept) to its end. 408.
    pub head_timeout: Duration,
    /// Keep-alive connection without a request. Closed without an answer.
    pub idle_timeout: Duration,
    /// Between two chunks of a body that is being waited for, either side. 408 while the
    /// request is read and no answer has begun; 504 if the upstream stalls before its
    /// head; else the connection is cut.
    pub body_idle_timeout: Duration,
    /// Name look-up, TCP connect and waiting for a free upstream connection. 504.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the answer. 504.
    pub response_timeout: Duration,
    /// Tunnel without a byte in either direction. The tunnel is ended.
    pub tunnel_idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head_bytes: 64 * 1024,
            max_headers: 100,
            max_uri_bytes: 16 * 1024,
            max_request_body_bytes: None,
            max_connections: 65_536,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_idle_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            // Models think for minutes before the first token; a shorter default breaks them.
            response_timeout: Duration::from_secs(300),
            tunnel_idle_timeout: Duration::from_secs(3600),
        }
    }
}
