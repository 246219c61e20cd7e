//! Which exchanges are recorded, and what of those that no server answers.

use mantra_macros::req_test;
use underpass::record::{Side, read::Record};
use underpass_tests::{
    Origin, Proxy, Records, Refusing, Served, eventually,
    h2_tunnel::{H2Caller, granting},
    tls::{Authority, Folder, TlsClient},
};

fn targets(records: &[Record]) -> Vec<String> {
    let mut all: Vec<String> =
        records.iter().filter_map(|record| Some(record.begin.as_ref()?.target.clone())).collect();
    all.sort();
    all
}

#[req_test("REQ-REC-006")]
#[tokio::test]
async fn listeners_and_routes_say_what_is_recorded() {
    let origin = Served::ok().await;
    let records = Records::default();
    let proxy = Proxy::config(format!(
        "workers = 1\n{}\
         [[listener]]\nname = \"on\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"off\"\naddress = \"127.0.0.1:0\"\nrecord = false\n\
         [[route]]\nupstream = \"o\"\n\
         [[route]]\npath_prefix = \"/secret/\"\nrecord = false\nupstream = \"o\"\n\
         [[route]]\npath_prefix = \"/api/\"\nrecord = true\nupstream = \"o\"\n\
         [[route]]\npath = \"/moved\"\nredirect = {{ to = \"/elsewhere\" }}\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        records.section(""),
        origin.addr()
    ))
    .start();
    for listener in ["on", "off"] {
        for path in ["plain", "secret/a", "api/a", "moved"] {
            let ask =
                format!("GET /{path}?{listener} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
            let mut wire = underpass_tests::Wire::open(proxy.listener(listener), ask).await;
            wire.read_response().await;
        }
    }
    let found = records.ended(4).await;
    assert_eq!(targets(&found), ["/api/a?off", "/api/a?on", "/moved?on", "/plain?on"]);
    assert!(found.iter().all(Record::is_whole));
    let by = |path: &str| {
        let of = found.iter().find(|r| r.begin.as_ref().unwrap().target.starts_with(path));
        of.and_then(|record| record.answer.clone()).expect("an answer")
    };
    let shown = |path| (by(path).status, by(path).by);
    assert_eq!(shown("/moved"), (302, "proxy".to_owned()));
    assert_eq!(shown("/plain"), (200, "server".to_owned()));
}

#[req_test("REQ-REC-001")]
#[tokio::test]
async fn an_answer_of_our_own_is_recorded_with_its_fault() {
    let refusing = Refusing::bind();
    let records = Records::default();
    let proxy = Proxy::reverse(refusing.addr()).args(records.args()).start();
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let body = client.expect_status(502).await.body;
    let record = records.only().await;
    assert_eq!(record.answer.as_ref().map(|a| (a.status, a.by.as_str())), Some((502, "proxy")));
    assert_eq!(record.body(Side::Response).bytes, body);
    let end = record.end.as_ref().unwrap();
    assert_eq!((end.how.as_str(), end.error.as_deref()), ("error", Some("connect")));
}

/// A tunnel's head and how much went through it; its bytes are its own.
#[req_test("REQ-REC-001")]
#[tokio::test]
async fn tunnels_have_their_heads_and_counts() {
    let origin = Origin::bind().await;
    let records = Records::default();
    let proxy = Proxy::reverse(origin.addr()).args(records.args()).start();
    let mut client = proxy
        .open("GET /ws HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        .await;
    let mut server = origin.accept().await;
    server.read_request().await;
    server
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        )
        .await;
    assert_eq!(client.read_head().await.status(), 101);
    client.send("up").await;
    server.expect("up").await;
    server.send("down!").await;
    client.expect("down!").await;
    drop(client);
    server.expect_end().await;
    drop(server);
    let record = records.only().await;
    let end = record.end.as_ref().unwrap();
    assert_eq!((end.how.as_str(), end.request_bytes, end.response_bytes), ("tunnel", 2, 5));
    let answer = record.answer.as_ref().expect("an answer");
    assert_eq!((answer.status, answer.by.as_str()), (101, "server"));
    assert_eq!(record.body(Side::Response).length, 0);
}

/// One over HTTP/2 too, as the Upgrade that the server is sent.
#[req_test("REQ-REC-001", "REQ-EDGE-005")]
#[tokio::test]
async fn tunnels_over_http2_have_theirs() {
    let origin = Origin::bind().await;
    let records = Records::default();
    let proxy = Proxy::reverse(origin.addr()).args(records.args()).start();
    let mut caller = H2Caller::connect(proxy.addr()).await;
    let called = caller.websocket("/ws?token=s3cret").await;
    let mut server = origin.accept().await;
    let head = server.read_head().await;
    server.send(granting(&head, "")).await;
    let mut client = called.opened().await.1.into_leg();
    client.send("up").await;
    server.expect("up").await;
    server.send("down!").await;
    client.expect("down!").await;
    client.reset();
    server.expect_end().await;
    let record = records.only().await;
    let end = record.end.as_ref().unwrap();
    assert_eq!((end.how.as_str(), end.request_bytes, end.response_bytes), ("tunnel", 2, 5));
    let answer = record.answer.as_ref().expect("an answer");
    assert_eq!((answer.status, answer.by.as_str()), (101, "server"));
    assert_eq!(targets(&[record]), ["/ws?token=***"]);
}

#[req_test("REQ-REC-001")]
#[tokio::test]
async fn a_forward_proxy_records_what_it_looks_into_and_the_heads_of_connect() {
    let origin = Served::ok().await;
    let records = Records::default();
    let proxy = Proxy::forward().args(["--allow", "127.0.0.0/8", "--allow-port", "1-65535"]);
    let proxy = proxy.args(records.args()).start();
    let at = origin.addr();
    let ask = format!("GET http://{at}/x?key=s3cret HTTP/1.1\r\nHost: {at}\r\n\r\n");
    proxy.open(ask).await.expect_status(200).await;
    let mut tunnel = proxy.open(format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n")).await;
    tunnel.read_head().await;
    drop(tunnel);
    let found = records.ended(2).await;
    assert_eq!(targets(&found), [at.to_string(), format!("http://{at}/x?key=***")]);
}

/// Where the folder cannot be written the proxy does not start, and says why.
#[test]
fn a_folder_that_cannot_be_written_is_an_error_of_the_start() {
    let args = ["reverse", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--record", "/proc/x"];
    let output = underpass_tests::proxy::run(&args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("record: cannot write to /proc/x"), "{said}");
}

/// A reload switches it for routes; the recorder itself stays as it is.
#[req_test("REQ-REC-006")]
#[tokio::test]
async fn a_reload_switches_routes_on_and_off() {
    let origin = Served::ok().await;
    let records = Records::default();
    let config = |record: bool| {
        format!(
            "workers = 1\n{}[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nrecord = {record}\nupstream = \"o\"\n\
             [[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
            records.section(""),
            origin.addr()
        )
    };
    let proxy = Proxy::config(config(false)).start();
    let mut client = proxy.open("GET /before HTTP/1.1\r\nHost: t\r\n\r\n").await;
    client.expect_status(200).await;
    std::fs::write(proxy.config_path(), config(true)).expect("write");
    proxy.signal(rustix::process::Signal::HUP);
    proxy.log_line(&["configuration reloaded"]).await;
    client.send("GET /after HTTP/1.1\r\nHost: t\r\n\r\n").await;
    client.expect_status(200).await;
    records.ended(1).await;
    eventually("one record", async || targets(&records.all()) == ["/after"]).await;
}

/// Inside TLS as outside: what is recorded is what was said, and how it came.
#[req_test("REQ-REC-001")]
#[tokio::test]
async fn requests_inside_tls_are_recorded_as_https() {
    let origin = Served::ok().await;
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let records = Records::default();
    let proxy = Proxy::config(format!(
        "workers = 1\n{}[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [listener.tls]\ncertificates = [{}]\n[[route]]\nupstream = \"o\"\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        records.section(""),
        folder.entry("site"),
        origin.addr()
    ))
    .start();
    let client = TlsClient::trusting(&authority);
    let mut client = client.connect(proxy.addr(), "a.test").await;
    client.send("GET /x?token=s3cret HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    client.expect("HTTP/1.1 200 OK\r\n").await;
    let record = records.only().await;
    assert_eq!(record.begin.as_ref().unwrap().url(), "https://a.test/x?token=***");
    assert_eq!(record.body(Side::Response).bytes, b"ok");
}
