//! A disk that is full, gone or slow: traffic goes on, one line says so, and what found no room is
//! marked to the byte.

use std::{fs, process::Command};

use mantra_macros::req_test;
use underpass::record::{Side, read::Record};
use underpass_tests::{Proxy, Records, Reply, Served, Stopped, Wire, eventually, skip};

const BODY: usize = 10_000;

async fn origin() -> Served {
    Served::always(Reply::ok(vec![b'x'; BODY])).await
}

fn config(records: &Records, origin: &Served, more: &str) -> String {
    format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n{}[log]\naccess = \"off\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"o\"\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        records.section(more),
        origin.addr()
    )
}

async fn ask(wire: &mut Wire, times: usize) {
    for _ in 0..times {
        wire.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await;
        assert_eq!(wire.expect_status(200).await.body.len(), BODY);
    }
}

async fn failing(proxy: &Proxy) -> bool {
    proxy.metrics().await.sum("underpass_record_failing", &[]) == 1.0
}

/// Waits for the one line about it, which a busy machine may write later than the metric; there are
/// no more.
async fn assert_one_complaint(proxy: &Proxy) {
    let complaints = || proxy.stderr().matches("records cannot be written").count();
    eventually("a line about it", async || complaints() > 0).await;
    assert_eq!(complaints(), 1, "{}", proxy.stderr());
}

/// What is there and what is missing is together what was sent.
fn assert_accounted(records: &[Record]) {
    for record in records {
        let body = record.body(Side::Response);
        let missing: u64 = body.gaps.iter().map(|gap| gap.missing.bytes).sum();
        assert_eq!(body.length + missing, BODY as u64, "{:?}", body.gaps);
        assert_eq!(record.lost_lines, 0);
    }
}

/// Whether all that was asked for is recorded, cut or counted as not recorded.
async fn assert_all_told(proxy: &Proxy, records: &Records, asked: usize) {
    let metrics = proxy.metrics().await;
    let unrecorded = metrics.sum("underpass_record_exchanges_unrecorded_total", &[]);
    let missing = metrics.sum("underpass_record_missing_bytes_total", &[]);
    let found = records.all();
    assert_accounted(&found);
    assert_eq!(found.len() + unrecorded as usize, asked);
    let marked: u64 = found.iter().map(Record::missing_bytes).sum();
    assert_eq!(marked as f64, missing, "the metric says what the marks say");
}

/// A file system of its own, which is unmounted with the value.
struct Mounted<'a>(&'a Records);

impl<'a> Mounted<'a> {
    fn tmpfs(records: &'a Records, options: &str) -> Option<Self> {
        fs::create_dir(records.path()).expect("a folder");
        mount(records, &["-t", "tmpfs", "-o", options, "tmpfs"]).then_some(Self(records))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(records: &Records, args: &[&str]) -> bool {
    let output = Command::new("mount").args(args).arg(records.path()).output();
    output.is_ok_and(|output| output.status.success())
}

#[req_test("REQ-REC-005")]
#[tokio::test]
async fn a_full_disk_harms_no_traffic_and_recovers() {
    let records = Records::default();
    let Some(_mounted) = Mounted::tmpfs(&records, "size=256k") else {
        return skip::say("a full disk: tmpfs cannot be mounted here");
    };
    let origin = origin().await;
    let more = "memory_bytes = \"128KiB\"\nbatch_delay = \"5ms\"";
    let proxy = Proxy::config(config(&records, &origin, more)).start();
    let mut client = proxy.connect().await;
    let mut asked = 0;
    while !failing(&proxy).await {
        ask(&mut client, 10).await;
        asked += 10;
        assert!(asked < 1000, "256 KiB never fill");
    }
    // Far more than the memory holds.
    ask(&mut client, 100).await;
    asked += 100;
    assert_one_complaint(&proxy).await;
    assert!(mount(&records, &["-o", "remount,size=64m"]));
    eventually("records to be written again", async || !failing(&proxy).await).await;
    // The first write gives back its own memory alone, so one that comes early may be cut yet.
    for tries in 0.. {
        ask(&mut client, 1).await;
        asked += 1;
        let begun = proxy.metrics().await.sum("underpass_record_exchanges_total", &[]) as usize;
        if records.ended(begun).await.last().is_some_and(Record::is_whole) {
            break;
        }
        assert!(tries < 100, "records stay cut");
    }
    assert_one_complaint(&proxy).await;
    assert_all_told(&proxy, &records, asked).await;
    let cut = records.all().iter().any(|record| record.missing_bytes() > 0);
    let metrics = proxy.metrics().await;
    let lost = metrics.sum("underpass_record_exchanges_unrecorded_total", &[]) > 0.0;
    assert!(cut || lost, "the memory was enough: this shows nothing");
}

#[req_test("REQ-REC-005")]
#[tokio::test]
async fn a_folder_that_is_gone_for_a_while_harms_no_traffic() {
    let parent = Records::default();
    fs::create_dir(parent.path()).expect("a folder");
    let records = Records::at(parent.path().join("records"));
    let moved = Records::default();
    let origin = origin().await;
    let proxy = Proxy::config(config(&records, &origin, "batch_delay = \"5ms\"")).start();
    let mut client = proxy.connect().await;
    ask(&mut client, 3).await;
    records.ended(3).await;
    fs::rename(parent.path(), moved.path()).expect("rename");
    while !failing(&proxy).await {
        ask(&mut client, 1).await;
    }
    ask(&mut client, 5).await;
    assert_one_complaint(&proxy).await;
    fs::rename(moved.path(), parent.path()).expect("rename back");
    eventually("records to be written again", async || !failing(&proxy).await).await;
    let asked = origin.seen().len();
    let found = records.ended(asked).await;
    assert_eq!(found.len(), asked, "nothing is lost that there was memory for");
    assert!(found.iter().all(Record::is_whole));
    assert_one_complaint(&proxy).await;
}

/// As if the disk took nothing for a while: the thread that writes stands still.
#[req_test("REQ-REC-001", "REQ-REC-004")]
#[tokio::test]
async fn a_disk_that_hangs_harms_no_traffic() {
    let records = Records::default();
    let origin = origin().await;
    let proxy = Proxy::config(config(&records, &origin, "memory_bytes = \"128KiB\"")).start();
    let Some(stopped) = Stopped::thread(proxy.pid(), "recorder") else {
        return skip::say("a disk that hangs: threads cannot be traced here");
    };
    let mut client = proxy.connect().await;
    ask(&mut client, 100).await;
    let mut growth = underpass_tests::process::Growth::of(proxy.pid());
    growth.during(ask(&mut client, 400)).await;
    growth.assert_below(8 << 20);
    drop(stopped);
    ask(&mut client, 1).await;
    eventually("all that was kept", async || {
        let metrics = proxy.metrics().await;
        let begun = metrics.sum("underpass_record_exchanges_total", &[]) as usize;
        let found = records.all();
        found.len() == begun && found.iter().all(|record| record.end.is_some())
    })
    .await;
    assert_all_told(&proxy, &records, 501).await;
    let missing = records.all().iter().map(Record::missing_bytes).sum::<u64>();
    assert!(missing > 0, "the memory was enough: this shows nothing");
}
