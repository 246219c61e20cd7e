//! Placeholder for the embedded origin.

/// Starts the origin on a loopback port, on its own thread.
pub fn start() -> std::io::Result<std::net::SocketAddr> {
    Err(std::io::ErrorKind::Unsupported.into())
}
