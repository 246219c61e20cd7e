//! What requests, answers and logs have of TLS.

use mantra_macros::req_test;
use underpass_tests::{
    Proxy, Served, Wire, eventually,
    tls::{Authority, Folder, TlsClient},
};

use super::{certificates, proxy, text};

/// The scheme of a redirect, and the fields of the access log.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn redirects_and_logs_know_of_it() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let origin = Served::ok().await;
    let mut config = text("", &certificates(&folder, &["site"]), origin.addr());
    config.push_str(
        "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\npath = \"/there\"\nredirect = { to = \"{scheme}://{host}/here\" }\n",
    );
    let proxy = Proxy::config(config).start();
    let client = TlsClient::speaking(&authority, &rustls::version::TLS13);
    let mut connection = client.connect(proxy.listener("web"), "a.test").await;
    let ask = "GET /there HTTP/1.1\r\nHost: a.test\r\n\r\n";
    connection.send(ask).await;
    let answer = connection.read_response().await;
    assert_eq!(answer.head.get("location"), Some("https://a.test/here"));
    let mut plain = Wire::open(proxy.listener("plain"), ask).await;
    let answer = plain.read_response().await;
    assert_eq!(answer.head.get("location"), Some("http://a.test/here"));
    let line = proxy.log_line(&["listener=web", "tls_version=1.3", "tls_server_name=a.test"]).await;
    assert!(line.contains("tls_cipher=TLS_AES_"), "{line}");
    let line = proxy.log_line(&["listener=plain", "target=/there"]).await;
    assert!(!line.contains("tls_"), "{line}");
    // Where it listens is said with the scheme, and what is in force holds no key.
    let shown = proxy.ask_admin("GET", "/config").await.text();
    assert!(shown.contains("[listener.tls]") && shown.contains("site.key"), "{shown}");
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

/// One certificate by flags.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_quick_proxy_speaks_it_too() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let origin = Served::ok().await;
    let [cert, key] = ["site.pem", "site.key"].map(|name| folder.path(name).display().to_string());
    let flags = ["--tls-cert", &cert, "--tls-key", &key];
    let proxy = Proxy::reverse(origin.addr()).args(flags).start();
    let mut connection = TlsClient::trusting(&authority).connect(proxy.addr(), "a.test").await;
    assert_eq!(connection.get("a.test").await.text(), "ok");
    let output = underpass_tests::proxy::run(&[
        "reverse",
        "--listen",
        "127.0.0.1:0",
        "--to",
        "127.0.0.1:1",
        "--tls-cert",
        &key,
        "--tls-key",
        &key,
    ]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--tls-cert") && said.contains("holds no certificate"), "{said}");
}

/// A listener may come to TLS by a reload; connections that are open stay what they are.
#[req_test("REQ-EDGE-006", "REQ-EDGE-008")]
#[tokio::test]
async fn a_reload_may_bring_it() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let origin = Served::ok().await;
    let with = text("", &certificates(&folder, &["site"]), origin.addr());
    let section = with.find("[listener.tls]").unwrap()..with.find("[[route]]").unwrap();
    let mut without = with.clone();
    without.replace_range(section, "");
    let mut proxy = Proxy::config(without.clone()).start();
    let ask = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut plain = Wire::open(proxy.listener("web"), ask).await;
    plain.expect_status(200).await;
    proxy.reload(&with).await;
    let client = TlsClient::trusting(&authority);
    eventually("TLS", async || client.try_connect(proxy.listener("web"), "a.test").await.is_ok())
        .await;
    plain.send(ask).await;
    plain.expect_status(200).await;
    let mut secured = client.connect(proxy.listener("web"), "a.test").await;
    proxy.reload(&without).await;
    Wire::open(proxy.listener("web"), ask).await.expect_status(200).await;
    assert_eq!(secured.get("a.test").await.text(), "ok");
}

/// RFC 9112 section 3.2.2: the form that clients of proxies use, of servers too.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn an_absolute_target_with_https_is_taken() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let origin = Served::ok().await;
    let proxy = proxy("", &certificates(&folder, &["site"]), origin.addr()).start();
    let client = TlsClient::trusting(&authority);
    let mut connection = client.connect(proxy.listener("web"), "a.test").await;
    connection.send("GET https://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(connection.read_response().await.status(), 200);
    assert_eq!(origin.targets(), ["/x"]);
}

/// What a trusted proxy in front says comes before the handshake.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn an_announced_client_is_known_inside_tls() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let origin = Served::ok().await;
    let trusted = "proxy_protocol = { trusted = [\"127.0.0.0/8\"] }";
    let proxy = proxy(trusted, &certificates(&folder, &["site"]), origin.addr()).start();
    let mut stream = tokio::net::TcpStream::connect(proxy.listener("web")).await.unwrap();
    let header = "PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, header.as_bytes()).await.unwrap();
    let client = TlsClient::trusting(&authority);
    let mut connection = client.over(stream, "a.test").await.unwrap();
    assert_eq!(connection.get("a.test").await.text(), "ok");
    let seen = origin.only();
    assert_eq!(seen.head.get("x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(seen.head.get("x-forwarded-proto"), Some("https"));
}

/// The port that need not be written is that of https.
#[req_test("REQ-EDGE-006", "REQ-EDGE-004")]
#[tokio::test]
async fn the_default_port_of_a_target_is_its_schemes() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let origin = Served::ok().await;
    let proxy = proxy("", &certificates(&folder, &["site"]), origin.addr()).start();
    let client = TlsClient::trusting(&authority);
    for (target, host, status) in [
        ("https://a.test/", "a.test:443", 200),
        ("https://a.test:443/", "a.test", 200),
        ("https://a.test/", "a.test", 200),
        ("https://a.test/", "a.test:80", 400),
        ("https://a.test:80/", "a.test", 400),
        ("http://a.test/", "a.test:443", 400),
    ] {
        let mut connection = client.connect(proxy.listener("web"), "a.test").await;
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(connection.read_response().await.status(), status, "{target} {host}");
    }
}
