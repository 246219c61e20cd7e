//! Closed loop with answers whose heads differ: each is read by its length, and is checked.
//!
//! Unlike `crate::load`, which knows an answer by its first bytes: `Age` and what is left of a
//! freshness change from second to second.

use std::{
    cell::Cell,
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::{
    task::{JoinSet, LocalSet},
    time::timeout,
};

use super::{
    answer::{Expected, Told},
    connection::Connection,
};
use crate::{client, load::runtime, origin::object::Object};

/// What takes longer is a hang.
pub(crate) const GRACE: Duration = Duration::from_secs(20);
/// Of so many answers on a connection one is compared byte by byte, of the others the bytes are
/// counted: comparing is work of the generator, which shares the machine with the proxy.
const COMPARED: u64 = 64;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Of each object.
    pub(crate) bytes: u64,
    /// What caches may say of an answer.
    pub(crate) told: &'static [Told],
}

/// How much is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// This time has passed.
    Time(Duration),
    /// So many have been asked for, over all connections.
    Count(u64),
}

/// What came.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// From a request to the first byte of its answer, and to the last.
    pub(crate) first: Vec<Duration>,
    pub(crate) whole: Vec<Duration>,
    /// How many of each kind.
    pub(crate) told: BTreeMap<Told, u64>,
    pub(crate) elapsed: Duration,
}

impl Load {
    /// Asks. `next` gives the target of each request, an object's, by its number over all
    /// connections.
    ///
    /// # Errors
    /// If an answer is not what it has to be.
    pub(crate) fn run(
        self,
        until: Until,
        next: impl Fn(u64) -> String + 'static,
    ) -> anyhow::Result<Done> {
        let work = async {
            let (next, taken) = (Rc::new(next), Rc::new(Cell::new(0)));
            let mut open = Vec::new();
            for _ in 0..self.connections {
                let connection = timeout(GRACE, Connection::open(self.address));
                open.push(connection.await.context("connecting")??);
            }
            let started = Instant::now();
            let mut tasks = JoinSet::new();
            for connection in open {
                let (next, taken) = (Rc::clone(&next), Rc::clone(&taken));
                let clock = (until, started);
                tasks.spawn_local(async move { self.one(connection, clock, &taken, &*next).await });
            }
            let mut done = Done::default();
            while let Some(one) = tasks.join_next().await {
                let one = one??;
                done.first.extend(one.first);
                done.whole.extend(one.whole);
                for (told, count) in one.told {
                    *done.told.entry(told).or_default() += count;
                }
            }
            done.elapsed = started.elapsed();
            ensure!(!done.whole.is_empty(), "no time for a request");
            anyhow::Ok(done)
        };
        runtime()?.block_on(LocalSet::new().run_until(work))
    }

    async fn one(
        self,
        mut connection: Connection,
        (until, started): (Until, Instant),
        taken: &Cell<u64>,
        next: &impl Fn(u64) -> String,
    ) -> anyhow::Result<Done> {
        let mut done = Done::default();
        let expected = Expected { status: 200, length: self.bytes, told: self.told };
        for mine in 0_u64.. {
            let number = taken.get();
            let enough = match until {
                Until::Time(time) => started.elapsed() >= time,
                Until::Count(count) => number >= count,
            };
            if enough {
                break;
            }
            taken.set(number + 1);
            let target = next(number);
            let compared = mine % COMPARED == 0;
            let object = compared.then(|| Object::at(&target).context("no object")).transpose()?;
            let asked = Instant::now();
            let request = client::get(&target);
            let exchange = connection.exchange(&request, &expected, object.map(|one| (one, 0)));
            let answer = timeout(GRACE, exchange).await.context("not answered in time");
            let (told, first) = answer.and_then(|answer| answer).with_context(|| target.clone())?;
            done.first.push(first - asked);
            done.whole.push(asked.elapsed());
            *done.told.entry(told).or_default() += 1;
        }
        Ok(done)
    }
}

impl Done {
    /// How many answers were of this kind.
    pub(crate) fn count(&self, told: Told) -> u64 {
        self.told.get(&told).copied().unwrap_or(0)
    }

    pub(crate) fn requests(&self) -> f64 {
        self.whole.len() as f64
    }
}
