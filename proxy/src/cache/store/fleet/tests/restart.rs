//! What a restart knows of purges and removals: those that the disk has, and those that somebody lacks.

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;
use crate::cache::store::{
    fleet::{lanes::MOST_ITEMS, removed},
    key::Slot,
};

#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn a_restart_applies_what_was_purged_meanwhile_and_no_more() {
    let folder = Folder::new();
    let one = folder.store();
    let other = folder.with_disk("disk", 4 << 20);
    one.purge(&What::Tag("early".into()));
    until("it is known", || folder.0.join("disk/fleet-purges").exists());
    second().await;
    for text in ["https://a/early", "https://a/late"] {
        let body = other.copy(&[content(text, 10)]);
        other.fill().commit(Key::of(text), head(text, body)).expect("room");
    }
    other.flush().await;
    other.close();
    drop(other);
    second().await;
    one.purge(&What::Tag("late".into()));
    let shared = folder.0.join("shared/v1/purges");
    until("it is told", || fs::metadata(&shared).is_ok_and(|file| file.len() > 45));
    let again = folder.with_disk("disk", 4 << 20);
    for (text, is_there) in [("https://a/early", true), ("https://a/late", false)] {
        until(text, || {
            let found = again.head(Key::of(text), text, Form::Memory);
            matches!(found, Found::Absent) != is_there
        });
    }
}

#[req_test("REQ-CACHE-004", "REQ-CACHE-007")]
#[tokio::test]
async fn a_purge_that_nobody_could_be_told_outlives_a_restart() {
    let folder = Folder::new();
    let one = folder.with_disk("disk", 4 << 20);
    let other = folder.store();
    let body = other.copy(&[content("https://a/red", 10)]);
    other.fill().commit(Key::of("https://a/red"), head("https://a/red", body)).expect("room");
    is_written(&other);
    let comes_back = goes_away(&folder);
    until("it is seen", || !of(&one).works && !of(&other).works);
    one.purge(&What::All);
    assert!(one.is_any_purge_untold());
    one.close();
    drop(one);
    comes_back();
    until("it is used again", || of(&other).works);
    let key = Key::of("https://a/red");
    assert!(!matches!(other.head(key, "https://a/red", Form::Memory), Found::Absent));
    let again = folder.with_disk("disk", 4 << 20);
    until("it is told", || !again.is_any_purge_untold());
    until("the other has heard of it", || {
        matches!(other.head(key, "https://a/red", Form::Memory), Found::Absent)
    });
}

/// As a process leaves a folder that is killed, but for `without`.
fn copy_disk(from: &Path, to: &Path, without: &str) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let name = entry.file_name();
        if name != without {
            fs::copy(entry.path(), to.join(name)).expect("a copy");
        }
    }
}

/// The disk does not take it, and the process is killed. Nobody else need know of it any more: the
/// service may have lost it.
#[req_test("REQ-CACHE-004", "REQ-CACHE-007")]
#[tokio::test]
async fn a_purge_that_the_disk_has_not_taken_outlives_a_crash() {
    for by_another in [false, true] {
        let folder = Folder::new();
        let (one, other) = (folder.with_disk("disk", 4 << 20), folder.store());
        for text in ["https://a/red", "https://a/blue"] {
            let body = one.copy(&[content(text, 10)]);
            one.fill().commit(Key::of(text), head(text, body)).expect("room");
        }
        one.flush().await;
        // Where it would be written.
        fs::create_dir(folder.0.join("disk/purges")).expect("a folder in its place");
        let purger = if by_another { &other } else { &one };
        let _ = purger.purge(&What::Tag("red".into()));
        let is_gone = |store: &Store<Note>, text| {
            matches!(store.head(Key::of(text), text, Form::Memory), Found::Absent)
        };
        until("it is told", || !purger.is_any_purge_untold() && is_gone(&one, "https://a/red"));
        until("the disk has tried", || one.statistics().disk.expect("a disk").errors > 0);
        // One more round.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let alone = Folder::new();
        for next in [&folder, &alone] {
            copy_disk(&folder.0.join("disk"), &next.0.join("next"), "purges");
            let again = next.with_disk("next", 4 << 20);
            until("it is known", || is_gone(&again, "https://a/red"));
            assert!(!is_gone(&again, "https://a/blue"));
            // When the disk has it nothing is left to be done.
            again.close();
            let untold = fs::read(next.0.join("next/fleet-purges.untold")).expect("a file");
            assert_eq!(untold.len(), super::super::purges::EMPTY);
        }
    }
}

/// What is owed is applied once, and not again and again.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn a_purge_that_all_have_is_not_applied_to_what_came_later() {
    let folder = Folder::new();
    let one = folder.with_disk("disk", 4 << 20);
    let text = "https://a/red";
    let _ = one.purge(&What::Tag("red".into()));
    second().await;
    let body = one.copy(&[content(text, 10)]);
    one.fill().commit(Key::of(text), head(text, body)).expect("room");
    one.close();
    drop(one);
    let again = folder.with_disk("disk", 4 << 20);
    until("the next round", || folder.0.join("disk/fleet-purges").exists());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!matches!(again.head(Key::of(text), text, Form::Memory), Found::Absent));
}

/// What the service has goes away until this is called, and a file is in its place.
fn goes_away(folder: &Folder) -> impl FnOnce() + Send + use<> {
    let (shared, away) = (folder.0.join("shared"), folder.0.join("away"));
    fs::write(&away, b"").expect("a file");
    // At once: where nothing is, there is nothing to be removed.
    let places = [shared, away];
    let exchange = |[shared, away]: &[PathBuf; 2]| {
        renameat_with(CWD, shared, CWD, away, RenameFlags::EXCHANGE).expect("renameat2(2)");
    };
    exchange(&places);
    move || {
        exchange(&places);
        fs::remove_file(&places[1]).expect("the file");
    }
}

#[req_test("REQ-CACHE-004", "REQ-CACHE-007")]
#[tokio::test]
async fn a_removal_that_waits_for_the_service_outlives_the_process() {
    for crashes in [false, true] {
        let folder = Folder::new();
        let one = folder.with_disk("disk", 4 << 20);
        put(&one, "https://a/1", 10);
        assert_eq!(folder.files("h").len(), 1);
        let comes_back = goes_away(&folder);
        until("it is seen", || !of(&one).works);
        one.remove(Key::of("https://a/1"));
        let next = if crashes { "next" } else { "disk" };
        if crashes {
            let noted = folder.0.join("disk/fleet-purges.removed");
            until("it is written down", || noted.exists());
            copy_disk(&folder.0.join("disk"), &folder.0.join(next), "purges");
        }
        one.close();
        drop(one);
        comes_back();
        assert_eq!(folder.files("h").len(), 1, "nobody has removed it");
        let again = folder.with_disk(next, 4 << 20);
        until("it is gone", || folder.files("h").is_empty());
        again.close();
        let left = fs::read(folder.0.join(next).join("fleet-purges.removed")).expect("a file");
        assert_eq!(left.len(), super::super::purges::EMPTY);
    }
}

/// A service that cannot even be set up, as a folder that is not there yet.
#[req_test("REQ-CACHE-004", "REQ-CACHE-007")]
#[tokio::test]
async fn what_is_made_worthless_before_the_service_is_there_outlives_a_crash() {
    let folder = Folder::new();
    let other = folder.store();
    for text in ["https://a/removed", "https://a/purged"] {
        put(&other, text, 10);
    }
    drop(other);
    let comes_back = goes_away(&folder);
    let directory = folder.0.join("disk");
    let disk = DiskOptions { directory: directory.clone(), bytes: 64 << 20, index_bytes: 1 << 20 };
    let one = Store::<Note>::new(&Options { disk: Some(disk), ..folder.options() });
    until("both are tried", || of(&one).errors > 0 && one.statistics().disk.unwrap().works);
    one.remove(Key::of("https://a/removed"));
    let _ = one.purge(&What::Tag("purged".into()));
    let is_noted = |name| fs::metadata(directory.join(name)).is_ok_and(|file| file.len() > 4);
    assert!(is_noted("fleet-purges.untold"), "when it is answered");
    until("it is written down", || is_noted("fleet-purges.removed"));
    assert!(!of(&one).works);
    copy_disk(&directory, &folder.0.join("next"), "purges");
    drop(one);
    comes_back();
    let again = folder.with_disk("next", 4 << 20);
    until("it is gone", || folder.files("h").len() == 1);
    assert!(seek(&again, "https://a/purged").await.is_none());
    until("it is told", || !again.is_any_purge_untold());
}

/// A removal that comes before anybody has seen that the service does not work, and one that waits
/// when the process is to end: it has some time for that, also where nothing can be written down.
#[req_test("REQ-CACHE-004", "REQ-CACHE-007")]
#[tokio::test]
async fn a_removal_is_not_given_up_while_the_service_may_come_back() {
    for ends in [false, true] {
        let folder = Folder::new();
        let one = folder.store();
        put(&one, "https://a/1", 10);
        let comes_back = goes_away(&folder);
        assert!(of(&one).works, "as far as anybody knows");
        one.remove(Key::of("https://a/1"));
        until("it is seen", || !of(&one).works);
        let comes_back = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            comes_back();
        });
        if ends {
            one.close();
        }
        comes_back.join().expect("it is there again");
        if !ends {
            until("it is gone", || folder.files("h").is_empty());
        }
        assert_eq!(folder.files("h").len(), 0);
    }
}

/// Sites that write do so all the time, and a service may be away for long.
#[req_test("REQ-CACHE-004", "REQ-CACHE-007")]
#[tokio::test]
async fn what_is_removed_again_and_again_takes_the_room_of_one() {
    let folder = Folder::new();
    let one = folder.store();
    let often = "https://a/often";
    for text in [often, "https://a/once", "https://a/one-more"] {
        put(&one, text, 10);
    }
    let comes_back = goes_away(&folder);
    one.remove(Key::of(often));
    until("it is seen", || !of(&one).works);
    let shared = &one.0.fleet.get().expect("a fleet").shared;
    for _ in 0..2 * MOST_ITEMS {
        one.remove(Key::of(often));
    }
    one.remove(Key::of("https://a/once"));
    assert_eq!(of(&one).dropped, 0);
    // What waits already goes on to when nothing else finds room any more.
    for number in 0..2 * MOST_ITEMS {
        one.remove(Key::of(&format!("https://b/{number}")));
    }
    assert!(of(&one).dropped > 0);
    one.remove(Key::of("https://a/one-more"));
    one.remove(Key::of(often));
    let waits = |text| {
        let slot = Slot::head(Key::of(text));
        removed::decode(&shared.purges.removed.encode()).iter().any(|(head, _)| *head == slot)
    };
    assert!(waits(often) && waits("https://a/once") && !waits("https://a/one-more"));
    comes_back();
    until("they are gone", || folder.files("h").len() == 1);
}
