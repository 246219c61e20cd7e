//! A request that has no answer yet is sent to a second server as well (`hedge_after`): who is
//! asked, whose answer the client has, what becomes of the other one, and what is left alone.

use std::{net::SocketAddr, time::Duration};

use h2::Reason;
use mantra_macros::req_test;
use underpass_tests::{Fickle, Mode, Proxy, Wire, eventually, h2_origin::H2Origin, origin::Origin};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi";
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: any\r\n\r\n";

/// The servers, and what follows about retries.
const API: &str = "[[upstream]]\nname = \"api\"\nservers = [SERVERS]\n[upstream.retry]\n";
/// Long enough for the first server to be asked, and short for a test.
const AFTER: &str = "hedge_after = \"600ms\"";
/// More than twice as long.
const SLOWLY: Mode = Mode::Slow(Duration::from_secs(2));

/// A proxy of one worker, which asks the first of these servers first.
fn proxy(servers: &[SocketAddr], rest: &str) -> Proxy {
    let servers: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [log]\naccess = \"stderr\"\n[limits]\nresponse_timeout = \"5s\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"api\"\n{rest}\n",
        rest = rest.replace("SERVERS", &servers.join(", "))
    ))
    .start()
}

/// The same with what there is to say of retries.
fn with_retry(servers: &[&Fickle], retry: &str) -> Proxy {
    let servers: Vec<_> = servers.iter().map(|server| server.addr()).collect();
    proxy(&servers, &format!("{API}{AFTER}\n{retry}"))
}

async fn two() -> [Fickle; 2] {
    [Fickle::up("a").await, Fickle::up("b").await]
}

/// Status and content of the answer.
async fn ask(client: &mut Wire, request: &str) -> (u16, String) {
    client.send(request).await;
    let answer = client.read_response().await;
    (answer.status(), answer.text())
}

/// How often a second server was asked, how often it was the first to answer, and how often the
/// budget said no.
async fn counts(proxy: &Proxy) -> [f64; 3] {
    let metrics = proxy.metrics().await;
    let of =
        |name: &str, labels: &[_]| metrics.sum(&format!("underpass_upstream_{name}_total"), labels);
    [of("retries", &[("reason", "hedge")]), of("hedges_won", &[]), of("retries_denied", &[])]
}

/// The second server has the same request, and what it says is the client's; the connection to the
/// first is closed, and the next request there has another one.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_slow_server_is_beaten_by_another() {
    let (a, b) = (Origin::bind().await, Origin::bind().await);
    let proxy = proxy(&[a.addr(), b.addr()], &format!("{API}{AFTER}"));
    let mut client = proxy.connect().await;
    client.send("GET /path?query HTTP/1.1\r\nHost: test\r\nX-Field: kept\r\n\r\n").await;
    let mut at_a = a.accept().await;
    let first = at_a.read_request().await;
    let mut at_b = b.accept().await;
    let second = at_b.read_request().await;
    for request in [first, second] {
        assert_eq!(request.head.target(), "/path?query");
        assert_eq!(request.head.get("x-field"), Some("kept"));
    }
    at_b.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb").await;
    assert_eq!(client.read_response().await.text(), "b");
    at_a.expect_end().await;
    assert_eq!(counts(&proxy).await, [1.0, 1.0, 0.0]);
    let server = format!("server={}", b.addr());
    proxy.log_line(&["status=200", &server, "resends=1"]).await;

    // Both again, the other way round. What has won was kept, what has lost was not; and this time
    // it is the first that has the answer, though both were asked.
    client.send(GET).await;
    at_b.read_request().await;
    let mut again = a.accept().await;
    again.read_request().await;
    at_b.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst").await;
    assert_eq!(client.read_response().await.text(), "first");
    again.expect_end().await;
    assert_eq!(counts(&proxy).await, [2.0, 1.0, 0.0]);
}

#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn an_answer_in_time_is_all_there_is() {
    let [a, b] = two().await;
    let proxy = proxy(&[a.addr(), b.addr()], &format!("{API}hedge_after = \"2s\""));
    let mut client = proxy.connect().await;
    for name in ["a", "b", "a", "b"] {
        assert_eq!(ask(&mut client, GET).await, (200, name.to_owned()));
    }
    assert_eq!((a.requests(), b.requests()), (2, 2));
    assert_eq!(counts(&proxy).await, [0.0; 3]);
    assert!(!proxy.stderr().contains("resends="));
}

/// Neither has an answer: an error at the usual time, counted for both of them, and no third.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn two_slow_servers_are_given_up_together() {
    let [a, b] = two().await;
    let c = Fickle::up("c").await;
    for server in [&a, &b] {
        server.become_(Mode::Silent);
    }
    let proxy = with_retry(&[&a, &b, &c], "[upstream.ejection]\nconsecutive_errors = 1\n");
    assert_eq!(ask(&mut proxy.connect().await, GET).await.0, 504);
    assert_eq!((a.requests(), b.requests(), c.requests()), (1, 1, 0));
    eventually("both connections to be closed", async || a.under_way() + b.under_way() == 0).await;
    assert_eq!(counts(&proxy).await, [1.0, 0.0, 0.0]);
    // At most half of them may be ejected: one of the two is.
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_server_ejections_total", &[]), 1.0);
}

/// Two that are tried at once are one try: after its time they are given up for the next.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_retry_follows_when_both_have_had_their_time() {
    let [a, b] = two().await;
    let c = Fickle::up("c").await;
    for server in [&a, &b] {
        server.become_(Mode::Silent);
    }
    let proxy = with_retry(&[&a, &b, &c], "per_try_timeout = \"1500ms\"\nmax_retries = 2\n");
    assert_eq!(ask(&mut proxy.connect().await, GET).await, (200, "c".to_owned()));
    assert_eq!((a.requests(), b.requests(), c.requests()), (1, 1, 1));
    eventually("both connections to be closed", async || a.under_way() + b.under_way() == 0).await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_upstream_retries_total", &[("reason", "timeout")]), 1.0);
    assert_eq!(counts(&proxy).await, [1.0, 0.0, 0.0]);
    proxy.log_line(&["status=200", "resends=2"]).await;
}

/// The budget is that of all retries.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn hedges_are_within_the_budget() {
    let [a, b] = two().await;
    a.become_(SLOWLY);
    let proxy = with_retry(&[&a, &b], "budget_percent = 50\nbudget_min_per_second = 0\n");
    let mut client = proxy.connect().await;
    // A retry for two requests: the first of them has none yet.
    assert_eq!(ask(&mut client, GET).await, (200, "a".to_owned()));
    assert_eq!(counts(&proxy).await, [0.0, 0.0, 1.0]);
    assert_eq!(ask(&mut client, GET).await, (200, "b".to_owned()), "in its turn");
    assert_eq!(ask(&mut client, GET).await, (200, "b".to_owned()), "as the second");
    assert_eq!(counts(&proxy).await, [1.0, 1.0, 1.0]);
    assert_eq!((a.requests(), b.requests()), (2, 2));
}

/// What may not be sent again, what becomes a tunnel, and where there is nobody to ask.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn what_is_left_alone() {
    let [a, b] = two().await;
    a.become_(SLOWLY);
    let with_body = POST.replace("POST", "GET");
    for request in [POST, with_body.as_str(), UPGRADE] {
        let proxy = with_retry(&[&a, &b], "");
        assert_eq!(ask(&mut proxy.connect().await, request).await, (200, "a".to_owned()));
        assert_eq!(counts(&proxy).await, [0.0; 3], "{request}");
    }
    let alone = with_retry(&[&a], "");
    assert_eq!(ask(&mut alone.connect().await, GET).await, (200, "a".to_owned()));
    // Nor is a server asked that only stands in for others.
    let backup = format!("\"{}\", {{ address = \"{}\", backup = true }}", a.addr(), b.addr());
    let backup = proxy(&[], &format!("{}{AFTER}", API.replace("SERVERS", &backup)));
    assert_eq!(ask(&mut backup.connect().await, GET).await, (200, "a".to_owned()));
    // Where none is asked for there is none.
    let plain = proxy(&[a.addr(), b.addr()], &format!("{API}max_retries = 1"));
    assert_eq!(ask(&mut plain.connect().await, GET).await, (200, "a".to_owned()));
    assert_eq!(b.requests(), 0);
}

/// What would be asked for again wins only when nothing better is to come.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_failure_does_not_win() {
    for mode in [Mode::Status(503), Mode::Closing, Mode::Raw("nonsense\r\n\r\n"), Mode::Refusing] {
        let [a, b] = two().await;
        a.become_(SLOWLY);
        b.become_(mode.clone());
        let proxy = with_retry(&[&a, &b], "on_status = [503]\n");
        let answer = ask(&mut proxy.connect().await, GET).await;
        assert_eq!(answer, (200, "a".to_owned()), "{mode:?}");
        assert_eq!(counts(&proxy).await, [1.0, 0.0, 0.0], "{mode:?}");
    }
    // The first one fails while both are asked.
    let (a, b) = (Origin::bind().await, Fickle::start("b", SLOWLY).await);
    let proxy = proxy(&[a.addr(), b.addr()], &format!("{API}{AFTER}"));
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut at_a = a.accept().await;
    at_a.read_request().await;
    eventually("the second to be asked", async || b.requests() == 1).await;
    drop(at_a);
    assert_eq!(client.read_response().await.text(), "b");
    assert_eq!(counts(&proxy).await, [1.0, 1.0, 0.0]);
    // The first has no answer in its time: then that of the second is better than none, and the
    // retry has been used.
    let [a, b] = two().await;
    a.become_(Mode::Slow(Duration::from_secs(60)));
    b.become_(Mode::Status(503));
    let proxy = with_retry(&[&a, &b], "on_status = [503]\n");
    assert_eq!(ask(&mut proxy.connect().await, GET).await.0, 503);
    assert_eq!((a.requests(), b.requests()), (1, 1));
}

/// What a server says before its answer is for the client if that answer is.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn interim_answers_come_with_the_answer_that_they_belong_to() {
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </of-a>\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for first_wins in [false, true] {
        let (a, b) = (Origin::bind().await, Origin::bind().await);
        let proxy = proxy(&[a.addr(), b.addr()], &format!("{API}{AFTER}"));
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let mut at_a = a.accept().await;
        at_a.read_request().await;
        let mut at_b = b.accept().await;
        at_b.read_request().await;
        at_a.send(HINTS).await;
        // Time for it to be passed on, if that is done.
        tokio::time::sleep(Duration::from_millis(100)).await;
        if first_wins {
            at_a.send(OK).await;
            client.expect(HINTS).await;
        } else {
            at_b.send(OK).await;
        }
        client.expect_status(200).await;
    }
}

/// A hedged request is one request under way, and its second sending needs a connection that
/// there may be.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn breakers_hold() {
    let [a, b] = two().await;
    a.become_(SLOWLY);
    let proxy = with_retry(&[&a, &b], "[upstream.breaker]\nmax_requests = 1\n");
    assert_eq!(ask(&mut proxy.connect().await, GET).await, (200, "b".to_owned()));
    let proxy = with_retry(&[&a, &b], "[upstream.breaker]\nmax_connections = 1\n");
    assert_eq!(ask(&mut proxy.connect().await, GET).await, (200, "a".to_owned()));
}

/// Over HTTP/2 the stream of the one that has lost is reset, and the others of its connection go on.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn over_http2_a_stream_is_given_up() {
    let (a, b) = (H2Origin::bind().await, H2Origin::bind().await);
    let rest = "[[upstream]]\nname = \"api\"\nprotocol = \"http2\"\nservers = [SERVERS]\n";
    let proxy = proxy(&[a.addr(), b.addr()], &format!("{rest}[upstream.retry]\n{AFTER}"));
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut at_a = a.accept().await;
    let mut slow = at_a.next().await;
    let mut at_b = b.accept().await;
    at_b.next().await.ok("b");
    assert_eq!(client.read_response().await.text(), "b");
    assert_eq!(slow.is_reset().await, Reason::CANCEL);
    assert_eq!(counts(&proxy).await, [1.0, 1.0, 0.0]);
    // The same two connections.
    client.send(GET).await;
    at_a.next().await.ok("a");
    assert_eq!(client.read_response().await.text(), "a");
    assert!(!a.is_connected_to_again().await && !b.is_connected_to_again().await);
}

/// What comes of the second server is kept as any answer is, and a copy is made of a request, not of
/// its sendings.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn a_hedged_answer_is_cached_and_its_request_mirrored_once() {
    let [a, b] = two().await;
    let copies = Fickle::up("copies").await;
    a.become_(SLOWLY);
    let rest = format!(
        "middleware = [\"copy\"]\n[route.cache]\ndefault_ttl = \"1h\"\n\
         [cache]\n[[middleware]]\nname = \"copy\"\nmirror = {{ upstream = \"second\" }}\n\
         [[upstream]]\nname = \"second\"\nservers = [\"{}\"]\n\
         [[upstream]]\nname = \"api\"\nservers = [SERVERS]\n[upstream.retry]\n{AFTER}",
        copies.addr()
    );
    let proxy = proxy(&[a.addr(), b.addr()], &rest);
    let mut client = proxy.connect().await;
    assert_eq!(ask(&mut client, GET).await, (200, "b".to_owned()));
    assert_eq!(ask(&mut client, GET).await, (200, "b".to_owned()));
    assert_eq!((a.requests(), b.requests()), (1, 1));
    eventually("a copy", async || copies.requests() == 1).await;
    assert_eq!(counts(&proxy).await, [1.0, 1.0, 0.0]);
}
