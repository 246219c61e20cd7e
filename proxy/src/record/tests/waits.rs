//! Traffic that waits for a disk that stands still: once, and not for ever.

use std::{future::poll_fn, time::Duration};

use super::*;

const MAX_WAIT: Duration = Duration::from_secs(10);

/// A lane that nobody writes, and that is full.
fn full() -> (Rc<Lane>, Box<Recording>) {
    let mut config = Config::with_defaults(PathBuf::from("/nowhere"));
    config.mode = RecordMode::Standard;
    (config.memory_bytes, config.max_wait) = (64 << 10, MAX_WAIT);
    let lane = Rc::new(Lane::new(&super::shared(&config), 0, 1));
    let recording = begin_as(&lane, Chosen::Yes, "/").unwrap();
    recording.chunk(Side::Response, &Bytes::from(vec![b'x'; 70_000]));
    (lane, recording)
}

/// How long a direction is held back.
async fn held(recording: &Recording, side: Side) -> Duration {
    let begun = Instant::now();
    poll_fn(|cx| recording.poll_room(side, cx)).await;
    begun.elapsed()
}

#[req_test("REQ-REC-004")]
#[tokio::test(start_paused = true)]
async fn an_exchange_waits_in_vain_once() {
    let (_lane, recording) = full();
    let first = held(&recording, Side::Response).await;
    assert!(first >= MAX_WAIT && first < MAX_WAIT * 2, "{first:?}");
    for _ in 0..5 {
        recording.chunk(Side::Response, &Bytes::from_static(b"more"));
        assert_eq!(held(&recording, Side::Response).await, Duration::ZERO);
    }
    assert_eq!(held(&recording, Side::Request).await, Duration::ZERO);
    // Nor does its end wait.
    assert!(recording.keep(None).is_some());
}

#[req_test("REQ-REC-004")]
#[tokio::test(start_paused = true)]
async fn others_do_not_wait_for_a_disk_that_is_known_to_stand_still() {
    let (lane, recording) = full();
    let other = begin_as(&lane, Chosen::Yes, "/other");
    assert!(other.is_none(), "the lane is full");
    held(&recording, Side::Response).await;
    let begun = Instant::now();
    lane.room().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    // Until it writes again.
    lane.queue.release(1, 10_000);
    let other = begin_as(&lane, Chosen::Yes, "/other").unwrap();
    other.chunk(Side::Response, &Bytes::from(vec![b'x'; 70_000]));
    assert!(held(&other, Side::Response).await >= MAX_WAIT);
}

/// Each direction belongs to a task of its own, and both are woken.
#[req_test("REQ-REC-004")]
#[tokio::test(start_paused = true)]
async fn both_directions_wait_and_both_go_on() {
    let (lane, recording) = full();
    let recording: Rc<Recording> = Rc::from(recording);
    // What was written meanwhile is too little, so that the lane is not known to stand still.
    let tasks = tokio::task::LocalSet::new();
    for side in Side::ALL {
        let recording = Rc::clone(&recording);
        tasks.spawn_local(async move { held(&recording, side).await });
    }
    tasks.spawn_local(async move {
        tokio::time::sleep(MAX_WAIT / 2).await;
        lane.queue.release(1, 10);
    });
    tokio::time::timeout(MAX_WAIT * 3, tasks).await.expect("both are woken");
}
