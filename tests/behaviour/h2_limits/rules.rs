//! What RFC 9113 forbids a client, frame by frame, each with the error that the RFC names.

use mantra_macros::req_test;
use underpass_tests::{
    Proxy, Served,
    h2_frames::{CONTINUATION, DATA, Fate, Frames, HEADERS, PING, SETTINGS, block},
};

const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const PUSH_PROMISE: u8 = 5;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

type Frame = (u8, u8, u32, Vec<u8>);

fn get() -> Vec<u8> {
    block(&[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")])
}

fn post() -> Vec<u8> {
    block(&[(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")])
}

fn with(field: (&[u8], &[u8])) -> Vec<u8> {
    [get(), block(&[field])].concat()
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// Errors of the whole connection (RFC 9113 section 5.4.1).
fn of_the_connection() -> Vec<(&'static str, Vec<Frame>, &'static [u32])> {
    let open = (HEADERS, END_HEADERS, 1, post());
    vec![
        ("6.1 DATA on stream 0", vec![(DATA, 0, 0, vec![])], &[PROTOCOL]),
        ("6.2 HEADERS on stream 0", vec![(HEADERS, END_HEADERS, 0, get())], &[PROTOCOL]),
        ("6.3 PRIORITY on stream 0", vec![(PRIORITY, 0, 0, vec![0; 5])], &[PROTOCOL]),
        ("6.4 RST_STREAM on stream 0", vec![(RST_STREAM, 0, 0, vec![0; 4])], &[PROTOCOL]),
        ("6.4 RST_STREAM on an idle stream", vec![(RST_STREAM, 0, 1, vec![0; 4])], &[PROTOCOL]),
        (
            "6.4 RST_STREAM of 3 bytes",
            vec![open.clone(), (RST_STREAM, 0, 1, vec![0; 3])],
            &[FRAME_SIZE],
        ),
        ("6.5 SETTINGS on stream 1", vec![(SETTINGS, 0, 1, vec![])], &[PROTOCOL]),
        ("6.5 SETTINGS of 5 bytes", vec![(SETTINGS, 0, 0, vec![0; 5])], &[FRAME_SIZE]),
        ("6.5 an ACK with content", vec![(SETTINGS, ACK, 0, vec![0; 6])], &[FRAME_SIZE]),
        ("6.5.2 ENABLE_PUSH = 2", vec![(SETTINGS, 0, 0, setting(2, 2))], &[PROTOCOL]),
        (
            "6.5.2 INITIAL_WINDOW_SIZE = 2^31",
            vec![(SETTINGS, 0, 0, setting(4, 1 << 31))],
            &[FLOW_CONTROL],
        ),
        ("6.5.2 MAX_FRAME_SIZE = 100", vec![(SETTINGS, 0, 0, setting(5, 100))], &[PROTOCOL]),
        (
            "6.6 PUSH_PROMISE by a client",
            vec![open.clone(), (PUSH_PROMISE, END_HEADERS, 1, [vec![0, 0, 0, 2], get()].concat())],
            &[PROTOCOL],
        ),
        ("6.7 PING on stream 1", vec![(PING, 0, 1, vec![0; 8])], &[PROTOCOL]),
        ("6.7 PING of 7 bytes", vec![(PING, 0, 0, vec![0; 7])], &[FRAME_SIZE]),
        ("6.8 GOAWAY on stream 1", vec![(GOAWAY, 0, 1, vec![0; 8])], &[PROTOCOL]),
        ("6.9 WINDOW_UPDATE of 3 bytes", vec![(WINDOW_UPDATE, 0, 0, vec![0; 3])], &[FRAME_SIZE]),
        (
            "6.9 WINDOW_UPDATE on an idle stream",
            vec![(WINDOW_UPDATE, 0, 1, vec![0, 0, 0, 1])],
            &[PROTOCOL],
        ),
        ("6.9 WINDOW_UPDATE by 0", vec![(WINDOW_UPDATE, 0, 0, vec![0; 4])], &[PROTOCOL]),
        (
            "6.9.1 a window over 2^31-1",
            vec![(WINDOW_UPDATE, 0, 0, vec![0x7f, 0xff, 0xff, 0xff])],
            &[FLOW_CONTROL],
        ),
        (
            "6.10 CONTINUATION behind nothing",
            vec![(CONTINUATION, END_HEADERS, 1, get())],
            &[PROTOCOL],
        ),
        (
            "6.10 a head with a PING in it",
            vec![(HEADERS, END_STREAM, 1, get()), (PING, 0, 0, vec![0; 8])],
            &[PROTOCOL],
        ),
        (
            "6.10 a head that goes on elsewhere",
            vec![(HEADERS, END_STREAM, 1, get()), (CONTINUATION, END_HEADERS, 3, vec![])],
            &[PROTOCOL],
        ),
        (
            "4.2 a frame over 16384 bytes",
            vec![open.clone(), (DATA, 0, 1, vec![0; 16_385])],
            &[FRAME_SIZE],
        ),
        (
            "6.1 more padding than frame",
            vec![open.clone(), (DATA, PADDED, 1, vec![9, 0])],
            &[PROTOCOL],
        ),
        (
            "6.2 more padding than head",
            vec![(HEADERS, END_HEADERS | PADDED, 1, vec![9, 0])],
            &[PROTOCOL],
        ),
        (
            "4.3 a head that cannot be decoded",
            vec![(HEADERS, END_HEADERS, 1, vec![0xff, 0xff, 0xff, 0xff, 0x7f])],
            &[COMPRESSION],
        ),
        ("4.3 an index that is none", vec![(HEADERS, END_HEADERS, 1, vec![0x80])], &[COMPRESSION]),
        ("5.1 DATA on an idle stream", vec![(DATA, 0, 1, vec![])], &[PROTOCOL]),
        ("5.1.1 an even stream", vec![(HEADERS, END_HEADERS, 2, get())], &[PROTOCOL]),
        (
            "5.1.1 a stream behind a later one",
            vec![(HEADERS, END_HEADERS, 3, post()), (HEADERS, END_HEADERS, 1, get())],
            &[PROTOCOL, STREAM_CLOSED],
        ),
        (
            "5.1 DATA behind its end",
            vec![(HEADERS, END_HEADERS | END_STREAM, 1, get()), (DATA, 0, 1, vec![0])],
            &[STREAM_CLOSED],
        ),
    ]
}

/// Rows of which h2 says PROTOCOL_ERROR, where the RFC has a code that says more.
fn is_unreadable(rule: &str) -> bool {
    let sizes = ["RST_STREAM of 3", "SETTINGS of 5", "ACK with", "PING of 7", "WINDOW_UPDATE of 3"];
    let others =
        ["INITIAL_WINDOW_SIZE", "cannot be decoded", "index that is none", "behind its end"];
    sizes.iter().chain(&others).any(|part| rule.contains(part))
}

/// Errors of one stream (section 5.4.2), after which the connection goes on. Pseudo-fields in
/// trailers are none of them: h2 drops those, so that nobody gets them (`strict_h2.rs`).
fn of_a_stream() -> Vec<(&'static str, Vec<Frame>, u32)> {
    let one = |head| vec![(HEADERS, END_HEADERS | END_STREAM, 1, head)];
    let open = (HEADERS, END_HEADERS, 1, post());
    let trailers = |flags, block| (HEADERS, flags, 1, block);
    vec![
        ("8.2.1 upper case", one(with((b"X-Upper", b"1"))), PROTOCOL),
        ("8.2.2 Connection", one(with((b"connection", b"close"))), PROTOCOL),
        ("8.2.2 Transfer-Encoding", one(with((b"transfer-encoding", b"chunked"))), PROTOCOL),
        ("8.2.2 TE", one(with((b"te", b"gzip"))), PROTOCOL),
        ("8.3 an unknown pseudo-field", one(with((b":evil", b"1"))), PROTOCOL),
        ("8.3 a pseudo-field of answers", one(with((b":status", b"200"))), PROTOCOL),
        ("8.3.1 two paths", one(with((b":path", b"/"))), PROTOCOL),
        ("8.1.1 a length without a body", one(with((b"content-length", b"5"))), PROTOCOL),
        (
            "8.1 trailers without an end",
            vec![open.clone(), trailers(END_HEADERS, block(&[(b"x", b"y")]))],
            PROTOCOL,
        ),
        (
            "6.9 WINDOW_UPDATE of a stream by 0",
            vec![open.clone(), (WINDOW_UPDATE, 0, 1, vec![0; 4])],
            PROTOCOL,
        ),
        (
            "6.9.1 a stream's window over 2^31-1",
            vec![open, (WINDOW_UPDATE, 0, 1, vec![0x7f, 0xff, 0xff, 0xff])],
            FLOW_CONTROL,
        ),
    ]
}

async fn fate(proxy: &Proxy, frames: &[Frame], stream: u32) -> (Fate, Frames) {
    let mut client = Frames::open(proxy.connect().await).await;
    for (kind, flags, on, payload) in frames {
        client.raw(*kind, *flags, *on, payload).await;
    }
    (client.fate(stream).await, client)
}

#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn what_breaks_the_connection_ends_it_with_the_error_of_the_rfc() {
    let origin = underpass_tests::Origin::bind().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut wrong = Vec::new();
    for (rule, frames, codes) in of_the_connection() {
        let (fate, _client) = fate(&proxy, &frames, u32::MAX).await;
        // Whatever it cannot read is a PROTOCOL_ERROR for h2.
        let is_told = |code| codes.contains(&code) || code == PROTOCOL && is_unreadable(rule);
        if !matches!(fate, Fate::GoneAway(code) if is_told(code)) {
            wrong.push(format!("{rule}: {fate:?}, not {codes:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn what_breaks_a_stream_resets_it_and_leaves_the_others() {
    let origin = underpass_tests::Origin::bind().await;
    let served = Served::ok().await;
    let (waits, answers) =
        (Proxy::reverse(origin.addr()).start(), Proxy::reverse(served.addr()).start());
    let mut wrong = Vec::new();
    for (rule, frames, code) in of_a_stream() {
        // Where nobody answers, the reset is all that can come.
        let (fate_of, _client) = fate(&waits, &frames, 1).await;
        // A stream error may always be taken for one of the connection (section 5.4.2).
        if !matches!(fate_of, Fate::Reset(of) | Fate::GoneAway(of) if of == code) {
            wrong.push(format!("{rule}: {fate_of:?}, not {code}"));
        }
        if matches!(fate_of, Fate::Reset(_)) {
            let (_, mut client) = fate(&answers, &frames, 1).await;
            client.raw(HEADERS, END_HEADERS | END_STREAM, 3, &get()).await;
            let next = client.fate(3).await;
            if next != Fate::Answered(Some(200)) {
                wrong.push(format!("{rule}: the next request {next:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the RFC has ignored is (sections 4.1, 5.5, 6.3 and 6.5.2).
#[tokio::test]
async fn what_is_to_be_ignored_is() {
    let served = Served::ok().await;
    let proxy = Proxy::reverse(served.addr()).start();
    let request = (HEADERS, END_HEADERS | END_STREAM, 1, get());
    for (rule, frame) in [
        ("an unknown frame", (0xbe, 0xff, 0, vec![1, 2, 3])),
        ("an unknown setting", (SETTINGS, 0, 0, setting(0xbeef, 7))),
        ("PRIORITY on an idle stream", (PRIORITY, 0, 5, vec![0, 0, 0, 0, 9])),
        ("an undefined flag", (PING, 0xf0, 0, vec![0; 8])),
    ] {
        let (fate, _client) = fate(&proxy, &[frame, request.clone()], 1).await;
        assert_eq!(fate, Fate::Answered(Some(200)), "{rule}");
    }
}
