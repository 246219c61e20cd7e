//! One blocking client connection, for measurements at low load: no runtime between the
//! socket and the clock.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use memchr::memmem;

use crate::{origin::content_length, patient};

/// Longer than anything here takes; a measurement that hangs ends.
const TIMEOUT: Duration = Duration::from_secs(20);
const BUFFER_BYTES: usize = 64 * 1024;

/// A request for `target`. The fields are what a small client sends.
pub fn get(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n"
    )
    .into_bytes()
}

/// The same, after whose answer the connection ends.
pub fn get_and_close(target: &str) -> Vec<u8> {
    let mut request = get(target);
    request.truncate(request.len() - 2);
    request.extend_from_slice(b"Connection: close\r\n\r\n");
    request
}

/// A request for the bytes from `first` to `last`.
pub fn get_range(target: &str, first: u64, last: u64) -> Vec<u8> {
    let mut request = get(target);
    request.truncate(request.len() - 2);
    request.extend_from_slice(format!("Range: bytes={first}-{last}\r\n\r\n").as_bytes());
    request
}

/// The head of a request with a body.
pub fn post(target: &str, length: usize) -> Vec<u8> {
    format!(
        "POST {target} HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench/1.0\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

/// The body of a small answer, on a connection of its own.
///
/// # Errors
/// If it is not a whole 200 in UTF-8.
pub fn text(address: SocketAddr, target: &str) -> anyhow::Result<String> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("connecting {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // By its own name: an admin endpoint answers for no other.
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{target}: not a 200: {head}");
    Ok(body.to_owned())
}

/// A keep-alive connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buf: Vec<u8>,
    /// Slept after each read: a slow reader.
    pub pause: Duration,
}

/// What one answer looked like.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// When its first byte came.
    pub first_byte: Instant,
    /// Head and body.
    pub bytes: usize,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("connecting {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, buf: vec![0; BUFFER_BYTES], pause: Duration::ZERO })
    }

    /// With O_NONBLOCK, as most applications have it. Whoever waits does so in poll(2).
    ///
    /// # Errors
    /// If that cannot be set.
    pub fn nonblocking(self) -> anyhow::Result<Self> {
        self.stream.set_nonblocking(true)?;
        Ok(self)
    }

    /// Sends a request and reads its answer to the end.
    ///
    /// # Errors
    /// If the answer is not a whole 200.
    pub fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.send(request)?;
        self.receive()
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        patient::send_all(&self.stream, bytes, TIMEOUT).context("sending")
    }

    /// Reads one answer to its end, by `Content-Length` or by the last chunk.
    ///
    /// # Errors
    /// As [`Self::exchange`].
    pub fn receive(&mut self) -> anyhow::Result<Answer> {
        let mut filled = self.read(0)?;
        let first_byte = Instant::now();
        let end = loop {
            if let Some(at) = memmem::find(&self.buf[..filled], b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(filled < self.buf.len(), "endless head");
            filled += self.read(filled)?;
        };
        let head = &self.buf[..end];
        if !head.starts_with(b"HTTP/1.1 200") {
            bail!("not a 200: {}", String::from_utf8_lossy(head));
        }
        let mut bytes = filled;
        if let Some(length) = content_length(head) {
            while bytes < end + length {
                bytes += self.read(0)?;
            }
            ensure!(bytes == end + length, "bytes behind the answer");
            return Ok(Answer { first_byte, bytes });
        }
        const LAST: &[u8] = b"\r\n0\r\n\r\n";
        // The last chunk may come in pieces: what was read before it stays in front.
        while !self.buf[..filled].ends_with(LAST) {
            let keep = filled.min(LAST.len());
            self.buf.copy_within(filled - keep..filled, 0);
            let read = self.read(keep)?;
            filled = keep + read;
            bytes += read;
        }
        Ok(Answer { first_byte, bytes })
    }

    /// Stays connected and does nothing more.
    pub fn forget_buffer(&mut self) {
        self.buf = Vec::new();
    }

    fn read(&mut self, at: usize) -> anyhow::Result<usize> {
        let read = patient::receive(&self.stream, &mut self.buf[at..], TIMEOUT);
        let read = read.context("receiving")?;
        ensure!(read > 0, "the connection ended within an answer");
        if !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        }
        Ok(read)
    }
}
