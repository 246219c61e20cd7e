//! How a tunnel is opened: by connecting, or by CONNECT to a forward proxy.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd as _,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use super::protocol::Service;

/// A tunnel that takes longer is none.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer to CONNECT is shorter.
const MAX_HEAD: usize = 4096;

/// User and password of the forward proxy, which wants one when it listens beyond loopback.
pub(crate) const USER: &str = "bench:tunnel";
/// The same, in base64.
const CREDENTIALS: &str = "YmVuY2g6dHVubmVs";

/// The way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Opener {
    /// The server itself, or a TCP listener that leads to it.
    Raw { to: SocketAddr },
    /// A forward proxy (RFC 9110, 9.3.6).
    Connect { proxy: SocketAddr, to: SocketAddr },
}

impl Opener {
    /// Opens a tunnel and says what it is for. The socket is left with O_NONBLOCK.
    ///
    /// # Errors
    /// If it does not come about.
    pub(crate) fn open(self, service: Service) -> anyhow::Result<TcpStream> {
        let address = match self {
            Self::Raw { to } => to,
            Self::Connect { proxy, .. } => proxy,
        };
        let mut stream =
            TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| format!("{address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        if let Self::Connect { to, .. } = self {
            let head = format!(
                "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: Basic {CREDENTIALS}\r\n\r\n"
            );
            stream.write_all(head.as_bytes())?;
            read_answer(&mut stream)?;
        }
        stream.write_all(&service.encode()).context("sending the first bytes")?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

/// Closes with a reset: what is under way is not waited for, and no port is kept.
pub(crate) fn abort(stream: TcpStream) {
    // Whether it can be set or not, it is closed.
    let _ = rustix::net::sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO));
}

/// Byte by byte: what follows the head is the tunnel's.
fn read_answer(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < MAX_HEAD, "endless answer to CONNECT");
        let mut byte = [0];
        ensure!(stream.read(&mut byte)? == 1, "closed instead of an answer to CONNECT");
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 200") {
        bail!("CONNECT: {}", String::from_utf8_lossy(&head).lines().next().unwrap_or_default());
    }
    Ok(())
}
