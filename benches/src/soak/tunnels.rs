//! Tunnels of each kind: opened, used for a while, closed by the client.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{client, origin::content_length};

const ROUNDS: usize = 10;
const PAUSE: Duration = Duration::from_millis(200);
/// Longer than what a lane copies at once is, so that it comes in pieces.
const MESSAGE_BYTES: usize = 20_000;

/// After an upgrade: what is sent comes back.
pub(super) async fn upgrade(proxy: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(proxy).await?;
    let head =
        b"GET /echo HTTP/1.1\r\nHost: bench.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(head).await?;
    ensure!(answer(&mut stream, &mut Vec::new()).await? == 101, "no upgrade");
    let sent: Vec<u8> = (0..MESSAGE_BYTES).map(|index| index as u8).collect();
    let mut back = vec![0; MESSAGE_BYTES];
    for _ in 0..ROUNDS {
        stream.write_all(&sent).await?;
        stream.read_exact(&mut back).await?;
        ensure!(sent == back, "an echo was damaged");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// After CONNECT: requests to the origin.
pub(super) async fn connect(proxy: SocketAddr, origin: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(proxy).await?;
    let head = format!("CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    ensure!(answer(&mut stream, &mut Vec::new()).await? == 200, "no tunnel");
    requests(stream).await
}

/// Through a TCP listener: the same.
pub(super) async fn raw(proxy: SocketAddr) -> anyhow::Result<()> {
    requests(TcpStream::connect(proxy).await?).await
}

async fn requests(mut stream: TcpStream) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        get(&mut stream).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// A request over a kept connection, and its small answer.
pub(super) async fn get(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(&client::get("/")).await?;
    let mut buf = Vec::with_capacity(1024);
    ensure!(answer(stream, &mut buf).await? == 200, "not a 200");
    Ok(())
}

/// The status of an answer, which is read to its end.
async fn answer(stream: &mut TcpStream, buf: &mut Vec<u8>) -> anyhow::Result<u16> {
    let end = loop {
        if let Some(at) = memmem::find(buf, b"\r\n\r\n") {
            break at + 4;
        }
        ensure!(stream.read_buf(buf).await? > 0, "closed before an answer");
    };
    let length = content_length(&buf[..end]).unwrap_or(0);
    while buf.len() < end + length {
        ensure!(stream.read_buf(buf).await? > 0, "closed within an answer");
    }
    ensure!(buf.len() == end + length, "bytes behind an answer");
    let status = buf.get(9..12).context("no status")?;
    Ok(std::str::from_utf8(status)?.parse()?)
}
