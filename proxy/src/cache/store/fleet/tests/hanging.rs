//! A folder that hangs: it gives nothing, and no call of the system for it returns.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use super::*;
use crate::cache::store::fleet::service::{self, Failed, Open};

/// A folder that hangs where it is asked for purges, as a named pipe does that nobody writes to.
struct Hanging(Folder);

impl Hanging {
    fn new() -> Self {
        let this = Self(Folder::new());
        fs::create_dir_all(this.pipe().parent().expect("a folder")).expect("a folder");
        mknodat(CWD, this.pipe(), FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        this
    }

    fn pipe(&self) -> PathBuf {
        self.0.0.join("shared").join(service::purges())
    }

    /// All calls return, and nothing is there.
    fn goes_on(&self) {
        goes_on(&self.pipe());
    }
}

fn goes_on(pipe: &Path) {
    let mut options = OpenOptions::new();
    let nobody_waits = OFlags::NONBLOCK.bits() as i32;
    let opened = options.write(true).custom_flags(nobody_waits).open(pipe);
    fs::remove_file(pipe).expect("a pipe");
    opened.expect("somebody reads it");
}

/// Threads of this process that have this name.
fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("tasks").flatten();
    let is_it = |path: PathBuf| fs::read_to_string(path).is_ok_and(|it| it.trim() == name);
    tasks.filter(|task| is_it(task.path().join("comm"))).count()
}

#[req_test("REQ-CACHE-007")]
#[test]
fn what_hangs_has_one_thread_however_often_it_is_asked() {
    let folder = Hanging::new();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().thread_name("fleet-hangs").build().expect("a runtime");
    let name = service::purges();
    let asks = async |open: &Open| open.get(&name, 1024, Duration::from_millis(10)).await;
    runtime.block_on(async {
        let open =
            Open::new(&folder.0.options().fleet.expect("a fleet").service).expect("a folder");
        let mut late = 0;
        for _ in 0..30 {
            late += u32::from(matches!(asks(&open).await, Err(Failed::Service(_))));
        }
        let at_once = threads("fleet-hangs");
        // Who has turns of its own is not kept from them.
        let elsewhere = open.at_most(1).get("elsewhere", 1024, Duration::from_secs(5)).await;
        folder.goes_on();
        assert_eq!((late, at_once), (30, 1));
        assert!(matches!(elsewhere, Ok(None)));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !matches!(asks(&open).await, Ok(None)) {
            assert!(Instant::now() < deadline, "it is asked again");
        }
    });
}

#[req_test("REQ-CACHE-007")]
#[tokio::test]
async fn a_folder_that_hung_is_used_again() {
    let folder = Hanging::new();
    let mut options = folder.0.options();
    options.fleet.as_mut().expect("a fleet").timeout = Duration::from_millis(100);
    let store = Store::new(&options);
    until("it has been tried", || of(&store).errors > 0);
    assert!(matches!(store.seek(Key::of("https://a/1"), "https://a/1"), Found::Absent));
    folder.goes_on();
    until("it works", || of(&store).works);
    put(&store, "https://a/1", 10);
    assert_eq!(of(&store).writes, 1);
}

/// The disk stalls where the notes are.
#[req_test("REQ-CACHE-004", "REQ-CACHE-007")]
#[test]
fn notes_that_hang_keep_nobody_from_the_service_nor_from_a_purge() {
    let folder = Folder::new();
    let noted = folder.0.join("disk/fleet-purges");
    fs::create_dir_all(noted.parent().expect("a folder")).expect("a folder");
    mknodat(CWD, &noted, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
    let store = folder.with_disk("disk", 4 << 20);
    put(&store, "https://a/1", 10);
    assert_eq!(of(&store).writes, 1);
    let began = Instant::now();
    for _ in 0..20 {
        let _ = store.purge(&What::Tag("red".into()));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    goes_on(&noted);
    until("it is written down", || fs::metadata(&noted).is_ok_and(|file| file.len() > 4));
}
