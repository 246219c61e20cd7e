//! An idle connection of a client is parked: of it there is no more than a socket. Nobody
//! can tell, except by the memory it takes.

use std::time::{Duration, Instant};

use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, ProxyBuilder, Reply, Served, Version, Wire, clock::scaled,
    collect, eventually, pattern, process::Growth, tunnel::SWITCHING,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Waits until exactly so many connections are parked.
async fn parked(proxy: &Proxy, count: usize) {
    let what = format!("{count} parked connections");
    eventually(&what, async || {
        proxy.metrics().await.sum("underpass_connections_parked", &[]) == count as f64
    })
    .await;
}

async fn open(proxy: &Proxy) -> f64 {
    proxy.metrics().await.sum("underpass_connections_open", &[])
}

/// A client whose connection is parked behind its first request.
async fn parked_client(proxy: &Proxy) -> Wire {
    let mut client = proxy.open(GET).await;
    client.expect_status(200).await;
    parked(proxy, 1).await;
    client
}

/// What connections of clients may take while they idle, and what may be left over of the
/// time when they did not, however many there are.
const EACH: u64 = 2 * 1024;
const ONCE: u64 = 1024 * 1024;

#[req_test("REQ-CTRL-003")]
#[tokio::test]
async fn idle_connections_take_next_to_no_memory() {
    let origin = Served::ok().await;
    for request in [Some(GET), None] {
        let proxy = Proxy::reverse(origin.addr()).args(["--access-log", "off"]).start();
        let mut clients = Vec::new();
        // The first wave brings what there is once; the second is measured.
        for wave in [150, 600] {
            let growth = Growth::of(proxy.pid());
            for _ in 0..wave {
                let mut client = proxy.connect().await;
                if let Some(request) = request {
                    client.send(request).await;
                    client.expect_status(200).await;
                }
                clients.push(client);
            }
            parked(&proxy, clients.len()).await;
            let once = if clients.len() == wave { 16 * ONCE } else { ONCE };
            growth.settles_below(wave as u64 * EACH + once).await;
        }
    }
}

/// One request after the other, each behind a rest, and the connection to the origin too.
#[tokio::test]
async fn requests_behind_a_rest_are_served_as_any() {
    let origin = Origin::bind().await.serve(|seen| Reply::ok(seen.message.head.target()));
    let proxy = Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\npreserve_header_case = true\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n",
        origin.addr()
    ))
    .start();
    let mut client = parked_client(&proxy).await;
    let address = client.local_addr();

    // A head with its case, and who asks.
    client.send("GET /case HTTP/1.1\r\nHost: test\r\nX-oDD-cAsE: 1\r\n\r\n").await;
    assert_eq!(client.expect_status(200).await.text(), "/case");
    let seen = origin.seen().pop().unwrap().message;
    assert!(String::from_utf8_lossy(&seen.head.raw).contains("\r\nX-oDD-cAsE: 1\r\n"));
    assert_eq!(seen.head.get("x-forwarded-for"), Some("127.0.0.1"));
    proxy.log_line(&["target=/case", &format!("client={address}")]).await;

    // A pipeline, its end in a second piece.
    parked(&proxy, 1).await;
    client.send(format!("{GET}GET /b HTTP/1.1\r\nHost: test\r\n\r\nGET /c HTTP/1.1\r\nHo")).await;
    assert_eq!(client.expect_status(200).await.text(), "/");
    assert_eq!(client.expect_status(200).await.text(), "/b");
    client.send("st: test\r\n\r\n").await;
    assert_eq!(client.expect_status(200).await.text(), "/c");

    // A body, more of it than is read at once with its head.
    parked(&proxy, 1).await;
    let content = pattern::bytes(300_000);
    let length = content.len();
    let head = format!("POST /d HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
    client.send([head.as_bytes(), &content].concat()).await;
    assert_eq!(client.expect_status(200).await.text(), "/d");
    assert!(origin.seen().pop().unwrap().message.body == content);

    // The last one closes.
    parked(&proxy, 1).await;
    client.send("GET /e HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    let answer = client.expect_status(200).await;
    assert_eq!((answer.text().as_str(), answer.head.get("connection")), ("/e", Some("close")));
    client.expect_fin().await;
    parked(&proxy, 0).await;
    assert_eq!(open(&proxy).await, 0.0);
}

#[tokio::test]
async fn an_http10_client_that_is_kept_is_kept_through_a_rest() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let mut client = proxy.open(request).await;
    client.expect_status(200).await;
    for _ in 0..2 {
        parked(&proxy, 1).await;
        client.send(request).await;
        let answer = client.expect_status(200).await;
        assert!(answer.head.start.starts_with("HTTP/1.0 "), "{}", answer.head.start);
        assert_eq!(answer.head.get("connection"), Some("keep-alive"));
    }
    parked(&proxy, 1).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    client.expect_status(200).await;
    client.expect_fin().await;
}

#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn an_upgrade_behind_a_rest_becomes_a_tunnel() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send(OK).await;
    client.expect_status(200).await;
    let upgrade = "GET /up HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    // Refused, and the connection goes on; then granted, bytes behind the head and all.
    parked(&proxy, 1).await;
    client.send(upgrade).await;
    server.read_head().await;
    server.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    client.expect_status(404).await;
    parked(&proxy, 1).await;
    client.send(format!("{upgrade}early")).await;
    server.read_head().await;
    server.send(SWITCHING).await;
    assert_eq!(client.read_head().await.status(), 101);
    server.expect("early").await;
    server.send("late").await;
    client.expect("late").await;
    client.finish().await;
    server.expect_fin().await;
}

/// The beginning of a head is kept: such a connection is not idle.
#[tokio::test]
async fn a_connection_with_half_a_head_is_not_parked() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let (mut kept, mut fresh) = (proxy.open(GET).await, proxy.open("GET /fresh HTTP/1.1").await);
    kept.expect_status(200).await;
    kept.send("GET /kept HTTP/1.1\r\nHo").await;
    let mut preface = proxy.open("PRI * HT").await;
    // It came last, and is parked first.
    let mut idle = proxy.open(GET).await;
    idle.expect_status(200).await;
    parked(&proxy, 1).await;
    assert_eq!(open(&proxy).await, 4.0);
    kept.send("st: test\r\n\r\n").await;
    kept.expect_status(200).await;
    fresh.send("\r\nHost: test\r\n\r\n").await;
    fresh.expect_status(200).await;
    preface.send("TP/2.0\r\n\r\nSM\r\n\r\n").await;
    preface.send(b"\0\0\0\x04\0\0\0\0\0").await;
    // SETTINGS of the other side: HTTP/2 is spoken.
    let frame = preface.read_exact(9).await;
    assert_eq!(frame[3], 4);
    drop(preface);
    parked(&proxy, 3).await;
    assert_eq!(origin.targets(), ["/", "/", "/kept", "/fresh"]);
}

/// The end of a head that began behind a rest is waited for as any, and no longer.
#[tokio::test]
async fn a_head_in_pieces_behind_a_rest_is_waited_for() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("head_timeout", "1s").start();
    let mut client = parked_client(&proxy).await;
    client.send("\r\nGET /").await;
    parked(&proxy, 0).await;
    client.send("pieces HTTP/1.1\r\nHost: test\r\n").await;
    client.send("\r\n").await;
    client.expect_status(200).await;
    parked(&proxy, 1).await;
    client.send("G").await;
    client.expect_status(408).await;
    client.expect_end().await;
    assert_eq!(origin.targets(), ["/", "/pieces"]);
}

/// The end of an answer that the client has yet to take is under way, though the exchange is
/// over for everybody else.
#[req_test("REQ-CTRL-004")]
#[tokio::test]
async fn a_connection_is_not_parked_before_its_answer_is_taken() {
    const STEP: usize = 56 * 1024;
    let origin = Origin::bind().await.serve(|seen| {
        let steps = seen.message.head.target().trim_start_matches('/').parse().unwrap_or(0);
        Reply::ok(vec![b'x'; steps * STEP])
    });
    let proxy = Proxy::reverse(origin.addr()).args(["--access-log", "off"]).start();
    // Some fit into the sockets' buffers, some do not, and of some the end waits in between.
    let mut clients = Vec::new();
    for steps in 1..100 {
        let mut client = Wire::connect_narrow(proxy.addr()).await;
        client.send(format!("GET /{steps} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        clients.push(client);
    }
    // More than the time after which each would be parked.
    tokio::time::sleep(scaled(Duration::from_secs(3))).await;
    let metrics = proxy.metrics().await;
    let ended = metrics.sum("underpass_requests_total", &[]);
    let rested = metrics.sum("underpass_connections_parked", &[]);
    println!("{ended} answers have ended, {rested} of their connections are parked");
    assert!(rested <= ended);
    for mut client in clients {
        client.expect_status(200).await;
        client.send(GET).await;
        let answer = client.expect_status(200).await;
        assert!(!answer.head.has("connection"), "{:?}", answer.head.all("connection"));
    }
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_client_that_leaves_while_parked_is_noticed() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    for reset in [false, true] {
        let client = parked_client(&proxy).await;
        let fresh = proxy.connect().await;
        parked(&proxy, 2).await;
        assert_eq!(open(&proxy).await, 2.0);
        for client in [client, fresh] {
            match reset {
                true => client.reset(),
                false => drop(client),
            }
        }
        eventually("both to be noticed", async || open(&proxy).await == 0.0).await;
        assert_eq!(origin.seen().len(), 1 + usize::from(reset));
    }
    assert!(!proxy.stderr().contains("client_gone"), "{}", proxy.stderr());
}

/// By its own limit: that of a head before the first request, that of idling behind it.
#[tokio::test]
async fn a_parked_connection_is_closed_in_time_without_an_answer() {
    let origin = Served::ok().await;
    let limits = [("idle_timeout", "2s", true), ("head_timeout", "2s", false)];
    for (limit, time, used) in limits {
        let proxy = Proxy::reverse(origin.addr()).limit(limit, time).start();
        let begin = Instant::now();
        let mut client = proxy.connect().await;
        if used {
            client.send(GET).await;
            client.expect_status(200).await;
        }
        parked(&proxy, 1).await;
        client.expect_fin().await;
        assert!(begin.elapsed() >= Duration::from_secs(2), "{limit}: {:?}", begin.elapsed());
        parked(&proxy, 0).await;
        assert_eq!(open(&proxy).await, 0.0);
    }
}

fn patient(origin: std::net::SocketAddr, drain: &str) -> ProxyBuilder {
    Proxy::reverse(origin).args(["--drain-timeout", drain])
}

#[tokio::test]
async fn a_drain_closes_parked_connections_at_once() {
    let origin = Served::ok().await;
    let mut proxy = patient(origin.addr(), "60s").start();
    let mut fresh = proxy.connect().await;
    parked(&proxy, 1).await;
    let mut client = proxy.open(GET).await;
    client.expect_status(200).await;
    parked(&proxy, 2).await;
    let begin = Instant::now();
    proxy.term();
    client.expect_fin().await;
    fresh.expect_fin().await;
    assert_eq!(proxy.exited().await.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10), "a parked connection held the drain up");
}

/// Parked connections neither outlive a drain's deadline nor keep others from theirs.
#[tokio::test]
async fn a_drain_is_forced_beside_parked_connections() {
    let origin = Origin::bind().await;
    let mut proxy = patient(origin.addr(), "1s").start();
    let mut idle = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send(OK).await;
    idle.expect_status(200).await;
    let mut busy = proxy.open(GET).await;
    server.read_head().await;
    parked(&proxy, 1).await;
    proxy.signal(Signal::TERM);
    idle.expect_fin().await;
    busy.expect_end().await;
    assert_eq!(proxy.exited().await.code(), Some(0));
}

/// The first bytes behind a rest are judged as the first of a connection are.
#[tokio::test]
async fn bad_heads_behind_a_rest_are_refused() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("max_head_bytes", "8192").start();
    let long = format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (head, status) in [("GET / HTTP/1.1\nHost: test\n\n", 400), (&*long, 431), (preface, 505)] {
        let mut client = parked_client(&proxy).await;
        client.send(head).await;
        client.expect_status(status).await;
        client.expect_end().await;
    }
    assert!(origin.targets().iter().all(|target| target == "/"));
    assert_eq!(origin.targets().len(), 3);
}

#[tokio::test]
async fn parked_connections_count_towards_the_limit() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).limit("max_connections", "2").start();
    let first = proxy.connect().await;
    let mut second = proxy.open(GET).await;
    second.expect_status(200).await;
    parked(&proxy, 2).await;
    let mut third = proxy.open("GET /third HTTP/1.1\r\nHost: test\r\n\r\n").await;
    eventually("the pause to be counted", async || {
        proxy.metrics().await.sum("underpass_accept_pauses_total", &[]) > 0.0
    })
    .await;
    second.send(GET).await;
    second.expect_status(200).await;
    assert_eq!(origin.targets(), ["/", "/"]);
    drop(first);
    third.expect_status(200).await;
}

/// A spare connection says only with its first bytes what it will speak.
#[tokio::test]
async fn a_spare_connection_may_speak_any_version_behind_its_rest() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    for version in [Version::H1, Version::H2] {
        let spare = proxy.connect().await;
        parked(&proxy, 1).await;
        let authority = proxy.addr().to_string();
        let mut client = HttpClient::over(spare.into_stream(), &authority, version).await;
        let request = client.request(http::Method::POST, "/").body(OutBody::Full("x".into()));
        let answer = client.send(request.unwrap()).await.unwrap();
        assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
        client.abort();
        parked(&proxy, 0).await;
    }
}
