//! The recorder by itself: what a worker is told, and the thread that writes, without a socket or a
//! proxy between them.
//!
//! CPU time by the clocks of the two threads, for each exchange of a small answer and for each token
//! of many streams, at a pace that the writer keeps up with, as in production: batches are as large
//! as their delay makes them. Whoever wants to know where it goes runs just this
//! (`--only part=alone`) under a profiler.

use std::{
    net::SocketAddr,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use underpass::{
    config,
    record::{Begin, Chosen, Counters, End, Lane, Recorder, Recording, Side},
};

use super::{gaps, scratch};
use crate::{meter::own_thread, process, run::Settings, stats::Table};

/// Name of the writer's thread.
pub(super) const WRITER: &str = "recorder";
/// Exchanges, or tokens, between two pauses.
const BURST: usize = 200;
const PAUSE: Duration = Duration::from_millis(5);
const STREAMS: usize = 1_000;
const BODY: [u8; 100] = [b'x'; 100];
const TOKEN: &[u8] = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"}}]}\n\n";

/// What a small client sends, and what an origin answers.
const ASKED: [(&str, &str); 3] =
    [("host", "bench.test"), ("user-agent", "bench/1.0"), ("accept", "*/*")];
const ANSWERED: [(&str, &str); 3] =
    [("content-type", "text/plain"), ("server", "origin"), ("content-length", "100")];

/// CPU time of both threads for one of what was told.
struct Cost {
    worker: f64,
    writer: f64,
}

/// Measures and prints.
///
/// # Errors
/// If nothing can be recorded, or not all of it was.
pub(super) fn run(settings: &Settings) -> anyhow::Result<()> {
    let count = settings.size(200_000, 10_000);
    println!(
        "record, the recorder by itself, {count} of each, {BURST} in {PAUSE:?}; CPU time in µs for \
         each\n"
    );
    let mut table = Table::new(["what is recorded", "worker", "writer"]);
    let mut row = |what: &str, cost: Cost| {
        table.row([what.into(), format!("{:.3}", cost.worker), format!("{:.3}", cost.writer)]);
    };
    row("exchange, 100 bytes back", measured(|lane| exchanges(lane, count))?);
    row("token of one of 1,000 streams", measured(|lane| tokens(lane, count))?);
    table.print();
    Ok(())
}

fn measured(
    tell: impl FnOnce(&Rc<Lane>) -> anyhow::Result<(usize, Duration)>,
) -> anyhow::Result<Cost> {
    let folder = scratch("alone");
    let cost = told(&folder, tell);
    let lost = gaps(&folder);
    let _ = std::fs::remove_dir_all(&folder);
    let (cost, lost) = (cost?, lost?);
    ensure!(lost.is_none(), "the writer did not keep up: {lost}");
    Ok(cost)
}

fn told(
    folder: &Path,
    tell: impl FnOnce(&Rc<Lane>) -> anyhow::Result<(usize, Duration)>,
) -> anyhow::Result<Cost> {
    let text = format!(
        "[record]\ndirectory = \"{}\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"origin\"\n[[upstream]]\nname = \"origin\"\n\
         servers = [\"127.0.0.1:3000\"]\n",
        folder.display()
    );
    let config = config::parse(&text, "bench")?.record.context("no [record]")?;
    let recorder = Recorder::start(&config, 1, Counters::default())?;
    let lane = Rc::new(recorder.lane(0));
    let writer = || process::threads(std::process::id()).get(WRITER).copied().unwrap_or_default();
    let before = writer();
    let (count, worker) = tell(&lane)?;
    // The last batch is written within this time, and the thread is there to be asked.
    std::thread::sleep(config.batch.delay * 2 + Duration::from_millis(200));
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    Ok(Cost { worker: each(worker), writer: each(writer().saturating_sub(before)) })
}

/// Does it so often, in bursts, and returns the CPU time of this thread meanwhile.
fn bursts(
    count: usize,
    mut one: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let mut used = Duration::ZERO;
    for burst in 0..count.div_ceil(BURST) {
        let before = own_thread();
        for number in burst * BURST..count.min((burst + 1) * BURST) {
            one(number)?;
        }
        used += own_thread().saturating_sub(before);
        std::thread::sleep(PAUSE);
    }
    Ok(used)
}

fn exchanges(lane: &Rc<Lane>, count: usize) -> anyhow::Result<(usize, Duration)> {
    let (asked, answered) = (fields(&ASKED)?, fields(&ANSWERED)?);
    let used = bursts(count, |_| {
        let recording = begin(lane, &asked)?;
        recording.answer(StatusCode::OK, &answered, true);
        recording.chunk(Side::Response, &BODY);
        end(&recording);
        Ok(())
    })?;
    Ok((count, used))
}

fn tokens(lane: &Rc<Lane>, count: usize) -> anyhow::Result<(usize, Duration)> {
    let (asked, answered) = (fields(&ASKED)?, fields(&ANSWERED)?);
    let mut streams = Vec::new();
    bursts(STREAMS, |_| {
        let recording = begin(lane, &asked)?;
        recording.answer(StatusCode::OK, &answered, true);
        streams.push(recording);
        Ok(())
    })?;
    let used = bursts(count, |number| {
        streams[number % STREAMS].chunk(Side::Response, TOKEN);
        Ok(())
    })?;
    bursts(STREAMS, |number| {
        end(&streams[number]);
        Ok(())
    })?;
    Ok((count, used))
}

fn begin(lane: &Rc<Lane>, fields: &HeaderMap) -> anyhow::Result<Box<Recording>> {
    let head = Begin {
        listener: "web",
        client: SocketAddr::from(([127, 0, 0, 1], 50_000)),
        route: Some("origin"),
        version: "HTTP/1.1",
        scheme: "http",
        method: "GET",
        target: "/",
        host: "bench.test",
        fields,
    };
    let now = Instant::now().into();
    Recording::begin(lane, Chosen::by(lane), now, &head).context("no room for a record")
}

fn end(recording: &Recording) {
    recording.end(&End {
        how: "complete",
        error: None,
        upstream: Some("origin"),
        server: Some(SocketAddr::from(([127, 0, 0, 1], 3000))),
        request_bytes: 0,
        response_bytes: BODY.len() as u64,
        failed: false,
    });
}

fn fields(all: &[(&'static str, &'static str)]) -> anyhow::Result<HeaderMap> {
    let field = |(name, value): &(&'static str, &'static str)| {
        anyhow::Ok((HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?))
    };
    all.iter().map(field).collect()
}
