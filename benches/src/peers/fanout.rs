//! Many streams of tokens at once, read by one thread, as a gateway's clients would.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::LocalSet,
};

use crate::{
    client, load,
    meter::{Reading, Used},
    origin::tokens::{PERIOD, Reader},
};

/// A stream of which nothing comes for so long has lost something.
const SILENCE: Duration = Duration::from_secs(10);

/// What came meanwhile.
#[derive(Debug)]
pub(crate) struct Heard {
    /// How long each token was under way.
    pub(crate) delays: Vec<Duration>,
    pub(crate) used: Used,
    pub(crate) elapsed: Duration,
}

/// Opens the streams, spread over the period of their tokens, and listens for so long.
/// `peers` and `proxy` are the processes whose CPU time is read.
///
/// # Errors
/// If a stream does not begin, or a token is missing or damaged.
pub(crate) fn listen(
    address: SocketAddr,
    streams: u32,
    (warm_up, time): (Duration, Duration),
    (peers, proxy): (&[u32], &[u32]),
) -> anyhow::Result<Heard> {
    let delays = Rc::new(RefCell::new(None::<Vec<Duration>>));
    let local = LocalSet::new();
    let work = async {
        let mut tasks = Vec::new();
        for index in 0..streams {
            let after = PERIOD * index / streams;
            let stream = tokio::time::timeout(SILENCE, open(address, after));
            let stream = stream.await.context("a stream does not begin")??;
            tasks.push(tokio::task::spawn_local(read(stream, delays.clone())));
        }
        tokio::time::sleep(warm_up).await;
        let (before, started) = (Reading::now(peers, proxy)?, Instant::now());
        *delays.borrow_mut() = Some(Vec::new());
        tokio::time::sleep(time).await;
        let heard = delays.borrow_mut().take().unwrap_or_default();
        let (used, elapsed) = (Reading::now(peers, proxy)?.since(&before), started.elapsed());
        for task in tasks {
            // Only what failed has ended.
            if task.is_finished() {
                task.await??;
            }
        }
        ensure!(!heard.is_empty(), "no token came");
        anyhow::Ok(Heard { delays: heard, used, elapsed })
    };
    load::runtime()?.block_on(local.run_until(work))
}

async fn open(address: SocketAddr, after: Duration) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&client::get(&format!("/tokens/{}", after.as_micros()))).await?;
    Ok(stream)
}

async fn read(
    mut stream: TcpStream,
    delays: Rc<RefCell<Option<Vec<Duration>>>>,
) -> anyhow::Result<()> {
    let mut reader = Reader::default();
    loop {
        let read = tokio::time::timeout(SILENCE, stream.read_buf(&mut reader.buf));
        ensure!(read.await.context("a stream fell silent")?? > 0, "a stream ended");
        while let Some(delay) = reader.token()? {
            if let Some(delays) = delays.borrow_mut().as_mut() {
                delays.push(delay);
            }
        }
    }
}
