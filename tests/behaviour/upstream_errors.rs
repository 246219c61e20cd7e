//! What a client hears when the origin cannot be reached or does not answer: 502, 504, 503.

use http::Method;
use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Refusing, Reply, Saturated, Served, Version, over_versions,
};

over_versions!(a_refused_connection_is_502, a_missing_answer_is_504);

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

async fn a_refused_connection_is_502(version: Version) {
    let refusing = Refusing::bind();
    let proxy = Proxy::reverse(refusing.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    // The client's connection survives a fault of the origin.
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status(), 502);
    }
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_errors_total", &[("kind", "connect")]), 2.0);
}

#[tokio::test]
async fn a_connection_that_hangs_is_504() {
    let saturated = Saturated::bind();
    let proxy = Proxy::reverse(saturated.addr()).limit("connect_timeout", "300ms").start();
    let mut client = proxy.open(GET).await;
    client.expect_status(504).await;
    proxy.log_line(&["connect_timeout"]).await;
}

async fn a_missing_answer_is_504(version: Version) {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).limit("response_timeout", "300ms").start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let request = client.request(Method::GET, "/").body(OutBody::Empty).unwrap();
    let answer = client.send(request);
    let mut server = origin.accept().await;
    server.read_head().await;
    assert_eq!(answer.await.unwrap().status(), 504);
    // An answer that comes now would be for nobody.
    server.expect_end().await;
}

/// The time for an answer runs from the end of the request.
#[tokio::test]
async fn a_slow_upload_does_not_use_up_the_time_for_the_answer() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).limit("response_timeout", "400ms").start();
    let head = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n";
    let mut client = proxy.open(head).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    for _ in 0..10 {
        tokio::time::sleep(std::time::Duration::from_millis(80)).await;
        client.send("x").await;
        server.expect("x").await;
    }
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.expect_status(200).await;
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_502() {
    let origin = Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    // A POST is not tried again, a half head shows that an answer had begun.
    for begun in ["", "H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"] {
        for reset in [false, true] {
            let post = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nhi";
            let mut client = proxy.open(post).await;
            let mut server = origin.accept().await;
            server.read_request().await;
            server.send(begun).await;
            if reset {
                server.reset();
            } else {
                drop(server);
            }
            client.expect_status(502).await;
        }
    }
}

/// The error page says what, not where.
#[tokio::test]
async fn error_pages_do_not_name_the_origin() {
    let refusing = Refusing::bind();
    let proxy = Proxy::reverse(refusing.addr()).start();
    let answer = proxy.open(GET).await.expect_status(502).await;
    let port = refusing.addr().port().to_string();
    assert!(!answer.text().contains(&port), "{}", answer.text());
    assert!(!String::from_utf8_lossy(&answer.head.raw).contains(&port));
    // But the log does.
    proxy.log_line(&[port.as_str(), "status=502"]).await;
}

#[tokio::test]
async fn head_of_an_error_has_no_body() {
    let refusing = Refusing::bind();
    let proxy = Proxy::reverse(refusing.addr()).start();
    let mut client = proxy.open("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.read_response_to("HEAD").await.status(), 502);
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.read_response_to("HEAD").await.status(), 502);
}

/// Where one server refuses, the next of the group is asked.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn requests_go_to_all_servers_in_turn() {
    let (a, b) = (Served::always(Reply::ok("a")).await, Served::always(Reply::ok("b")).await);
    let proxy = Proxy::reverse(a.addr()).args(["--to".to_owned(), format!("http://{}", b.addr())]);
    let proxy = proxy.start();
    let mut client = proxy.connect().await;
    for _ in 0..6 {
        client.send(GET).await;
        client.expect_status(200).await;
    }
    assert_eq!((a.seen().len(), b.seen().len()), (3, 3));
    assert_eq!((a.connections(), b.connections()), (1, 1));
}

/// Whose turn it is moves on with every request: one that tries another server must not come
/// back to the one that has just failed it.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn requests_meanwhile_do_not_take_the_server_that_is_left_to_try() {
    let (silent, origin) = (Saturated::bind(), Origin::bind().await);
    let proxy = Proxy::config(format!(
        "workers = 1\n[limits]\nconnect_timeout = \"2s\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"both\"\n\
         [[upstream]]\nname = \"both\"\nservers = [\"{}\", \"{}\"]\n",
        silent.addr(),
        origin.addr()
    ))
    .start();
    // The first waits for the silent server; the second takes the other one's turn.
    let mut first = proxy.open("GET /first HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut second = proxy.open("GET /second HTTP/1.1\r\nHost: test\r\n\r\n").await;
    for (client, target) in [(&mut second, "/second"), (&mut first, "/first")] {
        let mut server = origin.accept().await;
        assert_eq!(server.read_head().await.target(), target);
        server.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
        client.expect_status(200).await;
    }
}

/// Over the limit of connections to a server requests wait, and at last are told so.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn requests_wait_for_a_connection_up_to_a_time() {
    let origin = Origin::bind().await;
    let config = format!(
        "workers = 1\n[limits]\nconnect_timeout = \"2s\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\nmax_connections = 1\n",
        origin.addr()
    );
    let proxy = Proxy::config(config).start();
    let mut first = proxy.open(GET).await;
    let mut server = origin.accept().await;
    server.read_head().await;

    // Nothing becomes free: an answer that says so.
    let mut second = proxy.open(GET).await;
    let answer = second.read_response().await;
    assert!([503, 504].contains(&answer.status()), "{}", answer.head.start);

    // Something becomes free: it is taken.
    let mut third = proxy.open("GET /third HTTP/1.1\r\nHost: test\r\n\r\n").await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    first.expect_status(200).await;
    assert_eq!(server.read_head().await.target(), "/third");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    third.expect_status(200).await;
}
