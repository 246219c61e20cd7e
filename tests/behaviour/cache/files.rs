//! Bodies that sockets are sent from the files of the second tier: the right bytes for everybody,
//! whatever becomes of the file and of what the kernel has of it meanwhile.

use std::{
    cell::Cell,
    fs::File,
    path::{Path, PathBuf},
};

use http_body_util::BodyExt as _;
use mantra_macros::req_test;
use rustix::fs::{Advice, fadvise, statfs};
use tokio::net::TcpStream;
use underpass_tests::{
    HttpClient, Message, Origin, Proxy, ProxyBuilder, Version, Wire, eventually, origin::Served,
    pattern, proxy::scratch,
};

use super::{
    ask, did, get,
    purge::{TOKEN, purge},
    with_cache,
};

/// Of a body that is one block.
const BODY: usize = 65_520;

/// Of one that is many.
const LARGE: usize = 8 << 20;

/// TMPFS_MAGIC of linux/magic.h: what lies there is always in memory.
const IN_MEMORY: i64 = 0x0102_1994;

/// Each of a target has its own bytes.
fn bytes_of(target: &str) -> Vec<u8> {
    let number: u64 = target.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    let (mut at, mut left) =
        (number * 1_000_003, if target.starts_with("/large") { LARGE } else { BODY });
    let mut bytes = Vec::with_capacity(left);
    while left > 0 {
        let part = pattern::at(at, left.min(65_000) as u64);
        bytes.extend_from_slice(part);
        (at, left) = (at + part.len() as u64, left - part.len());
    }
    bytes
}

/// Answers ranges as well, which is how what is gone is had again.
async fn origin() -> Served {
    Origin::bind().await.serve(|seen| {
        let head = &seen.message.head;
        let body = bytes_of(head.target());
        let (first, last) = match head.get("range").and_then(|range| range.strip_prefix("bytes=")) {
            None => (0, body.len() - 1),
            Some(range) => {
                let (first, last) = range.split_once('-').expect("a range");
                (first.parse().unwrap(), last.parse::<usize>().unwrap_or(body.len() - 1))
            }
        };
        let status = match head.get("range") {
            None => "200 OK".to_owned(),
            Some(_) => {
                let of = format!("bytes {first}-{last}/{}", body.len());
                format!("206 Partial Content\r\nContent-Range: {of}")
            }
        };
        let part = &body[first..=last];
        let fields = "Cache-Control: max-age=600\r\nETag: \"a\"\r\nContent-Type: text/plain";
        let length = part.len();
        let head = format!("HTTP/1.1 {status}\r\n{fields}\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), part].concat()
    })
}

/// A folder, and a proxy whose memory has room for next to nothing.
fn proxy_on(folder: &Path, origin: &Served) -> ProxyBuilder {
    let cache = format!("memory_bytes = \"1MiB\"\ndirectory = \"{}\"", folder.display());
    with_cache(origin.addr(), &cache, "").env("UNDERPASS_ADMIN_TOKEN", TOKEN)
}

async fn metric(proxy: &Proxy, name: &str) -> f64 {
    proxy.metrics().await.sum(&format!("underpass_cache_{name}"), &[])
}

/// Asks until so much has been lent by one answer: the kernel has to have it in memory, and some
/// machines take that back early.
async fn until_lent(proxy: &Proxy, target: &str) {
    let mut wire = proxy.connect().await;
    for _ in 0..100 {
        let before = metric(proxy, "lent_bytes_total").await;
        let got = ask(&mut wire, "GET", target, "").await;
        assert!(got.body == bytes_of(target), "{target}");
        let lent = metric(proxy, "lent_bytes_total").await - before;
        if lent >= bytes_of(target).len() as f64 * 0.9 {
            return;
        }
    }
    panic!("{target} was never lent");
}

/// Everything is on the disk, and nothing in memory.
async fn restarted(folder: &Path, origin: &Served, targets: &[&str]) -> Proxy {
    let mut first = proxy_on(folder, origin).start();
    for target in targets {
        assert_eq!(did(&get(&first, target, "").await), "MISS");
    }
    first.term();
    assert!(first.exited().await.success());
    let proxy = proxy_on(folder, origin).start();
    let objects = targets.len() as f64;
    eventually("the disk is known", async || metric(&proxy, "disk_objects").await >= objects).await;
    proxy
}

#[req_test("REQ-CACHE-002", "REQ-CACHE-003")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_sent_from_its_file_whole_and_in_parts() {
    let (folder, origin) = (scratch("cache"), origin().await);
    let proxy = restarted(&folder, &origin, &["/1", "/2", "/large3"]).await;
    let asked = origin.seen().len();
    for target in ["/1", "/2", "/large3"] {
        until_lent(&proxy, target).await;
    }
    let mut wire = proxy.connect().await;
    for (first, last) in [(0, 0), (0, 64_999), (1, 65_000), (4095, 50_000), (50_000, 65_519)] {
        let range = format!("Range: bytes={first}-{last}");
        let part = ask(&mut wire, "GET", "/1", &range).await;
        assert_eq!((part.head.status(), did(&part)), (206, "HIT"), "{range}");
        assert!(part.body == bytes_of("/1")[first..=last], "{range}");
    }
    let several = ask(&mut wire, "GET", "/large3", "Range: bytes=5-70000,262000-600000").await;
    assert_eq!(several.head.status(), 206);
    for part in [5..70_001, 262_000..600_001] {
        let part = &bytes_of("/large3")[part];
        assert!(several.body.windows(part.len()).any(|window| window == part));
    }
    let none = ask(&mut wire, "HEAD", "/2", "").await;
    assert_eq!((did(&none), none.body.len()), ("HIT", 0));
    let same = ask(&mut wire, "GET", "/2", "If-None-Match: \"a\"").await;
    assert_eq!(same.head.status(), 304);
    assert_eq!(origin.seen().len(), asked, "all of it is stored");
    // Where it is takes no memory to speak of: the tier has room for it.
    assert!(metric(&proxy, "memory_bytes").await < (1 << 20) as f64);
    drop(proxy);
    let _ = std::fs::remove_dir_all(folder);
}

/// Who reads a body, and is not only sent it, gets it from memory.
#[req_test("REQ-CACHE-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_it_in_another_form_gets_the_same() {
    let (folder, origin) = (scratch("cache"), origin().await);
    drop(restarted(&folder, &origin, &["/1"]).await);
    let cache = format!("memory_bytes = \"1MiB\"\ndirectory = \"{}\"", folder.display());
    let text = format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n[cache]\n{cache}\n\
         [[middleware]]\nname = \"small\"\ncompression = {{}}\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nhost = \"small.test\"\nupstream = \"o\"\nmiddleware = [\"small\"]\n[route.cache]\n\
         [[route]]\nupstream = \"o\"\n[route.cache]\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        origin.addr()
    );
    let proxy = Proxy::config(text).start();
    let mut wire = proxy.connect().await;
    for _ in 0..2 {
        assert!(ask(&mut wire, "GET", "/1", "").await.body == bytes_of("/1"));
    }
    for number in 2..40 {
        // Others push it out of memory.
        assert!(
            get(&proxy, &format!("/{number}"), "").await.body == bytes_of(&format!("/{number}"))
        );
    }
    until_lent(&proxy, "/1").await;
    let stream = TcpStream::connect(proxy.addr()).await.unwrap();
    let mut second = HttpClient::over(stream, "h", Version::H2).await;
    for _ in 0..3 {
        let plain = ask(&mut wire, "GET", "/1", "").await;
        assert_eq!((did(&plain), plain.body == bytes_of("/1")), ("HIT", true));
        let over_h2 = second.get("/1").await;
        assert_eq!(over_h2.headers()["x-cache"], "HIT");
        let over_h2 = over_h2.into_body().collect().await.unwrap().to_bytes();
        assert!(over_h2 == bytes_of("/1"), "over HTTP/2");
        wire.send("GET /1 HTTP/1.1\r\nHost: small.test\r\nAccept-Encoding: gzip\r\n\r\n").await;
        let coded: Message = wire.read_response_to("GET").await;
        assert_eq!(coded.head.get("content-encoding"), Some("gzip"));
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&coded.body[..]), &mut text)
            .unwrap();
        assert!(text == bytes_of("/1"), "compressed");
    }
    drop(proxy);
    let _ = std::fs::remove_dir_all(folder);
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect()
}

/// Has the kernel let go of what it has of the files, as it does when memory is short.
fn let_go(folder: &Path) {
    for path in segments(folder) {
        let file = File::open(path).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

/// Waits until a large body is under way to a reader that has stopped.
async fn stalled(proxy: &Proxy, target: &str, fields: &str) -> Wire {
    let mut wire = Wire::connect_narrow(proxy.addr()).await;
    let before = metric(proxy, "lent_bytes_total").await;
    let end = if fields.is_empty() { "" } else { "\r\n" };
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}{end}\r\n")).await;
    let last = Cell::new(before);
    eventually("it is under way, and waits", async || {
        let now = metric(proxy, "lent_bytes_total").await;
        last.replace(now) == now && now > before
    })
    .await;
    wire
}

#[req_test("REQ-CACHE-007", "REQ-CACHE-002")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaves_memory_under_way_is_read_again() {
    let (folder, origin) = (scratch("cache"), origin().await);
    let proxy = restarted(&folder, &origin, &["/large3"]).await;
    if statfs(&folder).unwrap().f_type == IN_MEMORY {
        return eprintln!("skipped: files here are always in memory");
    }
    let asked = origin.seen().len();
    // In small pages, as it comes from a disk, and not as it was written.
    let_go(&folder);
    let whole = bytes_of("/large3");
    // Parts that end within a block, and two that begin at the same byte.
    let parts = ["", "Range: bytes=0-5099999", "Range: bytes=300000-300099,300000-4900000"];
    let mut read_again = 0;
    for turn in 0..60 {
        let asks = parts[turn % parts.len()];
        until_lent(&proxy, "/large3").await;
        let before = metric(&proxy, "reread_bytes_total").await;
        let mut wire = stalled(&proxy, "/large3", asks).await;
        let_go(&folder);
        let got = wire.read_response_to("GET").await;
        assert_eq!(did(&got), "HIT");
        match turn % parts.len() {
            0 => assert!(got.body == whole, "other bytes than its own"),
            1 => assert!(got.body == whole[..5_100_000], "other bytes than asked for"),
            _ => {
                let (first, second) = (&whole[300_000..300_100], &whole[300_000..4_900_001]);
                let at = |part: &[u8]| got.body.windows(part.len()).position(|w| w == part);
                assert!(at(first).is_some_and(|first| at(second).is_some_and(|at| at > first)));
            }
        }
        // The next answer on the connection is one.
        assert!(ask(&mut wire, "GET", "/large3", "Range: bytes=7-50").await.body == whole[7..51]);
        read_again += usize::from(metric(&proxy, "reread_bytes_total").await > before);
        if read_again > 2 * parts.len() {
            assert_eq!(origin.seen().len(), asked);
            drop(proxy);
            let _ = std::fs::remove_dir_all(folder);
            return;
        }
    }
    panic!("read again {read_again} times of 60");
}

/// Its file is unlinked, and others are written, while somebody is being sent it.
#[req_test("REQ-CACHE-004", "REQ-CACHE-007")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_purged_under_way_comes_to_its_end() {
    let (folder, origin) = (scratch("cache"), origin().await);
    let proxy = restarted(&folder, &origin, &["/large3", "/4"]).await;
    until_lent(&proxy, "/large3").await;
    until_lent(&proxy, "/4").await;
    let mut wire = stalled(&proxy, "/large3", "").await;
    let (done, said) = purge(&proxy, &["--all"], TOKEN);
    assert!(done, "{said}");
    eventually("its files are gone", async || segments(&folder).is_empty()).await;
    assert_eq!(did(&get(&proxy, "/4", "").await), "MISS");
    // What has not been begun is fetched, by ranges of the same version.
    let got = wire.read_response_to("GET").await;
    assert!(got.body == bytes_of("/large3"), "other bytes than its own");
    drop(proxy);
    let _ = std::fs::remove_dir_all(folder);
}
