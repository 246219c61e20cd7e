//! More than a client may ask for: bounded memory, others served meanwhile, and an end.

use bytes::Bytes;
use http::Response;
use mantra_macros::req_test;
use underpass_tests::{
    Origin, Proxy, Reply, Served,
    h2_frames::{CONTINUATION, Fate, Frames, HEADERS, PING, SETTINGS, block},
    h2_origin::{H2Origin, send_all},
    process::Growth,
};

const CALM: u32 = 11;
const MIB: u64 = 1 << 20;

type Field = (&'static [u8], &'static [u8]);

const GET: [Field; 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"test")];

async fn is_served(proxy: &Proxy) {
    proxy.open("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.expect_status(200).await;
}

/// CVE-2023-44487, at length: its connection is ended long before it is through.
#[req_test("REQ-EDGE-005")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_rapid_resets_end_the_connection() {
    let origin = Origin::bind().await.serve(|_| Reply::ok("ok"));
    let proxy = Proxy::reverse(origin.addr()).start();
    is_served(&proxy).await;
    let mut growth = Growth::of(proxy.pid());
    let mut client = Frames::open(proxy.connect().await).await;
    let flooding = async {
        for n in 0..10_000 {
            let stream = client.request(&GET, true).await;
            client.reset(stream).await;
            if n % 1000 == 0 {
                is_served(&proxy).await;
            }
        }
    };
    growth.during(flooding).await;
    // Told, or cut off: in any case it gets nothing more.
    let fate = client.fate(u32::MAX).await;
    assert!(matches!(fate, Fate::GoneAway(_) | Fate::Ended(_)), "{fate:?}");
    is_served(&proxy).await;
    growth.assert_below(20 * MIB);
    let asked = origin.seen().len();
    assert!(asked < 2000, "the server was asked {asked} times");
}

/// CVE-2024-27316 and its like: a head without an end.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_head_of_sixteen_megabytes_is_not_kept() {
    let served = Served::ok().await;
    let proxy = Proxy::reverse(served.addr()).start();
    is_served(&proxy).await;
    let mut growth = Growth::of(proxy.pid());
    let mut client = Frames::open(proxy.connect().await).await;
    let field = [b'x'; 16_000];
    let piece = block(&[(b"x-large", &field)]);
    let flooding = async {
        client.raw(HEADERS, 1, 1, &block(&GET)).await;
        for _ in 0..1024 {
            client.raw(CONTINUATION, 0, 1, &piece).await;
        }
    };
    growth.during(flooding).await;
    assert_eq!(client.fate(1).await, Fate::GoneAway(CALM));
    is_served(&proxy).await;
    growth.assert_below(8 * MIB);
}

/// A field that the table remembers, and that each head names a thousand times (HPACK bomb).
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_head_that_decodes_to_much_is_refused() {
    let served = Served::ok().await;
    let proxy = Proxy::reverse(served.addr()).start();
    let mut growth = Growth::of(proxy.pid());
    let mut client = Frames::open(proxy.connect().await).await;
    // Literal with indexing (RFC 7541 6.2.1), 4000 bytes; then its index, 62, again and again.
    let mut head = block(&GET);
    head.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    head.extend([b'y'; 4000]);
    head.extend([0x80 | 62; 10_000]);
    let refused = async {
        client.raw(HEADERS, 5, 1, &head).await;
        client.fate(1).await
    };
    let fate = growth.during(refused).await;
    assert!(
        matches!(fate, Fate::Answered(Some(431)) | Fate::Reset(_) | Fate::GoneAway(_)),
        "{fate:?}"
    );
    is_served(&proxy).await;
    growth.assert_below(8 * MIB);
}

/// Frames that ask for an answer each, by a client that takes none.
#[req_test("REQ-EDGE-005")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_pings_and_settings_hold_no_memory() {
    let served = Served::ok().await;
    let proxy = Proxy::reverse(served.addr()).start();
    is_served(&proxy).await;
    for (kind, payload) in [(PING, vec![0; 8]), (SETTINGS, vec![0, 4, 0, 0, 0xff, 0xff])] {
        let mut growth = Growth::of(proxy.pid());
        let mut client = Frames::open(proxy.connect().await).await;
        let flooding = async {
            for _ in 0..100_000 {
                let sent = client.raw(kind, 0, 0, &payload);
                // It is no longer read from, which is one way to bear it.
                if tokio::time::timeout(underpass_tests::clock::STALL, sent).await.is_err() {
                    return;
                }
            }
        };
        growth.during(flooding).await;
        is_served(&proxy).await;
        growth.assert_below(8 * MIB);
    }
}

/// A thousand answers of a megabyte that nobody takes: windows of 0.
#[req_test("REQ-EDGE-005")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_stalled_streams_hold_what_is_stated() {
    let content = Bytes::from(vec![b'x'; 1 << 20]);
    let served = H2Origin::bind().await.serve(Default::default(), move |mut stream| {
        let content = content.clone();
        async move {
            if stream.path() == "/" {
                stream.ok("ok");
                return;
            }
            let mut body = stream.begin(Response::new(()));
            send_all(&mut body, content, true).await;
        }
    });
    let to = format!("h2c://{}", served.addr());
    let args = ["reverse", "--listen", "127.0.0.1:0", "--workers", "1", "--to", &to];
    let proxy = Proxy::command(&args, 1).start();
    is_served(&proxy).await;
    let mut growth = Growth::of(proxy.pid());
    let mut clients = Vec::new();
    let stalling = async {
        for _ in 0..10 {
            let mut client = Frames::open(proxy.connect().await).await;
            client.raw(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
            let large: [Field; 4] = [GET[0], GET[1], (b":path", b"/large"), GET[3]];
            let mut last = 0;
            for _ in 0..100 {
                last = client.request(&large, true).await;
            }
            assert_eq!(client.fate(last).await, Fate::Answered(Some(200)));
            clients.push(client);
        }
        for _ in 0..10 {
            is_served(&proxy).await;
        }
    };
    growth.during(stalling).await;
    // Of each: the window towards the server, 128 KiB, and what is queued for the client, 64 KiB
    // and a chunk.
    growth.assert_below(1000 * 256 * 1024 + 32 * MIB);
}

/// More streams at once than are allowed: refused one by one, and the others are answered.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn more_streams_than_allowed_are_refused() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).limit("max_streams", "3").start();
    let mut client = Frames::open(proxy.connect().await).await;
    let mut first = 0;
    for _ in 0..3 {
        first = client.request(&GET, true).await;
    }
    let _ = first;
    let refused = client.request(&GET, true).await;
    assert_eq!(client.fate(refused).await, Fate::Reset(7));
}
