//! One measurement: a row through an engine.
//!
//! Everything that is answered is checked, and the origin's own count says whether what was called
//! a hit was none of its work.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{
    answer::Told,
    cells::{Engine, Figures, Measure, Row},
    crowd,
    engines::Proxy,
    load::{Done, Load, Until},
    ranges::Ranges,
    sizes::Sizes,
    zipf::{Random, Zipf},
};
use crate::{
    client,
    meter::{Reading, Used},
    origin::object::Asked,
    process,
    server::Server,
    stats::Percentiles,
};

/// Kept connections.
const CONNECTIONS: usize = 64;
/// How often all objects are asked for until all of them are kept, at most.
const PASSES: u32 = 30;
/// What is written to files has a moment between two of them.
const BETWEEN: Duration = Duration::from_millis(200);
/// Of the working set: so many times as long as other measurements.
const SET_TIMES: u32 = 4;
const MB: f64 = 1e6;

/// A number for each object that is new.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Whom it goes through, and how long it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage<'a> {
    pub(crate) row: Row,
    pub(crate) engine: Engine,
    pub(crate) sizes: Sizes,
    pub(crate) origin: &'a Server,
    /// `None` where nothing stands between.
    pub(crate) proxy: Option<&'a Proxy>,
    pub(crate) time: Duration,
}

impl Stage<'_> {
    /// Has kept what is to be found later.
    ///
    /// # Errors
    /// If it is not kept.
    pub(crate) fn prepare(self) -> anyhow::Result<()> {
        match self.row {
            Row::Hit1k | Row::Hit64k | Row::Disk64k => self.keep(),
            // Folders of files, tables, connections to the origin.
            Row::Miss => {
                let count = Until::Count(self.sizes.warm_up());
                self.load(CONNECTIONS, self.missed()).run(count, self.unknown()).map(|_| ())
            }
            Row::Partial | Row::Join | Row::Set => Ok(()),
        }
    }

    /// Measures.
    ///
    /// # Errors
    /// If something is not answered as it has to be.
    pub(crate) fn measure(self) -> anyhow::Result<Figures> {
        match self.row {
            Row::Hit1k | Row::Hit64k | Row::Disk64k => self.hits(),
            Row::Miss => self.misses(),
            Row::Partial => self.partial(),
            Row::Join => self.join(),
            Row::Set => self.set(),
        }
    }

    fn load(self, connections: usize, told: &'static [Told]) -> Load {
        let bytes = self.sizes.bytes(self.row);
        Load { address: self.server().address, connections, bytes, told }
    }

    fn server(&self) -> &Server {
        self.proxy.map_or(self.origin, |proxy| &proxy.server)
    }

    fn pids(&self) -> &[u32] {
        self.proxy.map_or(&[], |proxy| &proxy.server.pids)
    }

    /// The objects of this row in turns.
    fn in_turns(self) -> impl Fn(u64) -> String + 'static {
        let (row, bytes) = (self.row, self.sizes.bytes(self.row));
        let objects = self.sizes.objects(row);
        move |number| format!("/object/{bytes}/0/{row}-{}", number % objects)
    }

    /// Objects that nobody has asked for before.
    fn unknown(self) -> impl Fn(u64) -> String + 'static {
        let bytes = self.sizes.bytes(self.row);
        move |_| format!("/object/{bytes}/0/new-{}", NEXT.fetch_add(1, Relaxed))
    }

    /// What is said of those.
    fn missed(self) -> &'static [Told] {
        if self.engine.caches() { &[Told::Miss] } else { &[Told::Nothing] }
    }

    fn asked(self) -> anyhow::Result<Asked> {
        Asked::read(&client::text(self.origin.address, "/counts")?)
    }

    fn keep(self) -> anyhow::Result<()> {
        const TOLD: &[Told] = &[Told::Miss, Told::Joined, Told::Hit, Told::Partial];
        let objects = self.sizes.objects(self.row);
        for _ in 0..PASSES {
            let pass = self.load(8, TOLD).run(Until::Count(objects), self.in_turns())?;
            if pass.count(Told::Hit) == objects {
                return Ok(());
            }
            std::thread::sleep(BETWEEN);
        }
        anyhow::bail!("it does not keep what it is asked for")
    }

    fn hits(self) -> anyhow::Result<Figures> {
        let before = (self.asked()?, self.disk_hits()?);
        let load = self.load(CONNECTIONS, &[Told::Hit]);
        let (mut done, mut figures) =
            self.work(|| load.run(Until::Time(self.time), self.in_turns()), Done::requests)?;
        let asked = self.asked()?.since(before.0);
        ensure!(asked.requests == 0, "{} hits were the origin's", asked.requests);
        figures.whole(&mut done);
        figures.values.insert(Measure::Rate, done.rate());
        figures.values.insert(Measure::Rss, self.proxy()?.memory()?[0] / MB);
        let from_disk = match self.disk_hits()?.zip(before.1) {
            Some((now, before)) => (now - before) / done.requests() * 100.0,
            // It has nothing else.
            None => 100.0,
        };
        figures.values.insert(Measure::FromDisk, from_disk);
        Ok(figures)
    }

    fn misses(self) -> anyhow::Result<Figures> {
        let before = self.asked()?;
        let time = Until::Time(self.time);
        let mut one = self.load(1, self.missed()).run(time, self.unknown())?;
        let load = self.load(CONNECTIONS, self.missed());
        let run = || load.run(time, self.unknown());
        let (mut done, mut figures) = self.work(run, Done::requests)?;
        let asked = self.asked()?.since(before).requests as f64;
        let all = one.requests() + done.requests();
        ensure!(asked == all, "the origin was asked {asked} times for {all} misses");
        figures.whole(&mut done);
        let of = Percentiles::of(&mut one.first);
        figures.values.extend([(Measure::FirstP50, of.p50), (Measure::FirstP99, of.p99)]);
        figures.values.insert(Measure::Rate, done.rate());
        Ok(figures)
    }

    fn partial(self) -> anyhow::Result<Figures> {
        let bytes = self.sizes.bytes(self.row);
        let target = format!("/object/{bytes}/0/parts-{}", NEXT.fetch_add(1, Relaxed));
        let ranges = Ranges::new(self.server().address, target)?;
        let before = self.asked()?;
        ranges.fill()?;
        let filled = self.asked()?;
        let half = filled.since(before).bytes;
        ensure!(half == bytes / 2, "{half} bytes were fetched for half of {bytes}");
        // nginx speaks of the first block only, which is there.
        let told: &[Told] = if self.engine.is_ours() { &[Told::Partial] } else { &[Told::Hit] };
        let megabytes = bytes as f64 / MB;
        let (mut took, mut figures) = self.work(|| ranges.read(told), |_| megabytes)?;
        let asked = self.asked()?.since(filled);
        let elapsed: Duration = took.iter().sum();
        let of = Percentiles::of(&mut took);
        figures.values.extend([
            (Measure::Rate, megabytes / elapsed.as_secs_f64()),
            (Measure::P50, of.p50),
            (Measure::P99, of.p99),
            (Measure::OriginAsked, asked.requests as f64 / took.len() as f64),
            (Measure::OriginSent, asked.bytes as f64 / bytes as f64),
        ]);
        Ok(figures)
    }

    fn join(self) -> anyhow::Result<Figures> {
        let crowd = self.sizes.crowd();
        let number = NEXT.fetch_add(1, Relaxed);
        let target = format!("/object/{}/{}/join-{number}", crowd.bytes, crowd.rate);
        let before = self.asked()?;
        let megabytes = crowd.bytes as f64 / MB * f64::from(crowd.readers);
        let address = self.server().address;
        let read = || crowd::read(address, &target, crowd);
        let (mut read, mut figures) = self.work(read, |_| megabytes)?;
        let asked = self.asked()?.since(before);
        let of = Percentiles::of(&mut read.first);
        figures.values.extend([
            (Measure::Rate, megabytes / read.elapsed.as_secs_f64()),
            (Measure::FirstP50, of.p50),
            (Measure::Seconds, read.elapsed.as_secs_f64()),
            (Measure::OriginAsked, asked.requests as f64),
            (Measure::OriginSent, asked.bytes as f64 / crowd.bytes as f64),
            (Measure::Peak, self.proxy()?.memory()?[1] / MB),
        ]);
        Ok(figures)
    }

    fn set(self) -> anyhow::Result<Figures> {
        const TOLD: &[Told] = &[Told::Miss, Told::Joined, Told::Hit, Told::Partial];
        let load = self.load(CONNECTIONS, TOLD);
        let objects = self.sizes.objects(self.row);
        load.run(Until::Count(objects), self.in_turns())?;
        // From here on by popularity; what each one's policy makes of that takes a while.
        load.run(Until::Count(2 * objects), self.by_popularity(1)?)?;
        let before = self.disk_hits()?;
        let next = self.by_popularity(2)?;
        let run = || load.run(Until::Time(self.time * SET_TIMES), next);
        let (done, mut figures) = self.work(run, Done::requests)?;
        let percent = |count: f64| count / done.requests() * 100.0;
        let hits = percent(done.count(Told::Hit) as f64);
        let from_disk = match (self.engine, self.disk_hits()?.zip(before)) {
            (Engine::Nginx, _) => hits,
            (Engine::Disk, Some((now, before))) => percent(now - before),
            _ => 0.0,
        };
        let [rss, peak] = self.proxy()?.memory()?;
        figures.values.extend([
            (Measure::Rate, done.rate()),
            (Measure::Hits, hits),
            (Measure::FromMemory, (hits - from_disk).max(0.0)),
            (Measure::FromDisk, from_disk),
            (Measure::Rss, rss / MB),
            (Measure::Peak, peak / MB),
        ]);
        if let Some(budget) = self.sizes.budget(self.row, self.engine) {
            figures.values.insert(Measure::Budget, peak / budget as f64);
        }
        Ok(figures)
    }

    fn by_popularity(self, seed: u64) -> anyhow::Result<impl Fn(u64) -> String + 'static> {
        /// Neighbours in rank were not stored one after the other. A prime.
        const STEP: u64 = 1_000_003;
        let objects = self.sizes.objects(self.row);
        let zipf = Zipf::new(usize::try_from(objects)?);
        let random = std::cell::RefCell::new(Random::new(seed));
        let in_turns = self.in_turns();
        ensure!(!objects.is_multiple_of(STEP), "so many objects are not all reached");
        Ok(move |_| in_turns(zipf.pick(random.borrow_mut().share()) as u64 * STEP))
    }

    fn proxy(&self) -> anyhow::Result<&Proxy> {
        self.proxy.context("nothing stands between")
    }

    fn disk_hits(self) -> anyhow::Result<Option<f64>> {
        self.proxy.map_or(Ok(None), Proxy::disk_hits)
    }

    /// Does it, and reads what it cost the proxy for each of what `counted` says.
    fn work<T>(
        self,
        work: impl FnOnce() -> anyhow::Result<T>,
        counted: impl FnOnce(&T) -> f64,
    ) -> anyhow::Result<(T, Figures)> {
        let user = || self.pids().iter().map(|&pid| Ok(process::cpu(pid)?.user)).sum();
        let peers = [std::process::id(), self.origin.pid];
        let user_before: anyhow::Result<Duration> = user();
        let (before, started) = (Reading::now(&peers, self.pids())?, Instant::now());
        let done = work()?;
        let elapsed = started.elapsed();
        let used = Reading::now(&peers, self.pids())?.since(&before);
        let userspace = user()?.saturating_sub(user_before?);
        let figures = costs(used, userspace, elapsed, counted(&done));
        Ok((done, figures))
    }
}

impl Done {
    fn rate(&self) -> f64 {
        self.requests() / self.elapsed.as_secs_f64()
    }
}

impl Figures {
    fn whole(&mut self, done: &mut Done) {
        let of = Percentiles::of(&mut done.whole);
        self.values.extend([(Measure::P50, of.p50), (Measure::P99, of.p99)]);
    }
}

fn costs(used: Used, userspace: Duration, elapsed: Duration, count: f64) -> Figures {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count;
    let mut values = BTreeMap::new();
    if !used.proxy.is_zero() {
        values.insert(Measure::Cpu, each(used.proxy));
        values.insert(Measure::CpuUser, each(userspace));
    }
    let others = used.machine.saturating_sub(used.counted);
    Figures { values, others_cpus: others.as_secs_f64() / elapsed.as_secs_f64() }
}
