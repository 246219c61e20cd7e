//! What an exchange tells of itself when its record begins and ends.

use http::HeaderMap;

use super::lane::Lane;

/// The head of a request, as the client sent it.
#[derive(Debug)]
pub struct Begin<'a> {
    /// Name of the listener.
    pub listener: &'a str,
    /// Who asked.
    pub client: std::net::SocketAddr,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// `HTTP/1.1` and the like.
    pub version: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Method.
    pub method: &'a str,
    /// Target, as it came.
    pub target: &'a str,
    /// `Host` or `:authority`.
    pub host: &'a str,
    /// Fields.
    pub fields: &'a HeaderMap,
}

/// How an exchange ended.
#[derive(Debug)]
pub struct End<'a> {
    /// `complete`, `client_gone`, `error` or `tunnel`.
    pub how: &'a str,
    /// What went wrong.
    pub error: Option<&'a str>,
    /// Name of the upstream.
    pub upstream: Option<&'a str>,
    /// The server that was asked.
    pub server: Option<std::net::SocketAddr>,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// Body bytes to the client.
    pub response_bytes: u64,
    /// Whether something went wrong, or the answer says that it did.
    pub failed: bool,
}

/// What is known of an exchange before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// It is recorded.
    Yes,
    /// It is if it fails, or takes long.
    Perhaps,
    /// It is not.
    No,
}

impl Chosen {
    /// Draws lots, where only some are recorded.
    pub fn by(lane: &Lane) -> Self {
        let sampling = lane.shared.config.sampling;
        match sampling.ratio >= 1.0 || fastrand::f64() < sampling.ratio {
            true => Self::Yes,
            false if sampling.errors || sampling.slower_than.is_some() => Self::Perhaps,
            false => Self::No,
        }
    }
}
