//! Ranges of an object of which every second block is kept.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::time::timeout;

use super::{
    answer::{Expected, Told},
    conf::BLOCK_BYTES,
    connection::Connection,
    load::GRACE,
};
use crate::{client, load::runtime, origin::object::Object};

/// Blocks of one range; half of them are there.
const EACH: u64 = 4;

/// An object, by its target.
#[derive(Debug)]
pub(crate) struct Ranges {
    address: SocketAddr,
    target: String,
    object: Object,
}

impl Ranges {
    pub(crate) fn new(address: SocketAddr, target: String) -> anyhow::Result<Self> {
        let object = Object::at(&target).context("no object")?;
        Ok(Self { address, target, object })
    }

    /// Has every second block kept, the first one among them.
    ///
    /// # Errors
    /// If a range is not answered as it has to be.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let blocks = (0..self.object.bytes / BLOCK_BYTES).step_by(2);
        // What is said of something that is not kept yet is each one's own.
        let told = &[Told::Miss, Told::Hit, Told::Partial, Told::Other];
        self.ask(blocks.map(|block| (block, 1)), told).map(|_| ())
    }

    /// Asks for all of it, some blocks at a time, and says how long each took.
    ///
    /// # Errors
    /// As [`Self::fill`].
    pub(crate) fn read(&self, told: &[Told]) -> anyhow::Result<Vec<Duration>> {
        let ranges = (0..self.object.bytes / BLOCK_BYTES / EACH).map(|range| (range * EACH, EACH));
        self.ask(ranges, told)
    }

    fn ask(
        &self,
        ranges: impl Iterator<Item = (u64, u64)>,
        told: &[Told],
    ) -> anyhow::Result<Vec<Duration>> {
        runtime()?.block_on(async {
            let mut connection = Connection::open(self.address).await?;
            let mut took = Vec::new();
            for (first, blocks) in ranges {
                let (start, length) = (first * BLOCK_BYTES, blocks * BLOCK_BYTES);
                let expected = Expected { status: 206, length, told };
                let request = client::get_range(&self.target, start, start + length - 1);
                let asked = Instant::now();
                let exchange = connection.exchange(&request, &expected, Some((self.object, start)));
                let answer = timeout(GRACE, exchange).await.context("not answered in time");
                answer.and_then(|answer| answer).with_context(|| format!("from {start} on"))?;
                took.push(asked.elapsed());
            }
            Ok(took)
        })
    }
}
