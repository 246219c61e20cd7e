//! A disk that is full, gone, or not ours: the memory goes on, and the disk when it can.

use std::{env, fs, process::Command};

use super::*;

/// A store with some memory: what is there has to be found whatever becomes of the disk.
fn with_memory(folder: &Folder) -> Store<Note> {
    let store = Store::new(&folder.options(1 << 20, 64 << 20));
    until("the folder is ready", || store.statistics().disk.unwrap().works);
    store
}

async fn memory_goes_on(store: &Store<Note>) {
    for number in 0..20 {
        let text = format!("https://memory/{number}");
        assert!(put(store, &text, content(&text, 1000)), "{text} is stored");
        assert_eq!(body(store, &text).await, Some(content(&text, 1000)), "{text} is found");
    }
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn a_folder_that_is_removed_is_begun_anew() {
    let folder = Folder::new();
    let store = with_memory(&folder);
    assert!(put(&store, "https://a/1", content("https://a/1", 100)));
    store.flush().await;
    fs::remove_dir_all(&folder.0).unwrap();
    memory_goes_on(&store).await;
    until("it is noticed", || store.statistics().disk.unwrap().errors > 0);
    until("it is there again", || {
        memory_and_disk(&store) && folder.0.exists() && !folder.segments().is_empty()
    });
    store.flush().await;
    store.close();
    let store = folder.store();
    assert_eq!(body(&store, "https://a/1").await, None, "it was in the folder that is gone");
    assert!(body(&store, "https://again/1").await.is_some());
}

/// Stores something, so that there is something to write; whether the disk works.
fn memory_and_disk(store: &Store<Note>) -> bool {
    assert!(put(store, "https://again/1", content("again", 100)));
    store.statistics().disk.unwrap().works
}

/// A file where the folder is to be.
#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn a_folder_that_cannot_be_had_is_tried_again() {
    let folder = Folder::new();
    fs::write(&folder.0, b"in the way").unwrap();
    let store = Store::<Note>::new(&folder.options(1 << 20, 64 << 20));
    until("it is tried", || store.statistics().disk.unwrap().errors > 0);
    memory_goes_on(&store).await;
    fs::remove_file(&folder.0).unwrap();
    until("it is there", || store.statistics().disk.unwrap().works);
    assert!(put(&store, "https://a/1", content("https://a/1", 100)));
    store.flush().await;
    store.close();
    assert!(body(&folder.store(), "https://a/1").await.is_some());
}

/// A segment that is gone while it is in the index: what was in it is not found.
#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn files_that_shrink_give_nothing_and_fail_nothing() {
    let folder = Folder::new();
    let store = folder.store();
    for number in 0..50 {
        let text = format!("https://a/{number}");
        assert!(put(&store, &text, content(&text, 1000)));
    }
    store.flush().await;
    fs::OpenOptions::new().write(true).open(newest(&folder)).unwrap().set_len(20_000).unwrap();
    let mut there = 0;
    for number in 0..50 {
        let text = format!("https://a/{number}");
        if let Some(body) = body(&store, &text).await {
            assert_eq!(body, content(&text, 1000));
            there += 1;
        }
    }
    assert!(there > 5 && there < 45, "{there}");
    assert_eq!(store.statistics().disk.unwrap().damaged, 50 - there);
}

/// A disk that takes nothing does not hold up who stores, and takes no more memory than is said.
#[req_test("REQ-CACHE-007", "REQ-CACHE-002")]
#[tokio::test]
async fn a_store_without_its_disk_keeps_its_budget() {
    let folder = Folder::new();
    fs::write(&folder.0, b"in the way").unwrap();
    let store = Store::<Note>::new(&folder.options(1 << 20, 64 << 20));
    for number in 0..3000 {
        let text = format!("https://a/{number}");
        assert!(put(&store, &text, content("x", 10_000)));
        assert!(store.statistics().memory_bytes <= 1 << 20);
    }
    assert!(store.statistics().disk.unwrap().dropped > 2000);
}

const FOLDER: &str = "UNDERPASS_TEST_FULL";

/// In a file system of 24 MB.
#[test]
#[ignore = "the other process of `a_full_disk_is_used_as_far_as_it_goes`"]
fn other_process() {
    let Ok(directory) = env::var(FOLDER) else { return };
    let folder = std::mem::ManuallyDrop::new(Folder(PathBuf::from(directory).join("cache")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = with_memory(&folder);
        let many = async |from: u32| {
            for number in from..from + 1500 {
                let text = format!("https://a/{number}");
                assert!(put(&store, &text, content(&text, 20_000)));
                if number % 50 == 0 {
                    store.flush().await;
                }
            }
            store.flush().await;
        };
        // More than the disk has, if less than was allowed.
        many(0).await;
        let disk = store.statistics().disk.unwrap();
        assert!(disk.evictions > 0 && disk.objects > 300, "{disk:?}");
        let text = "https://a/1490";
        assert_eq!(body(&store, text).await, Some(content(text, 20_000)));

        // Somebody else takes all there is.
        let other = folder.0.with_file_name("other");
        fs::write(&other, vec![1; 20 << 20]).unwrap_err();
        let failing = || !store.statistics().disk.unwrap().works;
        for round in 0..500u32 {
            for number in 0..50 {
                let text = format!("https://a/{}", 10_000 + round * 50 + number);
                assert!(put(&store, &text, content(&text, 20_000)));
            }
            // What the store gives up somebody else takes.
            let _ = fs::OpenOptions::new()
                .append(true)
                .open(&other)
                .and_then(|mut file| std::io::Write::write_all(&mut file, &vec![1; 24 << 20]));
            memory_goes_on(&store).await;
            if failing() {
                break;
            }
        }
        assert!(failing(), "{:?}", store.statistics());
        memory_goes_on(&store).await;

        // And gives it back.
        fs::remove_file(&other).unwrap();
        until("it is written again", || memory_and_disk(&store));
        many(90_000).await;
        let text = "https://a/91490";
        assert_eq!(body(&store, text).await, Some(content(text, 20_000)));
        assert_eq!(store.statistics().disk.unwrap().damaged, 0);
        store.close();
        let store = with_memory(&folder);
        assert_eq!(body(&store, text).await, Some(content(text, 20_000)));
        println!("as far as it goes");
    });
}

/// ENOSPC, in a mount namespace of its own.
#[req_test("REQ-CACHE-007")]
#[test]
fn a_full_disk_is_used_as_far_as_it_goes() {
    let folder = Folder::new();
    fs::create_dir(&folder.0).unwrap();
    let script = "mount -t tmpfs -o size=24m none \"$UNDERPASS_TEST_FULL\" && exec \"$0\" \"$@\"";
    let run = |flags: &str| {
        Command::new("unshare")
            .args([flags, "sh", "-c", script])
            .arg(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("cache::store::disk::tests::failing::other_process")
            .env(FOLDER, &folder.0)
            .output()
    };
    let may = |flags: &str| {
        let tried = Command::new("unshare").args([flags, "true"]).status();
        tried.is_ok_and(|status| status.success())
    };
    let Some(flags) = ["-m", "-Urm"].into_iter().find(|flags| may(flags)) else {
        return eprintln!("skipped: no mount namespace to be had, as root or by a user namespace");
    };
    let output = run(flags).unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("as far as it goes"), "{out}\n{err}");
}
