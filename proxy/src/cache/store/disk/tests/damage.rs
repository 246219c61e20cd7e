//! Files that are not what was written, and a process that ends in the middle: some of it is lost,
//! and nothing of it is wrong.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use super::*;

/// Responses and objects of which everybody can tell what they have to be.
fn write_all(store: &Store<Note>) -> Vec<ObjectId> {
    for number in 0..200 {
        let text = format!("https://a/{number}");
        assert!(put(store, &text, content(&text, number * 61)));
    }
    (0..5).map(|number| put_blocks(store, &format!("https://b/{number}"), 4)).collect()
}

/// How much of it is found; panics where it is wrong.
async fn read_all(store: &Store<Note>, objects: &[ObjectId]) -> usize {
    let mut there = 0;
    for number in 0..200 {
        let text = format!("https://a/{number}");
        if let Some(body) = body(store, &text).await {
            assert!(body == content(&text, number * 61), "{text} is wrong");
            there += 1;
        }
    }
    for (object, number) in objects.iter().zip(0..) {
        let text = format!("https://b/{number}");
        if let Some(head) = found(store.head(Key::of(&text), &text, Form::Memory)).await {
            assert_eq!(head.object(), *object);
            there += 1;
        }
        for block in 0..4 {
            if let Some(bytes) = found(store.block(*object, block, Form::Memory)).await {
                assert!(bytes.to_vec() == content(&format!("{text}{block}"), 60_000), "{text}");
                there += 1;
            }
        }
    }
    there
}

/// Bits that turn, pieces that are overwritten, ends that are missing, at any place of any file.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn damaged_files_give_less_and_never_another_byte() {
    let folder = Folder::new();
    let store = folder.store();
    let objects = write_all(&store);
    store.flush().await;
    store.close();
    drop(store);
    let whole: Vec<_> =
        folder.segments().iter().map(|p| (p.clone(), fs::read(p).unwrap())).collect();
    let mut random = fastrand::Rng::with_seed(11);
    let (mut least, mut most) = (usize::MAX, 0);
    for round in 0..60 {
        for (path, bytes) in &whole {
            let mut bytes = bytes.clone();
            for _ in 0..random.usize(1..20) {
                let at = random.usize(..bytes.len());
                match round % 4 {
                    0 => bytes[at] ^= 1 << random.u8(..8),
                    1 => bytes.truncate(at.max(1)),
                    2 => {
                        let end = (at + random.usize(1..5000)).min(bytes.len());
                        bytes[at..end].iter_mut().for_each(|byte| *byte = random.u8(..));
                    }
                    // A piece of it where another belongs: whole records among them.
                    _ => {
                        let from = random.usize(..bytes.len() / 64) * 64;
                        let to = random.usize(..bytes.len() / 64) * 64;
                        let len = random.usize(64..20_000).min(bytes.len() - from.max(to));
                        bytes.copy_within(from..from + len, to);
                    }
                }
            }
            fs::write(path, bytes).unwrap();
        }
        let _ = fs::remove_file(folder.0.join("purges"));
        let store = folder.store();
        let there = read_all(&store, &objects).await;
        (least, most) = (least.min(there), most.max(there));
        // And it goes on with it.
        assert!(put(&store, "https://c/new", content("new", 1000)));
        store.flush().await;
        assert_eq!(body(&store, "https://c/new").await, Some(content("new", 1000)));
        store.close();
        drop(store);
        folder.segments().iter().for_each(|path| fs::remove_file(path).unwrap());
    }
    assert!(least < 225 && most > 20, "between {least} and {most} of 225 were left");
}

/// What is missing in the middle may have been a removal.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn a_removal_that_cannot_be_read_brings_nothing_back() {
    for damage in ["the record", "the segment", "its header"] {
        let folder = Folder::new();
        let store = folder.store();
        assert!(put(&store, "https://a/1", content("https://a/1", 100)));
        store.flush().await;
        store.close();
        let store = folder.store();
        store.remove(Key::of("https://a/1"));
        store.flush().await;
        let end = len(&newest(&folder));
        assert!(put(&store, "https://a/2", content("https://a/2", 100)));
        store.flush().await;
        store.close();
        let store = folder.store();
        assert!(put(&store, "https://a/3", content("https://a/3", 100)));
        store.flush().await;
        store.close();
        let path = folder.segments()[1].clone();
        let mut bytes = fs::read(&path).unwrap();
        match damage {
            "the record" => {
                bytes[end as usize - 30] ^= 4;
                fs::write(&path, bytes).unwrap();
            }
            "the segment" => fs::remove_file(&path).unwrap(),
            _ => {
                bytes[20] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
        }
        let store = folder.store();
        assert_eq!(body(&store, "https://a/1").await, None, "{damage}");
        assert!(body(&store, "https://a/3").await.is_some(), "{damage}");
        store.close();
    }
}

/// A body that is made to look like a record, in a file whose end is torn off before it.
#[req_test("REQ-CACHE-002")]
#[tokio::test]
async fn a_body_is_never_taken_for_a_record() {
    let folder = Folder::new();
    let store = folder.store();
    assert!(put(&store, "https://a/1", content("https://a/1", 100)));
    store.flush().await;
    store.close();
    // All of another segment, whatever its place in the body.
    let forged = Bytes::from(fs::read(newest(&folder)).unwrap());
    let store = folder.store();
    store.remove(Key::of("https://a/1"));
    for shift in 0..64 {
        let body = [Bytes::from(vec![0; shift]), forged.clone()].concat();
        assert!(put(&store, &format!("https://evil/{shift}"), body.into()));
    }
    store.flush().await;
    store.close();
    // Headers in front are destroyed, so that what follows is looked through.
    let path = newest(&folder);
    let mut bytes = fs::read(&path).unwrap();
    for at in (64..bytes.len()).step_by(64) {
        if bytes[at..].starts_with(b"UPr1") && at % 128 == 0 {
            bytes[at + 9] ^= 1;
        }
    }
    fs::write(&path, bytes).unwrap();
    fs::remove_file(&folder.segments()[0]).unwrap();
    let store = folder.store();
    assert_eq!(body(&store, "https://a/1").await, None);
}

/// Purges that cannot be read may have meant anything.
#[req_test("REQ-CACHE-004")]
#[tokio::test]
async fn a_purge_that_cannot_be_read_is_taken_to_mean_everything() {
    let folder = Folder::new();
    let store = folder.store();
    assert!(put(&store, "https://a/1", content("https://a/1", 100)));
    assert!(store.purge(&What::Tag("1".into())).written().await);
    store.close();
    let file = folder.0.join("purges");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    for _ in 0..2 {
        let store = folder.store();
        assert_eq!(body(&store, "https://a/1").await, None);
        assert!(put(&store, "https://a/2", content("https://a/2", 100)));
        store.flush().await;
        store.close();
    }
}

const FOLDER: &str = "UNDERPASS_TEST_STORE";

/// The process that is killed: it stores, removes and purges, and says what it has done.
#[test]
#[ignore = "the other process of `a_process_that_is_killed_leaves_no_wrong_byte`"]
fn other_process() {
    let Ok(directory) = env::var(FOLDER) else { return };
    let folder = std::mem::ManuallyDrop::new(Folder(directory.into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::<Note>::new(&folder.options(1 << 20, 32 << 20));
        until("the folder is ready", || store.statistics().disk.unwrap().works);
        let mut out = std::io::stdout().lock();
        for number in 0u64.. {
            let text = format!("https://a/{}", number % 3000);
            put(&store, &text, content(&text, number as usize % 3000 * 7));
            if number % 50 == 0 {
                let gone = format!("https://gone/{number}");
                put(&store, &gone, content(&gone, 10));
                store.flush().await;
                match number % 100 {
                    0 => {
                        store.remove(Key::of(&gone));
                        store.flush().await;
                    }
                    _ => assert!(store.purge(&What::Prefix(gone.clone().into())).written().await),
                }
                writeln!(out, "gone {gone}").unwrap();
                out.flush().unwrap();
            }
        }
    });
}

/// kill -9 at any time: what is found is right, and what was removed stays so.
#[req_test("REQ-CACHE-002", "REQ-CACHE-004")]
#[tokio::test]
async fn a_process_that_is_killed_leaves_no_wrong_byte() {
    let folder = Folder::new();
    let mut gone = Vec::new();
    for round in 0..6 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("cache::store::disk::tests::damage::other_process")
            .env(FOLDER, &folder.0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = 0;
        while told < 5 + round {
            let line = lines.next().expect("the process ended by itself").unwrap();
            if let Some(text) = line.split("gone ").nth(1) {
                gone.push(text.to_owned());
                told += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said after that, and before it was gone, is as true.
        gone.extend(
            lines.map_while(Result::ok).filter_map(|l| Some(l.strip_prefix("gone ")?.into())),
        );
        let store = folder.store();
        let mut there = 0;
        for number in 0..3000 {
            let text = format!("https://a/{number}");
            if let Some(body) = body(&store, &text).await {
                assert!(body == content(&text, number * 7), "{text} is wrong");
                there += 1;
            }
        }
        assert!(there > 100, "{there} of what was stored are left");
        for text in &gone {
            assert_eq!(body(&store, text).await, None, "{text} is back after round {round}");
        }
        assert_eq!(store.statistics().disk.unwrap().damaged, 0);
        store.close();
    }
}
