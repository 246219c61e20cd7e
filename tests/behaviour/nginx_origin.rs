//! nginx as the origin: ranges, compression, keep-alive, conditional requests.

use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Nginx, Proxy, Version, collect,
    curl::{curl, peer},
    over_versions, pattern,
};

over_versions!(a_file_arrives_whole_and_in_parts);

#[req_test("REQ-CORE-001.F-003")]
async fn a_file_arrives_whole_and_in_parts(version: Version) {
    let content = pattern::bytes(3 << 20);
    let Some(nginx) = Nginx::serve(&[("big.bin", &content)]) else { return };
    let proxy = Proxy::reverse(nginx.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    let answer = client.get("/big.bin").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-length"], "3145728");
    assert_eq!(answer.headers()["accept-ranges"], "bytes");
    let etag = answer.headers()["etag"].clone();
    assert!(collect(answer.into_body()).await.unwrap().0 == content);

    let ask = |client: &HttpClient, name: &str, value: &[u8]| {
        let builder = client.request(http::Method::GET, "/big.bin").header(name, value);
        builder.body(underpass_tests::OutBody::Empty).unwrap()
    };
    let answer = client.send(ask(&client, "range", b"bytes=1000000-1000099")).await.unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.headers()["content-range"], "bytes 1000000-1000099/3145728");
    pattern::check(1_000_000, &collect(answer.into_body()).await.unwrap().0);

    let answer = client.send(ask(&client, "if-none-match", etag.as_bytes())).await.unwrap();
    assert_eq!(answer.status(), 304);
    let answer = client.send(ask(&client, "range", b"bytes=99999999-")).await.unwrap();
    assert_eq!(answer.status(), 416);
    assert_eq!(client.get("/missing").await.status(), 404);
}

#[tokio::test]
async fn compressed_answers_pass_as_they_are() {
    if !peer("curl") {
        return;
    }
    let text = "compressible ".repeat(1000);
    let Some(nginx) = Nginx::serve(&[("a.txt", text.as_bytes())]) else { return };
    let proxy = Proxy::reverse(nginx.addr()).start();
    let url = format!("http://{}/a.txt", proxy.addr());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let raw = curl(&[version, "-H", "Accept-Encoding: gzip", "-D", "-", &url]).await;
        let head = String::from_utf8_lossy(&raw.stdout).to_ascii_lowercase();
        assert!(head.contains("content-encoding: gzip"), "{version}");
        assert!(raw.stdout.len() < text.len());
        let plain = curl(&[version, "--compressed", &url]).await;
        assert_eq!(plain.text(), text, "{version}");
    }
}

/// nginx counts requests per connection: all of ours come on one.
#[req_test("REQ-CTRL-001")]
#[tokio::test]
async fn connections_to_nginx_are_kept() {
    let Some(nginx) = Nginx::serve(&[("a.txt", b"a")]) else { return };
    let proxy = Proxy::reverse(nginx.addr()).start();
    for _ in 0..5 {
        let mut client = proxy.open("GET /a.txt HTTP/1.1\r\nHost: test\r\n\r\n").await;
        client.expect_status(200).await;
    }
    underpass_tests::eventually("nginx's log", async || nginx.access_log().len() == 5).await;
    let log = nginx.access_log();
    let mut connections: Vec<_> = log.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    connections.dedup();
    assert_eq!(connections.len(), 1, "{log:?}");
    let counts: Vec<_> = log.iter().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(counts, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn nginx_sees_the_host_that_was_asked_for() {
    let Some(nginx) = Nginx::serve(&[]) else { return };
    let proxy = Proxy::reverse(nginx.addr()).start();
    let request = "GET /echo-host HTTP/1.1\r\nHost: public.example\r\n\r\n";
    assert_eq!(proxy.open(request).await.expect_status(200).await.text(), "public.example\n");
}
