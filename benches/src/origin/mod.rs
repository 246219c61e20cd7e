//! The server behind the proxies: raw sockets, so cheap that it is never the bottleneck.
//!
//! | target | answer |
//! |---|---|
//! | `/stream/N` | N bytes with `Content-Length` |
//! | `/sse/N` | N events, chunked, each sent a millisecond after the one before |
//! | `/tokens/N` | endless events, 20 a second, the first after N µs, with the time they were sent |
//! | `/status/N` | 100 bytes with status N |
//! | `/object/N/R/…` | N bytes that a cache may keep, at R MB/s (`object.rs`) |
//! | `/counts` | how often objects were asked for, and how many bytes of them were sent |
//! | `/cut` | a body that ends before its length |
//! | `/echo` | 101 where an upgrade is asked for, then what comes is sent back |
//! | anything else | 100 bytes |
//!
//! It reads a request's head and as much body as `Content-Length` says, nothing else:
//! strictness is the proxies' job, and all that comes here comes from them or from us.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const SMALL: &[u8; 100] = &[b'x'; 100];
const SMALL_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: origin\r\nContent-Length: 100\r\n\r\n";
const SSE_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const ECHO_HEAD: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
/// About what a model's API sends for one token.
const EVENT: &[u8] = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"}}]}\n\n";
const EVENT_GAP: Duration = Duration::from_millis(1);
const PIECE_BYTES: usize = 64 * 1024;

pub mod grpc;
pub(crate) mod object;
pub(crate) mod tokens;

use object::{Counts, Object};

/// Serves on a thread of its own until the process ends.
///
/// # Errors
/// If there is no port or no thread to be had.
pub fn spawn() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("binding the origin")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("origin".into()).spawn(move || {
        runtime.block_on(async move { accept(TcpListener::from_std(listener)?).await })
    })?;
    Ok(address)
}

async fn accept(listener: TcpListener) -> std::io::Result<()> {
    let counts = Arc::new(Counts::default());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            // However a connection ends, whoever asked notices.
            let _ = serve(stream, &counts).await;
        });
    }
}

async fn serve(mut stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
    let small = [SMALL_HEAD.as_bytes(), SMALL].concat();
    let mut buf = Vec::with_capacity(4096);
    loop {
        let end = loop {
            if let Some(at) = memmem::find(&buf, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buf).await? == 0 {
                return Ok(());
            }
        };
        let length = content_length(&buf[..end]).unwrap_or(0);
        let kind = Kind::of(&buf[..end]);
        let last =
            field(&buf[..end], b"connection").is_some_and(|value| value.trim_ascii() == b"close");
        // Its range is in the head.
        let head = matches!(kind, Kind::Object(_)).then(|| buf[..end].to_vec());
        let mut left = length.saturating_sub(buf.len() - end);
        if left == 0 {
            buf.drain(..end + length);
        } else {
            while left > 0 {
                buf.clear();
                buf.reserve(PIECE_BYTES);
                let read = (&mut stream).take(left as u64).read_buf(&mut buf).await?;
                if read == 0 {
                    return Ok(());
                }
                left -= read;
            }
            buf.clear();
        }
        match kind {
            Kind::Small => stream.write_all(&small).await?,
            Kind::Stream(bytes) => stream_bytes(&mut stream, bytes).await?,
            Kind::Events(events) => stream_events(&mut stream, events).await?,
            Kind::Tokens(after) => tokens::send(&mut stream, after).await?,
            Kind::Status(status) => {
                let head = SMALL_HEAD.replacen("200 OK", &format!("{status} Told to"), 1);
                stream.write_all(&[head.as_bytes(), SMALL].concat()).await?;
            }
            Kind::Object(object) => {
                let head = head.unwrap_or_default();
                object::send(&mut stream, object, &head, counts).await?;
            }
            Kind::Counts => {
                let text = counts.text();
                let head = SMALL_HEAD.replacen("100\r", &format!("{}\r", text.len()), 1);
                stream.write_all(&[head.as_bytes(), text.as_bytes()].concat()).await?;
            }
            Kind::Cut => return stream.write_all(&small[..small.len() - 10]).await,
            Kind::Echo => return echo(stream, buf).await,
        }
        if last {
            return Ok(());
        }
    }
}

enum Kind {
    Small,
    Stream(usize),
    Events(usize),
    Tokens(Duration),
    Status(usize),
    Object(Object),
    Counts,
    Cut,
    Echo,
}

impl Kind {
    fn of(head: &[u8]) -> Self {
        let target = head.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        let number = |prefix: &str| -> Option<usize> {
            std::str::from_utf8(target.strip_prefix(prefix.as_bytes())?).ok()?.parse().ok()
        };
        match target {
            b"/cut" => return Self::Cut,
            b"/echo" => return Self::Echo,
            b"/counts" => return Self::Counts,
            _ => {}
        }
        if let Some(object) = std::str::from_utf8(target).ok().and_then(Object::at) {
            return Self::Object(object);
        }
        number("/stream/")
            .map(Self::Stream)
            .or_else(|| number("/sse/").map(Self::Events))
            .or_else(|| Some(Self::Tokens(Duration::from_micros(number("/tokens/")? as u64))))
            .or_else(|| number("/status/").map(Self::Status))
            .unwrap_or(Self::Small)
    }
}

/// The number in `Content-Length`, whatever the case of its name.
pub(crate) fn content_length(head: &[u8]) -> Option<usize> {
    std::str::from_utf8(field(head, b"content-length")?).ok()?.trim().parse().ok()
}

/// The value of the first field of this name, white space around it included.
pub(crate) fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let (one, value) = line.split_at(memchr::memchr(b':', line)?);
        one.eq_ignore_ascii_case(name).then(|| &value[1..])
    })
}

async fn stream_bytes(stream: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let piece = vec![b'x'; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(PIECE_BYTES);
        stream.write_all(&piece[..n]).await?;
        left -= n;
    }
    Ok(())
}

async fn stream_events(stream: &mut TcpStream, events: usize) -> std::io::Result<()> {
    let mut chunk = format!("{:x}\r\n", EVENT.len()).into_bytes();
    chunk.extend_from_slice(EVENT);
    chunk.extend_from_slice(b"\r\n");
    stream.write_all(SSE_HEAD.as_bytes()).await?;
    for _ in 0..events {
        tokio::time::sleep(EVENT_GAP).await;
        stream.write_all(&chunk).await?;
    }
    stream.write_all(b"0\r\n\r\n").await
}

/// What came behind the head is sent back first.
async fn echo(mut stream: TcpStream, mut buf: Vec<u8>) -> std::io::Result<()> {
    stream.write_all(ECHO_HEAD.as_bytes()).await?;
    loop {
        stream.write_all(&buf).await?;
        buf.clear();
        if stream.read_buf(&mut buf).await? == 0 {
            return Ok(());
        }
    }
}
