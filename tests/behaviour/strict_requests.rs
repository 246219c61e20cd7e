//! A request head that two parsers could read differently is refused, and the origin sees
//! nothing of it (RFC 9112 2.2, 3, 5, 6; RFC 9110 5, 7.2).
//!
//! Every row goes to the same proxy on a connection of its own; after each a good request
//! follows, and it must be all that reached the origin, on the one pooled connection.

use mantra_macros::req_test;
use underpass_tests::{Origin, Proxy, Reply, Served, Wire};

/// Status for a plain fault.
const BAD: &[u16] = &[400];
/// A transfer coding nobody knows may also be called not implemented (RFC 9112 6.1).
const CODING: &[u16] = &[400, 501];
/// A version nobody speaks (RFC 9110 15.6.6).
const VERSION: &[u16] = &[400, 505];

struct Refused {
    why: &'static str,
    head: Vec<u8>,
    statuses: &'static [u16],
}

fn refused(why: &'static str, head: impl AsRef<[u8]>, statuses: &'static [u16]) -> Refused {
    Refused { why, head: head.as_ref().to_vec(), statuses }
}

/// A POST with these field lines behind a good Host.
fn fields(why: &'static str, lines: impl AsRef<[u8]>, statuses: &'static [u16]) -> Refused {
    let (lead, tail) = (b"POST /bad HTTP/1.1\r\nHost: test\r\n", b"\r\n\r\nhello");
    refused(why, [lead.as_slice(), lines.as_ref(), tail].concat(), statuses)
}

/// A head with this request line and a good Host.
fn line(why: &'static str, line: impl AsRef<[u8]>, statuses: &'static [u16]) -> Refused {
    refused(why, [line.as_ref(), b"\r\nHost: test\r\n\r\n"].concat(), statuses)
}

/// A head whose only field lines are these.
fn hosts(why: &'static str, lines: &str) -> Refused {
    refused(why, format!("GET /bad HTTP/1.1\r\n{lines}\r\n"), BAD)
}

fn lengths() -> Vec<Refused> {
    vec![
        fields("different lengths", "Content-Length: 5\r\nContent-Length: 6", BAD),
        fields("the same length twice", "Content-Length: 5\r\nContent-Length: 5", BAD),
        fields("a list of lengths", "Content-Length: 5, 5", BAD),
        fields("a list of different lengths", "Content-Length: 5, 6", BAD),
        fields("plus sign", "Content-Length: +5", BAD),
        fields("minus sign", "Content-Length: -5", BAD),
        fields("space within", "Content-Length: 5 5", BAD),
        fields("underscore", "Content-Length: 5_0", BAD),
        fields("hexadecimal", "Content-Length: 0x5", BAD),
        fields("fraction", "Content-Length: 5.0", BAD),
        fields("no digits", "Content-Length: five", BAD),
        fields("empty length", "Content-Length:", BAD),
        fields("quoted", "Content-Length: \"5\"", BAD),
        fields("digits of another script", "Content-Length: \u{665}", BAD),
        fields("2^64", "Content-Length: 18446744073709551616", BAD),
        fields("2^64+5", "Content-Length: 18446744073709551621", BAD),
        fields("forty digits", format!("Content-Length: {}5", "1".repeat(39)), BAD),
        fields("vertical tab", "Content-Length: \x0b5", BAD),
    ]
}

fn codings() -> Vec<Refused> {
    vec![
        fields("coding and length", "Transfer-Encoding: chunked\r\nContent-Length: 5", BAD),
        fields("length and coding", "Content-Length: 5\r\nTransfer-Encoding: chunked", BAD),
        fields("unknown coding and length", "Content-Length: 5\r\nTransfer-Encoding: x", CODING),
        fields("chunked not last", "Transfer-Encoding: chunked, gzip", CODING),
        fields("not chunked", "Transfer-Encoding: gzip", CODING),
        fields("identity", "Transfer-Encoding: identity", CODING),
        fields("a coding before chunked", "Transfer-Encoding: gzip, chunked", CODING),
        fields("chunked twice", "Transfer-Encoding: chunked, chunked", CODING),
        fields("two fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", CODING),
        fields("second is other", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x", CODING),
        fields("first is other", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked", CODING),
        fields("near miss", "Transfer-Encoding: xchunked", CODING),
        fields("near miss behind", "Transfer-Encoding: chunkedx", CODING),
        fields("quoted", "Transfer-Encoding: \"chunked\"", CODING),
        fields("with a parameter", "Transfer-Encoding: chunked;a=b", CODING),
        fields("empty coding", "Transfer-Encoding:", CODING),
        fields("only a comma", "Transfer-Encoding: ,", CODING),
        fields("vertical tab", "Transfer-Encoding: \x0bchunked", CODING),
        fields("form feed", "Transfer-Encoding: chunked\x0c", CODING),
        fields("NUL", "Transfer-Encoding: chunked\0", CODING),
        refused(
            "coding in HTTP/1.0",
            "POST /bad HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            CODING,
        ),
    ]
}

fn field_lines() -> Vec<Refused> {
    vec![
        refused("bare LF everywhere", "GET /bad HTTP/1.1\nHost: test\n\n", BAD),
        refused("bare LF behind the request line", "GET /bad HTTP/1.1\nHost: test\r\n\r\n", BAD),
        refused("bare LF behind a field", "GET /bad HTTP/1.1\r\nHost: test\nA: b\r\n\r\n", BAD),
        refused("bare LF at the end", "GET /bad HTTP/1.1\r\nHost: test\r\n\n", BAD),
        fields("bare CR in a value", "A: b\rContent-Length: 5", BAD),
        fields("CR CR LF", "A: b\r\r\nB: c", BAD),
        fields("bare CR in a name", "A\rB: c", BAD),
        fields("folded by space", "A: b\r\n c", BAD),
        fields("folded by tab", "A: b\r\n\tc", BAD),
        fields("folded coding", "Transfer-Encoding:\r\n chunked", BAD),
        fields("space before the colon", "Content-Length : 5", BAD),
        fields("tab before the colon", "Transfer-Encoding\t: chunked", BAD),
        fields("space in a name", "Content Length: 5", BAD),
        fields("NUL in a value", "A: b\0c", BAD),
        fields("NUL in a name", "A\0: b", BAD),
        fields("control character in a value", "A: b\x01c", BAD),
        fields("DEL in a value", "A: b\x7f", BAD),
        fields("non-ASCII in a name", "\u{c4}: b", BAD),
        fields("separator in a name", "A(b): c", BAD),
        fields("empty name", ": b", BAD),
        fields("no colon", "Nonsense", BAD),
        refused(
            "white space before the first field",
            "GET /bad HTTP/1.1\r\n Host: test\r\nHost: test\r\n\r\n",
            BAD,
        ),
        refused("a line of white space", "GET /bad HTTP/1.1\r\n \r\nHost: test\r\n\r\n", BAD),
        fields(
            "Connection names Content-Length",
            "Connection: content-length\r\nContent-Length: 5",
            BAD,
        ),
        fields("Connection names Host", "Connection: close, Host", BAD),
        fields(
            "Connection names Transfer-Encoding",
            "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
            BAD,
        ),
        fields("Connection names itself a list of Host", "Connection: a, b, HOST ,c", BAD),
    ]
}

fn host_rules() -> Vec<Refused> {
    vec![
        hosts("no Host", "Accept: */*\r\n"),
        hosts("two Hosts", "Host: test\r\nHost: other\r\n"),
        hosts("the same Host twice", "Host: test\r\nhost: test\r\n"),
        hosts("a list in Host", "Host: a, b\r\n"),
        hosts("space in Host", "Host: a b\r\n"),
        hosts("userinfo in Host", "Host: user@test\r\n"),
        hosts("path in Host", "Host: test/path\r\n"),
        hosts("query in Host", "Host: test?x\r\n"),
        hosts("fragment in Host", "Host: test#x\r\n"),
        hosts("backslash in Host", "Host: te\\st\r\n"),
        hosts("angle brackets in Host", "Host: <test>\r\n"),
        hosts("letters for a port", "Host: test:http\r\n"),
        hosts("port out of range", "Host: test:65536\r\n"),
        hosts("two ports", "Host: test:80:81\r\n"),
        hosts("open bracket", "Host: [::1\r\n"),
        hosts("junk behind the bracket", "Host: [::1]x\r\n"),
        hosts("non-ASCII in Host", "Host: t\u{eb}st\r\n"),
        refused(
            "target and Host differ",
            "GET http://other/bad HTTP/1.1\r\nHost: test\r\n\r\n",
            BAD,
        ),
        refused(
            "target and Host differ by port",
            "GET http://test:81/bad HTTP/1.1\r\nHost: test:82\r\n\r\n",
            BAD,
        ),
        refused("absolute form without Host", "GET http://test/bad HTTP/1.1\r\n\r\n", BAD),
        refused(
            "userinfo in the target",
            "GET http://u:p@test/ HTTP/1.1\r\nHost: test\r\n\r\n",
            BAD,
        ),
    ]
}

fn request_lines() -> Vec<Refused> {
    vec![
        line("no version", "GET /bad", BAD),
        line("no target", "GET HTTP/1.1", BAD),
        line("empty target", "GET  HTTP/1.1", BAD),
        line("two spaces before the version", "GET /bad  HTTP/1.1", BAD),
        line("tab before the target", "GET\t/bad HTTP/1.1", BAD),
        line("tab before the version", "GET /bad\tHTTP/1.1", BAD),
        line("space in the target", "GET /b ad HTTP/1.1", BAD),
        line("space before the method", " GET /bad HTTP/1.1", BAD),
        line("space behind the version", "GET /bad HTTP/1.1 ", BAD),
        line("junk behind the version", "GET /bad HTTP/1.1 x", BAD),
        line("lower case version", "GET /bad http/1.1", VERSION),
        line("HTTP/2.0 in HTTP/1", "GET /bad HTTP/2.0", VERSION),
        line("HTTP/3 in HTTP/1", "GET /bad HTTP/3", VERSION),
        line("HTTP/0.9", "GET /bad HTTP/0.9", VERSION),
        line("two digits", "GET /bad HTTP/1.10", VERSION),
        line("no dot", "GET /bad HTTP/11", VERSION),
        line("another protocol", "GET /bad RTSP/1.0", VERSION),
        line("comma version", "GET /bad HTTP/1,1", VERSION),
        line("separator in the method", "GE(T /bad HTTP/1.1", BAD),
        line("colon in the method", "GET: /bad HTTP/1.1", BAD),
        line("NUL in the method", "G\0T /bad HTTP/1.1", BAD),
        line("NUL in the target", "GET /b\0ad HTTP/1.1", BAD),
        line("control character in the target", "GET /b\x01ad HTTP/1.1", BAD),
        line("DEL in the target", "GET /b\x7fad HTTP/1.1", BAD),
        line("bare CR in the target", "GET /b\rad HTTP/1.1", BAD),
        line("non-ASCII in the target", "GET /b\u{e4}d HTTP/1.1", BAD),
        line("lone byte beyond ASCII in the target", b"GET /b\xffd HTTP/1.1", BAD),
        line("fragment in the target", "GET /bad#frag HTTP/1.1", BAD),
        line("target without a slash", "GET bad HTTP/1.1", BAD),
        line("asterisk for GET", "GET * HTTP/1.1", BAD),
        refused("binary", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", BAD),
    ]
}

/// Sends every row; complains about all that were not refused, at once.
async fn all_refused(rows: Vec<Refused>) {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut wrong = Vec::new();
    for (n, Refused { why, head, statuses }) in rows.into_iter().enumerate() {
        let mut client = proxy.open(&head).await;
        match client.next_head().await {
            Ok(answer) if statuses.contains(&answer.status()) => {
                // Where this request ends nobody knows, so nothing may follow on it.
                if answer.response_body("GET").rest(&mut client).await.2.is_some() {
                    wrong.push(format!("{why}: the refusal itself is cut"));
                }
                client.expect_end().await;
            }
            Ok(answer) => wrong.push(format!("{why}: {}", answer.start)),
            Err(end) => wrong.push(format!("{why}: no answer, {end:?}")),
        }
        let marker = format!("GET /{n} HTTP/1.1\r\nHost: test\r\n\r\n");
        proxy.open(marker).await.expect_status(200).await;
        let (targets, connections) = (origin.targets(), origin.connections());
        if targets.len() != n + 1 || connections != 1 {
            panic!("{why}: reached the origin: {targets:?} on {connections} connections");
        }
    }
    assert!(wrong.is_empty(), "not refused:\n{}", wrong.join("\n"));
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn doubtful_lengths_are_refused() {
    all_refused(lengths()).await;
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn doubtful_codings_are_refused() {
    all_refused(codings()).await;
}

#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn doubtful_field_lines_are_refused() {
    all_refused(field_lines()).await;
}

#[tokio::test]
async fn doubtful_hosts_are_refused() {
    all_refused(host_rules()).await;
}

#[tokio::test]
async fn doubtful_request_lines_are_refused() {
    all_refused(request_lines()).await;
}

/// What looks odd and has one reading only passes.
#[tokio::test]
async fn odd_but_clear_heads_pass() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let rows: &[(&str, &str)] = &[
        ("lower case names", "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello"),
        ("leading zeros", "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 005\r\n\r\nhello"),
        (
            "white space around",
            "POST / HTTP/1.1\r\nHost:\t test \r\nContent-Length:  5\t\r\n\r\nhello",
        ),
        ("no white space", "POST / HTTP/1.1\r\nHost:test\r\nContent-Length:5\r\n\r\nhello"),
        (
            "chunked in another case",
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: ChUnKeD\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        ("an empty line before", "\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n"),
        ("Host with a port", "GET / HTTP/1.1\r\nHost: test:8080\r\n\r\n"),
        ("Host with an empty port", "GET / HTTP/1.1\r\nHost: test:\r\n\r\n"),
        ("Host is an IPv6 address", "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n"),
        ("underscore in Host", "GET / HTTP/1.1\r\nHost: my_service\r\n\r\n"),
        ("tab in a value", "GET / HTTP/1.1\r\nHost: test\r\nA: b\tc\r\n\r\n"),
        ("empty value", "GET / HTTP/1.1\r\nHost: test\r\nA:\r\n\r\n"),
        ("all of tchar", "GET / HTTP/1.1\r\nHost: test\r\n!#$%&'*+-.^_`|~09aZ: b\r\n\r\n"),
        ("beyond ASCII in a value", "GET / HTTP/1.1\r\nHost: test\r\nA: \u{e4}\r\n\r\n"),
        ("colons in a value", "GET / HTTP/1.1\r\nHost: test\r\nA: :b:c\r\n\r\n"),
        ("same host, other case", "GET http://TEST/ HTTP/1.1\r\nHost: test\r\n\r\n"),
        ("default port written once", "GET http://test:80/ HTTP/1.1\r\nHost: test\r\n\r\n"),
        ("GET with a body", "GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"),
        ("unknown upgrade", "GET / HTTP/1.1\r\nHost: test\r\nUpgrade: h2c\r\n\r\n"),
    ];
    let mut wrong = Vec::new();
    for (why, head) in rows {
        let mut client = proxy.open(head).await;
        match client.next_head().await {
            Ok(answer) if answer.status() == 200 => {}
            Ok(answer) => wrong.push(format!("{why}: {}", answer.start)),
            Err(end) => wrong.push(format!("{why}: {end:?}")),
        }
    }
    assert!(wrong.is_empty(), "refused:\n{}", wrong.join("\n"));
    for seen in origin.seen() {
        let body = seen.message.text();
        assert!(body.is_empty() || body == "hello", "{seen:?}");
    }
}

/// Byte by byte is the same as in one piece.
#[tokio::test]
async fn heads_may_come_byte_by_byte() {
    let origin = Origin::bind().await.serve(|seen| Reply::ok(&seen.message.body));
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.connect().await;
    let request = "POST /slow HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
    for byte in request.as_bytes() {
        client.send([*byte]).await;
    }
    assert_eq!(client.expect_status(200).await.text(), "hello");
    refuse_byte_by_byte(&proxy).await;
    assert_eq!(origin.targets(), ["/slow"]);
}

async fn refuse_byte_by_byte(proxy: &Proxy) {
    let mut client: Wire = proxy.connect().await;
    for byte in b"GET /bad HTTP/1.1\r\nHost : test\r\n\r\n" {
        if client.try_send([*byte]).await.is_err() {
            break;
        }
    }
    client.expect_status(400).await;
}

/// A good request is answered before the bad one behind it is refused.
#[req_test("REQ-CORE-001.F-003")]
#[tokio::test]
async fn a_bad_request_behind_a_good_one_is_refused_in_turn() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let good = "POST /good HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc";
    let mut client = proxy.open(format!("{good}xGET /bad\x01 HTTP/1.1\r\n\r\n")).await;
    client.expect_status(200).await;
    client.expect_status(400).await;
    client.expect_end().await;
    assert_eq!(origin.targets(), ["/good"]);
}

/// The connection preface of HTTP/2 begins like an HTTP/1 request and is none.
#[tokio::test]
async fn a_false_h2_preface_gets_nowhere() {
    let origin = Served::always(Reply::ok("x")).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = proxy.open("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nGET / HTTP/1.1\r\n\r\n").await;
    client.read_to_end().await;
    proxy.open("GET /marker HTTP/1.1\r\nHost: test\r\n\r\n").await.expect_status(200).await;
    assert_eq!(origin.targets(), ["/marker"]);
}
