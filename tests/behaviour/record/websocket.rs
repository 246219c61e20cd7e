//! Frames of WebSockets, where they are recorded: what both sides said is in the record, and what
//! goes through is what it was without.

use mantra_macros::req_test;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;
use underpass::record::{Side, read::Record, show::socket};
use underpass_tests::{
    Origin, Proxy, ProxyBuilder, Records, Wire, pattern,
    proxy::run,
    websocket::{self, frame},
};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

fn recorded(origin: &Origin, records: &Records) -> ProxyBuilder {
    Proxy::reverse(origin.addr()).args(records.args()).args(["--record-websocket"])
}

/// Both ends of a tunnel behind a 101 with these fields.
async fn ends(proxy: &Proxy, origin: &Origin, fields: &str) -> (Wire, Wire) {
    let mut client = proxy.open(UPGRADE).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send(format!("{SWITCHED}{fields}\r\n")).await;
    assert_eq!(client.read_head().await.status(), 101);
    (client, server)
}

/// Closes both, and what was recorded of it.
async fn closed(records: &Records, client: Wire, server: Wire) -> Record {
    let (mut client, mut server) = (client, server);
    client.finish().await;
    server.expect_fin().await;
    server.finish().await;
    client.expect_fin().await;
    records.only().await
}

fn said(record: &Record) -> Vec<(Side, &'static str, Vec<u8>)> {
    let all = socket::messages(record, 1 << 30);
    all.into_iter().map(|message| (message.side, message.kind(), message.data)).collect()
}

#[req_test("REQ-REC-003", "REQ-TUN-001")]
#[tokio::test]
async fn what_both_sides_say_is_recorded() {
    let (origin, records) = (Origin::bind().await, Records::default());
    let proxy = recorded(&origin, &records).start();
    let serving = tokio::spawn(async move { websocket::echo(origin.accept().await).await });
    let mut socket = websocket::open(proxy.addr()).await;
    let mut wanted = Vec::new();
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let bytes = pattern::bytes(size);
        websocket::round_trip(&mut socket, bytes.clone()).await;
        wanted.push(("binary", bytes));
    }
    websocket::round_trip(&mut socket, "hello \u{2713}").await;
    wanted.push(("text", "hello \u{2713}".as_bytes().to_vec()));
    let engine = &proxy.tunnels().await[0]["engine"];
    for direction in ["to_upstream", "to_downstream"] {
        assert_eq!(engine[direction]["name"], "copy", "{engine}");
        assert_eq!(engine[direction]["reason"], "recorded", "{engine}");
    }
    websocket::close(socket).await;
    serving.await.unwrap();
    let record = records.only().await;
    assert!(record.is_whole(), "{:?}", record.end);
    for side in Side::ALL {
        let all = said(&record);
        let data: Vec<_> = all
            .into_iter()
            .filter(|(of, kind, _)| *of == side && *kind != "close")
            .map(|(_, kind, data)| (kind, data))
            .collect();
        assert!(data == wanted, "{side:?}: {} messages", data.len());
        let masked = record.body(side).frames.iter().all(|frame| frame.masked);
        assert_eq!(masked, side == Side::Request);
    }
    let folder = records.path().to_str().unwrap();
    let shown = run(&["record", "show", "last", "--dir", folder]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    for line in ["> text  hello \u{2713}", "< text  hello \u{2713}", "> close"] {
        assert!(shown.contains(line), "{line}");
    }
    let har = run(&["record", "export", "--format", "har", "--dir", folder]);
    let har: Value = serde_json::from_slice(&har.stdout).unwrap();
    let entry = &har["log"]["entries"][0];
    assert_eq!(entry["_resourceType"], "websocket");
    let messages = entry["_webSocketMessages"].as_array().unwrap();
    assert_eq!(messages.len(), 2 * wanted.len());
    let text: Vec<&Value> = messages.iter().filter(|message| message["opcode"] == 1).collect();
    assert_eq!((&text[0]["type"], &text[1]["type"]), (&"send".into(), &"receive".into()));
    assert_eq!(text[0]["data"], "hello \u{2713}");
    let time = text[0]["time"].as_f64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((now.as_secs_f64() - time).abs() < 600.0, "{time}");
    let html = run(&["record", "export", "--format", "html", "--dir", folder]);
    assert!(String::from_utf8_lossy(&html.stdout).contains("\"kind\":\"text\""));
}

/// Without being asked for it is a tunnel as before.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn frames_are_not_recorded_unasked() {
    let (origin, records) = (Origin::bind().await, Records::default());
    let proxy = Proxy::reverse(origin.addr()).args(records.args()).start();
    let (mut client, mut server) = ends(&proxy, &origin, "").await;
    client.send(frame(0x81, Some([1, 2, 3, 4]), b"hidden")).await;
    server.read_exact(12).await;
    assert_eq!(proxy.tunnels().await[0]["engine"]["to_upstream"]["reason"], Value::Null);
    let record = closed(&records, client, server).await;
    assert!(record.bodies.iter().all(|body| body.frames.is_empty() && body.length == 0));
}

/// Fragments with a ping among them, compression as it was agreed, and what came together with
/// the heads.
#[req_test("REQ-REC-003")]
#[tokio::test]
async fn fragments_compression_and_early_frames_are_recorded() {
    let (origin, records) = (Origin::bind().await, Records::default());
    let proxy = recorded(&origin, &records).start();
    let mask = Some([9, 8, 7, 6]);
    let early = frame(0x81, mask, b"early");
    let mut client = proxy.open([UPGRADE.as_bytes(), &early].concat()).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    let answer = format!("{SWITCHED}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    server.send([answer.as_bytes(), &frame(0x81, None, b"early, too")].concat()).await;
    assert_eq!(client.read_head().await.status(), 101);
    server.expect(&early).await;
    client.read_exact(12).await;
    let mut deflate = flate2::Compress::new(flate2::Compression::best(), false);
    let mut compressed = Vec::with_capacity(1024);
    deflate
        .compress_vec(b"squeezed squeezed", &mut compressed, flate2::FlushCompress::Sync)
        .unwrap();
    compressed.truncate(compressed.len() - 4);
    let sent = [
        frame(0x01, mask, b"one "),
        frame(0x89, mask, b"ping"),
        frame(0x00, mask, b"mes"),
        frame(0x80, mask, b"sage"),
        frame(0xc1, mask, &compressed),
    ]
    .concat();
    for piece in sent.chunks(3) {
        client.send(piece).await;
    }
    assert_eq!(server.read_exact(sent.len()).await, sent, "byte for byte");
    let record = closed(&records, client, server).await;
    let wanted: [(Side, &str, &[u8]); 5] = [
        (Side::Request, "text", b"early"),
        (Side::Response, "text", b"early, too"),
        (Side::Request, "text", b"one message"),
        (Side::Request, "ping", b"ping"),
        (Side::Request, "text", b"squeezed squeezed"),
    ];
    assert_eq!(said(&record), wanted.map(|(side, kind, data)| (side, kind, data.to_vec())));
    assert_eq!(record.body(Side::Request).frames[5].first, 0xc1, "as it came");
}

/// Reserved bits, unknown opcodes, lengths that nobody can mean: not the proxy's to judge.
#[req_test("REQ-REC-005", "REQ-TUN-001")]
#[tokio::test]
async fn hostile_frames_pass_as_they_are() {
    let (origin, records) = (Origin::bind().await, Records::default());
    let proxy = recorded(&origin, &records).start();
    let (mut client, mut server) = ends(&proxy, &origin, "").await;
    let hostile = [
        frame(0xf3, Some([0xff; 4]), b"reserved"),
        frame(0x8f, None, &[7; 300]),
        b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        vec![0xee; 100_000],
    ]
    .concat();
    client.send(&hostile).await;
    assert!(server.read_exact(hostile.len()).await == hostile, "byte for byte");
    let record = closed(&records, client, server).await;
    let frames = &record.body(Side::Request).frames;
    let heads: Vec<_> = frames.iter().map(|frame| (frame.first, frame.len)).collect();
    assert_eq!(heads, [(0xf3, 8), (0x8f, 300), (0x82, u64::MAX)]);
    assert_eq!(record.body(Side::Request).length, 8 + 300 + 100_000);
}

/// A frame larger than all the memory there is: what has no room is marked, byte for byte, and
/// memory stays where it was.
#[req_test("REQ-REC-001", "REQ-REC-005")]
#[tokio::test]
async fn a_frame_of_a_gigabyte_takes_no_more_memory_than_it_may() {
    let (origin, records) = (Origin::bind().await, Records::default());
    let config = format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n{}\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"o\"\n[[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        records.section("websocket = true\nmemory_bytes = \"1MiB\"\nmax_total_bytes = \"100GiB\""),
        origin.addr()
    );
    let proxy = Proxy::config(config).start();
    let mut client = Wire::open(proxy.listener("web"), UPGRADE).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send(format!("{SWITCHED}\r\n")).await;
    assert_eq!(client.read_head().await.status(), 101);
    let before = proxy.resident_bytes();
    const SIZE: u64 = 1 << 30;
    // The rest of it never comes: it is cut off.
    const SENT: u64 = 256 << 20;
    let mut head = vec![0x82, 127];
    head.extend(SIZE.to_be_bytes());
    client.send(&head).await;
    server.expect(&head).await;
    let mut most = 0;
    for _ in 0..SENT >> 20 {
        let piece = vec![0x55; 1 << 20];
        let (_, got) = tokio::join!(client.send(&piece), server.read_exact(piece.len()));
        assert!(got == piece, "byte for byte");
        most = most.max(proxy.resident_bytes());
    }
    assert!(most < before + (24 << 20), "{} bytes more", most - before);
    let record = closed(&records, client, server).await;
    let body = record.body(Side::Request);
    assert_eq!(body.length + record.missing_bytes(), SENT);
    assert_eq!(body.frames[0].len, SIZE);
    let message = &socket::messages(&record, 1 << 30)[0];
    assert!(message.stopped.is_some(), "it was cut off");
}

/// What is to be blanked is blanked in text; compressed text cannot be searched, and is left out.
#[req_test("REQ-REC-006")]
#[tokio::test]
async fn secrets_in_messages_are_blanked() {
    let (origin, records) = (Origin::bind().await, Records::default());
    let redact = "websocket = true\n[record.redact]\njson_fields = [\"key\"]\n\
                  patterns = ['sk-[a-z0-9]+']";
    let config = format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n{}\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"o\"\n[[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        records.section(redact),
        origin.addr()
    );
    let proxy = Proxy::config(config).start();
    let mut client = Wire::open(proxy.listener("web"), UPGRADE).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    server.send(format!("{SWITCHED}\r\n")).await;
    client.read_head().await;
    let mask = Some([3, 1, 4, 1]);
    let sent = [
        frame(0x81, mask, br#"{"key":"s3cret-1""#),
        frame(0x81, mask, br#"{"a":1,"key":"s3cret-2"}"#),
        frame(0x01, mask, br#"{"key":"s3c"#),
        frame(0x89, mask, b"sk-s3cret3"),
        frame(0x80, mask, br#"ret-4"} sk-s3cret5"#),
        frame(0xc1, mask, b"s3cret-6"),
    ]
    .concat();
    client.send(&sent).await;
    assert_eq!(server.read_exact(sent.len()).await, sent, "byte for byte");
    let record = closed(&records, client, server).await;
    let stored = String::from_utf8_lossy(&records.bytes()).into_owned();
    assert!(!stored.contains("s3c"), "{stored}");
    let said = said(&record);
    let text = |at: usize| String::from_utf8_lossy(&said[at].2).into_owned();
    assert_eq!(text(1), r#"{"a":1,"key":"********"}"#);
    assert_eq!(text(2), r#"{"key":"********"} **********"#);
    assert_eq!(said.iter().filter(|(_, kind, _)| *kind == "ping").count(), 1);
    assert_eq!(record.missing_bytes(), 8, "what is compressed is left out");
}

/// A message that is there although no room was for it: an empty one.
#[tokio::test]
async fn an_empty_message_is_one() {
    let (origin, records) = (Origin::bind().await, Records::default());
    let proxy = recorded(&origin, &records).start();
    let serving = tokio::spawn(async move { websocket::echo(origin.accept().await).await });
    let mut socket = websocket::open(proxy.addr()).await;
    websocket::round_trip(&mut socket, Message::text("")).await;
    websocket::close(socket).await;
    serving.await.unwrap();
    let record = records.only().await;
    assert_eq!(said(&record)[0], (Side::Request, "text", Vec::new()));
}
