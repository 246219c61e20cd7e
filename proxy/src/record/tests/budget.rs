//! The memory of a lane: who has which share of it, and who is told of what finds none.

use super::*;

const LIMIT: usize = 64 << 10;

/// A lane that nobody writes.
fn lane(mode: RecordMode) -> Rc<Lane> {
    let mut config = Config::with_defaults(PathBuf::from("/nowhere"));
    (config.mode, config.memory_bytes) = (mode, LIMIT);
    Rc::new(Lane::new(&super::shared(&config), 0, 1))
}

/// As if all that waits were written.
fn write(lane: &Lane) {
    let mut events = 0;
    lane.queue.buffers.each(|mut buffer| {
        events += buffer.events.len() as u64;
        buffer.clear(0);
    });
    lane.queue.release(events, lane.queue.held());
}

/// Fills the share of those that are not known to be recorded.
fn fill_with_undecided(lane: &Rc<Lane>) -> Vec<Recording> {
    let mut all = Vec::new();
    for _ in 0..200 {
        let undecided = begin_as(lane, Chosen::Perhaps, "/perhaps").unwrap();
        undecided.chunk(Side::Request, &Bytes::from(vec![b'x'; 4096]));
        all.push(*undecided);
    }
    all
}

fn is_room(recording: &Recording) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    recording.poll_room(Side::Response, &mut cx).is_ready()
}

/// Nobody waits for memory that the writer cannot free, and those that are recorded have theirs.
#[req_test("REQ-REC-004")]
#[tokio::test]
async fn undecided_exchanges_neither_stall_nor_starve_the_others() {
    let lane = lane(RecordMode::Standard);
    let undecided = fill_with_undecided(&lane);
    write(&lane);
    let chosen = begin_as(&lane, Chosen::Yes, "/chosen").expect("room for one that is recorded");
    write(&lane);
    assert!(is_room(&chosen), "all that can be written is written");
    assert!(undecided.iter().all(is_room), "these wait for nobody");
    chosen.chunk(Side::Response, &Bytes::from(vec![b'x'; 16 << 10]));
    let mut events = 0;
    lane.queue.buffers.each(|buffer| events += buffer.events.len());
    assert_eq!(events, 1, "the chunk found room");
    undecided.iter().for_each(|one| end(one, false));
    end(&chosen, false);
    write(&lane);
    assert_eq!((lane.reserved.get(), lane.queue.held()), (0, 0));
}

/// The same for the room that ends need, of very many that are open.
#[req_test("REQ-REC-004")]
#[tokio::test]
async fn open_exchanges_do_not_stall_each_other() {
    let lane = lane(RecordMode::Standard);
    let mut open = Vec::new();
    while let Some(one) = begin_as(&lane, Chosen::Yes, "/open") {
        open.push(one);
        write(&lane);
        assert!(open.len() < 1000, "they have no bound");
    }
    assert!(open.iter().all(|one| is_room(one)));
    open.iter().for_each(|one| end(one, false));
    write(&lane);
    assert_eq!((lane.reserved.get(), lane.queue.held()), (0, 0));
}

/// One that fails and found no room is counted and told; one that does not fail is not missed.
#[req_test("REQ-REC-005")]
#[test]
fn failed_exchanges_without_room_are_counted() {
    let folder = Folder::new();
    let mut config = folder.config();
    config.memory_bytes = LIMIT;
    config.sampling.ratio = 0.0;
    let counters = Counters::default();
    let recorder = Recorder::start(&config, 1, counters.clone()).unwrap();
    let lane = Rc::new(recorder.lane(0));
    let others = fill_with_undecided(&lane);
    let fine = begin(&lane, "/fine").unwrap();
    fine.answer(StatusCode::OK, &HeaderMap::new(), true);
    end(&fine, false);
    assert_eq!(counters.unrecorded.get(), 0);
    let failed = begin(&lane, "/failed").unwrap();
    failed.chunk(Side::Request, &Bytes::from_static(b"ask"));
    failed.answer(StatusCode::BAD_GATEWAY, &HeaderMap::new(), true);
    end(&failed, true);
    assert_eq!(counters.unrecorded.get(), 1);
    others.iter().for_each(|one| end(one, false));
    assert_eq!(lane.reserved.get(), 0);
    recorder.shutdown();
    // The lane had nothing else to tell.
    let (records, unrecorded, _) = assemble(&folder.0, Lookup::All).unwrap();
    assert_eq!((records.len(), unrecorded), (0, 1));
}

/// Gaps from before it was known that the exchange is recorded are counted as well.
#[req_test("REQ-REC-005")]
#[test]
fn the_metric_has_all_gaps_of_an_exchange_that_is_kept() {
    let folder = Folder::new();
    let mut config = folder.config();
    config.sampling.ratio = 0.0;
    config.sampling.max_undecided_bytes = 4096;
    let counters = Counters::default();
    let recorder = Recorder::start(&config, 1, counters.clone()).unwrap();
    let lane = Rc::new(recorder.lane(0));
    let failed = begin(&lane, "/failed").unwrap();
    for size in [1000, 9000, 10, 8000] {
        failed.chunk(Side::Response, &Bytes::from(vec![b'x'; size]));
    }
    end(&failed, true);
    recorder.shutdown();
    let records = folder.records();
    let body = records[0].body(Side::Response);
    let gaps: Vec<_> = body.gaps.iter().map(|gap| gap.missing.bytes).collect();
    assert_eq!((body.length, gaps), (1010, vec![9000, 8000]));
    assert_eq!(counters.missing_bytes(), 17_000);
}

/// A line that was written twice, because it could not be taken back, is read once.
#[req_test("REQ-REC-005")]
#[test]
fn lines_that_are_there_twice_are_read_once() {
    let folder = Folder::new();
    let recorder = Recorder::start(&folder.config(), 1, Counters::default()).unwrap();
    let lane = Rc::new(recorder.lane(0));
    whole(&lane, "/", &[Bytes::from_static(b"once")]);
    recorder.shutdown();
    let [segment] = &folder.segments()[..] else { panic!("one segment") };
    let lines = fs::read(segment).unwrap();
    fs::write(segment, [lines.as_slice(), &lines].concat()).unwrap();
    let records = folder.records();
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert!(record.is_whole());
    assert_eq!(record.body(Side::Response).bytes, b"once");
}
