//! The folder: whose files are in it, and in which order they are read and removed.

use std::{ops::ControlFlow, sync::mpsc, time::Duration};

use super::*;
use crate::record::read::{Place, lines_from};

/// A folder that was named by mistake keeps what is in it, also where that is far too large.
#[req_test("REQ-REC-006")]
#[test]
fn files_of_others_are_neither_removed_nor_read() {
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    let others = ["train.jsonl", "a-1-2.jsonl", "data.jsonl.zst", "note.txt"];
    others.iter().for_each(|name| fs::write(folder.0.join(name), [b'x'; 40_000]).unwrap());
    // A name of ours, and no file: who opens it to read waits for one who writes.
    let fifo = folder.0.join("20000101T000000.000Z-1-0.jsonl");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    let outside = folder.0.join("kept");
    fs::write(&outside, [b'x'; 40_000]).unwrap();
    let link = folder.0.join("20000101T000000.000Z-1-1.jsonl");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let mut config = folder.config();
    (config.segments.bytes, config.segments.total_bytes) = (8 << 10, 32 << 10);
    let counters = Counters::default();
    let (done, is_done) = mpsc::channel();
    let counted = counters.clone();
    std::thread::spawn(move || {
        let recorder = Recorder::start(&config, 1, counted).unwrap();
        let lane = Rc::new(recorder.lane(0));
        whole(&lane, "/", &[Bytes::from_static(b"x")]);
        recorder.shutdown();
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(20)).expect("nobody waits for a pipe");
    assert_eq!(counters.removed.get(), 0);
    assert!(others.iter().all(|name| folder.0.join(name).exists()));
    assert!(link.is_symlink() && fifo.exists() && outside.exists());
    assert_eq!(folder.records().len(), 1);
}

/// A clock that was set back: what is written now is the newest all the same.
#[req_test("REQ-REC-006")]
#[test]
fn the_newest_stay_though_the_clock_goes_back() {
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    let before = folder.0.join("29990101T000000.000Z-4711-7.jsonl");
    fs::write(&before, [b'\n'; 50_000]).unwrap();
    let mut config = folder.config();
    (config.segments.bytes, config.segments.total_bytes) = (8 << 10, 64 << 10);
    config.batch.bytes = 1 << 10;
    let recorder = Recorder::start(&config, 1, Counters::default()).unwrap();
    let lane = Rc::new(recorder.lane(0));
    for number in 0..40 {
        whole(&lane, &format!("/{number}"), &[Bytes::from(vec![b'x'; 500])]);
    }
    recorder.shutdown();
    assert!(!before.exists(), "the oldest goes first");
    let (records, _, _) = assemble(&folder.0, Lookup::Heads).unwrap();
    let targets: Vec<_> =
        records.iter().map(|record| record.begin.as_ref().unwrap().target.clone()).collect();
    let wanted: Vec<_> = (0..40).map(|number| format!("/{number}")).collect();
    assert_eq!(targets, wanted, "in the order in which they came");
}

/// Who reads on where a segment has been removed meanwhile gets what came after it, and nothing
/// twice.
#[req_test("REQ-REC-006")]
#[test]
fn reading_goes_on_behind_a_segment_that_is_gone() {
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    let write = |number: u32| {
        let path = folder.0.join(format!("20260203T040506.789Z-1-{number}.jsonl"));
        fs::write(&path, format!("{number}\n")).unwrap();
        path
    };
    let read = |place: &mut Place, most: usize| {
        let mut found = Vec::new();
        lines_from(&folder.0, place, |line| {
            found.push(String::from_utf8_lossy(line).into_owned());
            if found.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        found
    };
    let (_first, second) = (write(8), write(9));
    let mut place = Place::default();
    assert_eq!(read(&mut place, 2), ["8", "9"]);
    fs::remove_file(second).unwrap();
    write(10);
    assert_eq!(read(&mut place, 9), ["10"]);
    assert!(read(&mut place, 9).is_empty());
}
