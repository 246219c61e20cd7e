//! Many that read one object while it comes, each all of it, byte by byte compared.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout},
};

use super::{
    answer::{Expected, Told},
    connection::Connection,
    sizes::Crowd,
};
use crate::{client, load::runtime, origin::object::Object};

/// Longer than anybody waits for the whole.
const PATIENCE: Duration = Duration::from_secs(300);

/// What came.
#[derive(Debug)]
pub(crate) struct Read {
    /// To each one's first byte.
    pub(crate) first: Vec<Duration>,
    /// Until the last has all of it.
    pub(crate) elapsed: Duration,
}

/// Reads. They come one after the other during the first half of the time that the origin takes.
///
/// # Errors
/// If somebody gets anything else than the object.
pub(crate) fn read(address: SocketAddr, target: &str, crowd: Crowd) -> anyhow::Result<Read> {
    const TOLD: &[Told] = &[Told::Miss, Told::Joined, Told::Hit, Told::Partial];
    let object = Object::at(target).context("no object")?;
    let request = client::get(target);
    let half = Duration::from_secs_f64(crowd.bytes as f64 / 1e6 / crowd.rate as f64 / 2.0);
    runtime()?.block_on(async {
        let started = Instant::now();
        let mut readers = JoinSet::new();
        for index in 0..crowd.readers {
            let request = request.clone();
            readers.spawn(async move {
                sleep_until((started + half * index / crowd.readers).into()).await;
                let mut connection = Connection::open(address).await?;
                let asked = Instant::now();
                let expected = Expected { status: 200, length: object.bytes, told: TOLD };
                let exchange = connection.exchange(&request, &expected, Some((object, 0)));
                let (_, first) = timeout(PATIENCE, exchange)
                    .await
                    .context("not in time")?
                    .with_context(|| format!("reader {index}"))?;
                anyhow::Ok(first - asked)
            });
        }
        let mut first = Vec::new();
        while let Some(reader) = readers.join_next().await {
            first.push(reader??);
        }
        ensure!(first.len() == crowd.readers as usize, "somebody is missing");
        Ok(Read { first, elapsed: started.elapsed() })
    })
}
