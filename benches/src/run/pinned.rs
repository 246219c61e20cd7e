//! What it costs to keep the chunks of a body by their handles: hyper reads into a buffer that it
//! uses again once nobody holds a piece of it, so a handle keeps the whole buffer, and the next
//! read needs another.
//!
//! hyper's client as the proxy has it, chunks that come one at a time, and all handles kept. The
//! figure is heap that was asked for per chunk, beyond what the same takes when each chunk is
//! copied into one buffer and let go. A count of bytes, not a time: it is the same every time.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::{counting, load, stats::Table};

/// Sizes of chunks.
const SIZES: [usize; 5] = [50, 1 << 10, 4 << 10, 16 << 10, 48 << 10];
/// Chunks of one body. The first of them find hyper's buffer as small as it begins.
const CHUNKS: usize = 400;
/// Name of the thread that is counted.
const THREAD: &str = "pinned";
/// As `proxy/src/upstream/http1.rs`, with the default of `max_head_bytes`.
const BUFFER_BYTES: usize = 128 << 10;

/// Measures and prints.
///
/// # Errors
/// If a body does not come.
pub fn run() -> anyhow::Result<()> {
    println!(
        "record, heap asked for per chunk (bytes) by whoever keeps all of {CHUNKS} chunks of one \
         body\n"
    );
    let mut table = Table::new(["chunk", "by handle", "copied", "handle / chunk"]);
    for size in SIZES {
        let by_handle = of(size, true)?;
        let copied = of(size, false)?;
        table.row([
            size.to_string(),
            format!("{by_handle:.0}"),
            format!("{copied:.0}"),
            format!("{:.1}", by_handle / size as f64),
        ]);
    }
    table.print();
    Ok(())
}

/// Bytes asked for per chunk of this size.
///
/// # Errors
/// If the body does not come.
pub fn of(size: usize, by_handle: bool) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (taken, takes) = mpsc::channel();
    std::thread::scope(|scope| {
        let server = scope.spawn(move || serve(&listener, size, &takes));
        let client = std::thread::Builder::new().name(THREAD.to_owned());
        let client =
            client.spawn_scoped(scope, move || receive(address, (size, by_handle), &taken))?;
        let asked = client.join().ok().context("the client ended early")?;
        server.join().ok().context("the server ended early")??;
        asked
    })
}

/// One chunk after the other, each when the one before has been taken.
fn serve(listener: &TcpListener, size: usize, takes: &mpsc::Receiver<()>) -> anyhow::Result<()> {
    let (mut stream, _): (TcpStream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut head = [0; 1024];
    ensure!(stream.read(&mut head)? > 0, "no request");
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let mut chunk = format!("{size:x}\r\n").into_bytes();
    chunk.resize(chunk.len() + size, b'x');
    chunk.extend_from_slice(b"\r\n");
    for _ in 0..CHUNKS {
        stream.write_all(&chunk)?;
        if takes.recv().is_err() {
            break;
        }
    }
    Ok(stream.write_all(b"0\r\n\r\n")?)
}

fn receive(
    address: SocketAddr,
    (size, by_handle): (usize, bool),
    taken: &mpsc::Sender<()>,
) -> anyhow::Result<f64> {
    load::runtime()?.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let mut builder = http1::Builder::new();
        let handshake = builder.max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await?;
        let request = http::Request::get("/").header("host", "t").body(Empty::<Bytes>::new())?;
        let work = async {
            let mut body = sender.send_request(request).await?.into_body();
            let (mut handles, mut copies) = (Vec::with_capacity(CHUNKS * 64), Vec::new());
            let (mut before, mut had, mut whole) = (None, 0, 0);
            while let Some(frame) = body.frame().await {
                let data = frame?.into_data().unwrap_or_default();
                had += data.len();
                match by_handle {
                    true => handles.push(data),
                    false => {
                        copies.clear();
                        copies.extend_from_slice(&data);
                    }
                }
                // A chunk may come in pieces; the next one when it is there.
                if had == (whole + 1) * size {
                    whole += 1;
                    // Buffers have their size by then.
                    if whole == CHUNKS / 2 {
                        before = Some(counting::of_threads(THREAD));
                    }
                    taken.send(()).context("the server is gone")?;
                }
            }
            ensure!(whole == CHUNKS, "{whole} chunks");
            let asked = counting::of_threads(THREAD) - before.context("no chunks")?;
            drop((handles, copies));
            anyhow::Ok(asked.bytes as f64 / (CHUNKS - CHUNKS / 2) as f64)
        };
        // It may end before the last of the body has been looked at; what fails there is seen
        // by the body.
        let driven = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            asked = work => asked,
            () = driven => anyhow::bail!("never"),
        }
    })
}
