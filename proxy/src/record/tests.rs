//! The recorder without a proxy: what is told to a lane is read back from the folder.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use mantra_macros::req_test;
use tokio::time::Instant;

use super::{
    Begin, Chosen, Counters, End, Lane, Recorder, Recording, Side,
    read::{Lookup, Record, assemble},
};
use crate::config::record::{Compression, Record as Config, RecordMode};

mod budget;
mod files;
mod secrets;
mod waits;

/// A folder that is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("underpass-record-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn config(&self) -> Config {
        Config::with_defaults(self.0.clone())
    }

    fn records(&self) -> Vec<Record> {
        let (records, _, damage) = assemble(&self.0, Lookup::All).unwrap();
        assert!(damage.is_none(), "{damage:?}");
        records
    }

    fn segments(&self) -> Vec<PathBuf> {
        super::write::list(&self.0).unwrap().into_iter().map(|(path, _)| path).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What lanes share where nobody writes.
fn shared(config: &Config) -> Arc<super::lane::Shared> {
    Arc::new(super::lane::Shared::new(config, Counters::default(), String::new()))
}

fn begin(lane: &Rc<Lane>, target: &str) -> Option<Box<Recording>> {
    begin_as(lane, Chosen::by(lane), target)
}

fn begin_as(lane: &Rc<Lane>, chosen: Chosen, target: &str) -> Option<Box<Recording>> {
    let mut fields = HeaderMap::new();
    fields.insert("authorization", HeaderValue::from_static("Bearer s3cret"));
    fields.insert("x-odd", HeaderValue::from_bytes(b"\xff").unwrap());
    let head = Begin {
        listener: "web",
        client: "127.0.0.1:1".parse().unwrap(),
        route: Some("api"),
        version: "HTTP/1.1",
        scheme: "http",
        method: "POST",
        target,
        host: "h",
        fields: &fields,
    };
    Recording::begin(lane, chosen, Instant::now(), &head)
}

fn end(recording: &Recording, failed: bool) {
    recording.end(&End {
        how: "complete",
        error: None,
        upstream: Some("o"),
        server: None,
        request_bytes: 1,
        response_bytes: 2,
        failed,
    });
}

fn whole(lane: &Rc<Lane>, target: &str, chunks: &[Bytes]) {
    let recording = begin(lane, target).unwrap();
    recording.chunk(Side::Request, &Bytes::from_static(b"ask"));
    recording.answer(StatusCode::OK, &HeaderMap::new(), true);
    chunks.iter().for_each(|chunk| recording.chunk(Side::Response, chunk));
    end(&recording, false);
}

#[req_test("REQ-REC-002", "REQ-REC-003", "REQ-REC-006")]
#[test]
fn what_is_told_is_read_back() {
    for compression in [Compression::None, Compression::Zstd] {
        let folder = Folder::new();
        let mut config = folder.config();
        config.segments.compression = compression;
        let recorder = Recorder::start(&config, 1, Counters::default()).unwrap();
        let lane = Rc::new(recorder.lane(0));
        let chunks = [
            Bytes::from_static(b"one"),
            Bytes::from_static(b"\xe2\x82"),
            Bytes::from_static(b"\xac\xff"),
            Bytes::from(vec![b'x'; 40_000]),
        ];
        whole(&lane, "/a?b=1&token=s3cret", &chunks);
        recorder.shutdown();
        let records = folder.records();
        let [record] = records.as_slice() else { panic!("{records:?}") };
        assert!(record.is_whole(), "{record:?}");
        let head = record.begin.as_ref().unwrap();
        assert_eq!((head.target.as_str(), head.method.as_str()), ("/a?b=1&token=***", "POST"));
        assert_eq!(head.url(), "http://h/a?b=1&token=***");
        let value = |name: &str| {
            let named = head.headers.iter().find(|(found, _)| found.lossy() == name);
            named.map(|(_, value)| value.lossy().into_owned()).unwrap()
        };
        assert_eq!((value("authorization").as_str(), value("x-odd").as_str()), ("***", "\u{fffd}"));
        let body = record.body(Side::Response);
        assert_eq!(body.bytes, chunks.concat());
        let lengths: Vec<u64> = body.chunks.iter().map(|chunk| chunk.len).collect();
        assert_eq!(lengths, [3, 2, 2, 40_000]);
        assert_eq!(record.body(Side::Request).bytes, b"ask");
        let folder_mode = fs::metadata(&folder.0).unwrap().permissions().mode();
        assert_eq!(folder_mode & 0o777, 0o700);
        for segment in folder.segments() {
            assert_eq!(fs::metadata(&segment).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(!fs::read(&segment).unwrap().windows(6).any(|window| window == b"s3cret"));
        }
    }
}

/// What a crash leaves of the last write is no line, and nothing before it is lost.
#[req_test("REQ-REC-005")]
#[test]
fn a_torn_tail_is_recognised_at_every_byte() {
    for compression in [Compression::None, Compression::Zstd] {
        let folder = Folder::new();
        let mut config = folder.config();
        config.segments.compression = compression;
        config.batch.entries = 1;
        let recorder = Recorder::start(&config, 1, Counters::default()).unwrap();
        let lane = Rc::new(recorder.lane(0));
        (0..3).for_each(|_| whole(&lane, "/", &[Bytes::from_static(b"text")]));
        recorder.shutdown();
        let [segment] = &folder.segments()[..] else { panic!("one segment") };
        let bytes = fs::read(segment).unwrap();
        let mut seen = 0;
        for cut in 0..=bytes.len() {
            fs::write(segment, &bytes[..cut]).unwrap();
            let (records, _, damage) = assemble(&folder.0, Lookup::All).unwrap();
            assert_eq!(damage.unreadable, 0, "cut at {cut}");
            let whole = records.iter().filter(|record| record.is_whole()).count();
            assert!(whole >= seen, "cut at {cut}: {whole} after {seen}");
            seen = whole;
            // Between two lines or frames nothing is torn.
            if compression == Compression::None {
                let between = cut == 0 || bytes[cut - 1] == b'\n';
                assert_eq!(damage.torn == 0, between, "cut at {cut}");
            }
        }
        assert_eq!(seen, 3);
    }
}

/// Beyond the budget, marks account for every byte that is missing.
#[req_test("REQ-REC-001", "REQ-REC-004", "REQ-REC-005")]
#[test]
fn marks_account_for_what_found_no_room() {
    let folder = Folder::new();
    let mut config = folder.config();
    config.memory_bytes = 64 << 10;
    config.batch.delay = Duration::from_secs(3600);
    (config.batch.bytes, config.batch.entries) = (16 << 20, 1 << 20);
    let counters = Counters::default();
    let recorder = Recorder::start(&config, 1, counters.clone()).unwrap();
    let lane = Rc::new(recorder.lane(0));
    let first = begin(&lane, "/first").unwrap();
    rests_until_the_end(&lane);
    let mut sent = 0;
    for size in 1..400_usize {
        first.chunk(Side::Response, &Bytes::from(vec![b'a'; size]));
        sent += size as u64;
    }
    // Not even a record has room now.
    assert!(begin(&lane, "/second").is_none());
    end(&first, false);
    recorder.shutdown();
    let (records, unrecorded, _) = assemble(&folder.0, Lookup::All).unwrap();
    let [record] = records.as_slice() else { panic!("{records:?}") };
    let body = record.body(Side::Response);
    assert!(body.length > 30_000, "what had room is there");
    assert!(!record.is_whole());
    assert_eq!(body.length + record.missing_bytes(), sent);
    let chunks = body.gaps.iter().map(|gap| gap.missing.chunks).sum::<u64>();
    assert_eq!(body.chunks.len() as u64 + chunks, 399);
    assert!(body.gaps.iter().all(|gap| gap.missing.why == "budget"));
    assert_eq!((unrecorded, counters.unrecorded.get()), (1, 1));
}

/// A chunk that finds room behind a gap is told with it, in its place.
#[req_test("REQ-REC-005")]
#[test]
fn a_record_goes_on_behind_a_gap() {
    let folder = Folder::new();
    let mut config = folder.config();
    config.max_body_bytes = Some(5);
    let recorder = Recorder::start(&config, 1, Counters::default()).unwrap();
    let lane = Rc::new(recorder.lane(0));
    whole(&lane, "/", &[Bytes::from_static(b"abc"), Bytes::from_static(b"defg")]);
    recorder.shutdown();
    let records = folder.records();
    let body = records[0].body(Side::Response);
    assert_eq!(body.bytes, b"abcde");
    let [gap] = body.gaps.as_slice() else { panic!("{body:?}") };
    assert_eq!((gap.offset, gap.missing.bytes, gap.missing.why.as_str()), (5, 2, "limit"));
}

/// Of what is not sampled, errors and slow ones are recorded whole all the same.
#[req_test("REQ-REC-006")]
#[test]
fn what_is_not_sampled_is_kept_if_it_fails() {
    let folder = Folder::new();
    let mut config = folder.config();
    config.sampling.ratio = 0.0;
    config.batch.delay = Duration::from_secs(3600);
    let counters = Counters::default();
    let recorder = Recorder::start(&config, 1, counters.clone()).unwrap();
    let lane = Rc::new(recorder.lane(0));
    whole(&lane, "/fine", &[Bytes::from_static(b"x")]);
    let broken = begin(&lane, "/broken").unwrap();
    broken.answer(StatusCode::OK, &HeaderMap::new(), true);
    broken.chunk(Side::Response, &Bytes::from_static(b"half"));
    end(&broken, true);
    rests_until_the_end(&lane);
    let late = begin(&lane, "/late").unwrap();
    late.chunk(Side::Request, &Bytes::from_static(b"ask"));
    late.answer(StatusCode::BAD_GATEWAY, &HeaderMap::new(), false);
    end(&late, false);
    assert_eq!(lane.queue.held(), lane_cost(&lane), "nothing is charged for nothing");
    assert_eq!(lane.reserved.get(), 0);
    recorder.shutdown();
    let records = folder.records();
    let targets: Vec<_> =
        records.iter().map(|record| record.begin.as_ref().unwrap().target.as_str()).collect();
    assert_eq!(targets, ["/broken", "/late"]);
    assert!(records.iter().all(Record::is_whole));
    assert_eq!(records[0].body(Side::Response).bytes, b"half");
    assert_eq!(counters.exchanges.get(), 2);
}

/// Has the writer, whose first look may be late, done with what has been told; it comes again in an
/// hour, or at the end.
fn rests_until_the_end(lane: &Lane) {
    let begin = Instant::now();
    while !lane.shared.bell.waits_for_company() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the writer does not look");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What the events that wait in a lane cost. The writer must not be there.
fn lane_cost(lane: &Lane) -> usize {
    let mut cost = 0;
    lane.queue.buffers.each(|buffer| {
        cost += buffer.events.iter().map(|event| buffer.cost(event)).sum::<usize>();
    });
    cost
}

/// The oldest segments go when all together are too large, and only then.
#[req_test("REQ-REC-006")]
#[test]
fn segments_are_begun_and_removed_by_size() {
    let folder = Folder::new();
    let mut config = folder.config();
    (config.segments.bytes, config.segments.total_bytes) = (8 << 10, 32 << 10);
    config.batch.bytes = 1 << 10;
    let counters = Counters::default();
    let recorder = Recorder::start(&config, 1, counters.clone()).unwrap();
    let lane = Rc::new(recorder.lane(0));
    for number in 0..200 {
        whole(&lane, &format!("/{number}"), &[Bytes::from(vec![b'x'; 500])]);
    }
    recorder.shutdown();
    let sizes = super::write::list(&folder.0).unwrap();
    let total: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
    assert!(total <= 34 << 10, "{sizes:?}");
    assert!(counters.removed.get() > 3 && sizes.len() >= 3, "{sizes:?}");
    let records = folder.records();
    let last = records.last().unwrap().begin.as_ref().unwrap();
    assert_eq!(last.target, "/199", "the newest stay");
}

#[req_test("REQ-REC-004")]
#[tokio::test]
async fn in_the_mode_standard_the_last_frame_waits_until_all_is_written() {
    let folder = Folder::new();
    let mut config = folder.config();
    config.mode = RecordMode::Standard;
    let recorder = Recorder::start(&config, 1, Counters::default()).unwrap();
    let lane = Rc::new(recorder.lane(0));
    let recording = begin(&lane, "/").unwrap();
    let chunk = Bytes::from_static(b"all of it");
    recording.chunk(Side::Response, &chunk);
    let kept = recording.keep(Some(http_body::Frame::data(chunk)));
    assert!(kept.is_none() && recording.keeps());
    let frame = std::future::poll_fn(|cx| recording.poll_kept(cx)).await;
    assert!(frame.flatten().is_some_and(|frame| frame.data_ref().is_some()));
    // It is there before the exchange has ended.
    let records = folder.records();
    assert_eq!(records[0].body(Side::Response).bytes, b"all of it");
    assert!(records[0].end.is_none());
    end(&recording, false);
    recorder.shutdown();
    assert!(folder.records()[0].is_whole());
}
