//! Caps: of the files, and of the index.

use super::*;

/// Bytes of a response: some may be lent to sockets, which lie where pages begin.
fn size(number: u32) -> usize {
    if number.is_multiple_of(5) { 40_000 } else { 20_000 }
}

/// Stores so many responses, and reads those before `hot` again all the while.
async fn store_many(store: &Store<Note>, numbers: std::ops::Range<u32>, hot: u32) {
    for number in numbers {
        let text = format!("https://a/{number}");
        assert!(put(store, &text, content(&text, size(number))));
        if number % 100 == 99 {
            store.flush().await;
            for number in 0..hot {
                let text = format!("https://a/{number}");
                let _ = found(store.head(Key::of(&text), &text, Form::Memory)).await;
            }
        }
    }
    store.flush().await;
}

fn total(folder: &Folder) -> u64 {
    folder.segments().iter().map(|path| len(path)).sum()
}

#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn files_stay_below_their_cap_and_what_is_wanted_stays() {
    let folder = Folder::new();
    let cap = 32 << 20;
    let store = Store::<Note>::new(&folder.options(0, cap));
    until("the folder is ready", || store.statistics().disk.unwrap().works);
    for round in 0..8 {
        store_many(&store, round * 500..(round + 1) * 500, 30).await;
        assert!(total(&folder) <= cap, "{} of {cap}", total(&folder));
        assert_eq!(store.statistics().disk.unwrap().bytes, total(&folder));
    }
    assert!(total(&folder) > cap / 2, "it is made use of");
    let mut there = 0;
    for number in 0..4000 {
        let text = format!("https://a/{number}");
        if let Some(body) = body(&store, &text).await {
            assert!(body == content(&text, size(number)), "{text} is wrong");
            there += 1;
        } else {
            assert!(number >= 30, "{text} was asked for all the time");
        }
    }
    let disk = store.statistics().disk.unwrap();
    assert!(there > 700 && disk.evictions > 10, "{there} are there, {disk:?}");
    assert_eq!((disk.objects, disk.damaged, disk.errors), (there, 0, 0));
    store.close();
    // The same after a restart, and with a lower cap less.
    let store = folder.store();
    assert_eq!(store.statistics().disk.unwrap().objects, there);
    store.close();
}

/// What is over is not written again, however wanted it was.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn what_nobody_will_want_is_not_written_again() {
    let folder = Folder::new();
    let store = Store::<Note>::new(&folder.options(0, 32 << 20));
    until("the folder is ready", || store.statistics().disk.unwrap().works);
    let over = Head { keep_until: 1, ..head("https://a/over", None) };
    assert!(store.fill().commit(Key::of("https://a/over"), over).is_some());
    store.flush().await;
    assert!(
        found(store.head(Key::of("https://a/over"), "https://a/over", Form::Memory))
            .await
            .is_some()
    );
    store_many(&store, 0..2000, 0).await;
    assert!(
        found(store.head(Key::of("https://a/over"), "https://a/over", Form::Memory))
            .await
            .is_none()
    );
}

/// The index has a bound in bytes, and what is oldest goes for it.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn the_index_stays_below_its_bound() {
    let folder = Folder::new();
    let mut options = folder.options(0, 1 << 30);
    let bound = 400_000;
    options.disk.as_mut().unwrap().index_bytes = bound;
    let constant = 256 << 10;
    for _ in 0..2 {
        let store = Store::<Note>::new(&options);
        until("the folder is ready", || store.statistics().disk.unwrap().works);
        for number in 0..60_000 {
            let text = format!("https://a/{number}");
            assert!(put(&store, &text, content("x", 1000)));
            if number % 500 == 0 {
                store.flush().await;
            }
        }
        store.flush().await;
        let disk = store.statistics().disk.unwrap();
        // A segment is begun before the oldest goes.
        let one_segment = (64 << 20) / 1300 * 39;
        assert!(disk.index_bytes <= (bound + constant + one_segment) as u64, "{disk:?}");
        assert!(disk.evictions > 0, "{disk:?}");
        store.close();
    }
}

/// Responses of any size come and go; what is charged for them is given back.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn nothing_stays_charged_when_nothing_is_held() {
    let folder = Folder::new();
    let store = folder.store();
    let mut random = fastrand::Rng::with_seed(5);
    for number in 0..2000 {
        let text = format!("https://a/{}", random.u32(..200));
        match random.u8(..4) {
            0 => store.remove(Key::of(&text)),
            1 => drop(body(&store, &text).await),
            _ => _ = put(&store, &text, content("x", random.usize(..60_000))),
        }
        if number % 100 == 0 {
            let mut fill = store.fill();
            fill.put(7, store.copy(&[content("y", 50_000)]).unwrap());
        }
    }
    store.flush().await;
    let statistics = store.statistics();
    assert_eq!(statistics.memory_listed_bytes, 0, "the budget is none");
    // Tables of the memory tier.
    assert!(statistics.memory_bytes < 100_000, "{statistics:?}");
    let disk = statistics.disk.unwrap();
    assert_eq!((disk.queued_bytes, disk.queued_reads), (0, 0));
}
