//! Lines as they come out, and that none is lost unseen.

use std::{
    io::{self, Read, Write},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use super::*;

fn exchange(target: &str) -> Exchange<'_> {
    Exchange {
        cache: None,
        listener: "web",
        client: "192.0.2.1:5000".parse().unwrap(),
        request: Some(Request {
            method: "GET",
            target,
            version: http::Version::HTTP_11,
            status: 200,
        }),
        host: Some("api.example.org"),
        tls: None,
        route: Some("/v1"),
        request_id: None,
        trace_id: None,
        upstream: Some("api"),
        server: Some("[2001:db8::1]:3000".parse().unwrap()),
        resends: 0,
        request_bytes: 0,
        response_bytes: 1234,
        ttfb: Some(Duration::from_micros(1_500)),
        duration: Duration::from_millis(2_040),
        end: End::Complete,
    }
}

fn form(format: LogFormat) -> Form {
    Form { format, fields: Field::all(), ratio: 1.0 }
}

fn settings(format: LogFormat, access: config::AccessLog) -> config::Log {
    config::Log { format, access, fields: Field::all(), sample_ratio: 1.0 }
}

/// Those that were asked for, in the order in which they were asked for.
#[test]
fn a_line_has_the_fields_that_were_chosen() {
    let fields = ["status", "error", "time", "target"].map(|name| Field::named(name).unwrap());
    for (format, expected) in [
        (LogFormat::Text, "status=200 2023-11-14T22:13:20.123Z target=/a\n"),
        (
            LogFormat::Json,
            "{\"status\":200,\"time\":\"2023-11-14T22:13:20.123Z\",\"target\":\"/a\"}\n",
        ),
    ] {
        let form = Form { fields: fields.to_vec(), ..form(format) };
        let mut out = Vec::new();
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        format::line(&mut out, &form, now, &exchange("/a"));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

/// Four standard deviations are 120 of 10,000.
#[test]
fn a_share_is_kept_and_all_that_went_wrong() {
    let form = Form { ratio: 0.1, ..form(LogFormat::Text) };
    let fine = exchange("/");
    let kept = (0..10_000).filter(|_| form.keeps(&fine)).count();
    assert!((880..=1120).contains(&kept), "{kept}");
    let failed = Exchange { end: End::Error(Kind::Connect), ..exchange("/") };
    let left = Exchange { end: End::ClientGone, ..exchange("/") };
    let mut unavailable = exchange("/");
    unavailable.request.as_mut().unwrap().status = 503;
    for always in [failed, left, unavailable] {
        assert!((0..1000).all(|_| form.keeps(&always)));
    }
}

fn line(format: LogFormat, exchange: &Exchange<'_>) -> String {
    let mut out = Vec::new();
    format::line(
        &mut out,
        &form(format),
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        exchange,
    );
    String::from_utf8(out).unwrap()
}

/// A sink whose content can be read while the log is open.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that stalls until it is told to go on.
struct Stalled {
    seen: mpsc::Sender<()>,
    go_on: Receiver<()>,
    then: Memory,
}

impl Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.seen.send(());
        let _ = self.go_on.recv();
        self.then.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_text_line_names_everything() {
    assert_eq!(
        line(LogFormat::Text, &exchange("/v1/x?a=b")),
        "2023-11-14T22:13:20.123Z listener=web client=192.0.2.1:5000 method=GET \
         target=/v1/x?a=b host=api.example.org version=HTTP/1.1 status=200 route=/v1 upstream=api \
         server=[2001:db8::1]:3000 request_bytes=0 response_bytes=1234 \
         ttfb_seconds=0.001500 duration_seconds=2.040000 end=complete\n"
    );
}

#[test]
fn what_is_not_known_is_a_dash() {
    let request =
        Request { method: "GET", target: "/", version: http::Version::HTTP_11, status: 400 };
    let refused = Exchange {
        request: Some(request),
        host: None,
        route: None,
        request_id: None,
        trace_id: None,
        upstream: None,
        server: None,
        resends: 0,
        ttfb: None,
        end: End::Error(Kind::BadRequest("two lengths")),
        ..exchange("/")
    };
    let text = line(LogFormat::Text, &refused);
    assert!(text.contains(" host=- "), "{text}");
    assert!(text.contains(" route=- upstream=- server=- "), "{text}");
    assert!(text.contains(" ttfb_seconds=- "), "{text}");
    assert!(text.ends_with("end=error error=bad_request error_detail=\"two lengths\"\n"), "{text}");

    let dash = Exchange { host: Some("-"), ..exchange("/") };
    assert!(line(LogFormat::Text, &dash).contains(" host=\"-\" "));

    let without_request = Exchange { request: None, ..exchange("/") };
    let text = line(LogFormat::Text, &without_request);
    assert!(text.contains(" method=- target=- host=api.example.org version=- status=- "), "{text}");
    let value: serde_json::Value =
        serde_json::from_str(&line(LogFormat::Json, &without_request)).unwrap();
    assert!(value.get("method").is_none() && value.get("status").is_none(), "{value}");
}

#[test]
fn a_json_line_is_one_object_with_the_same_names() {
    let tunnel = Exchange {
        host: None,
        end: End::Tunnel { kind: "websocket", engine_up: "pipe", engine_down: "copy", end: "idle" },
        ..exchange("/ws")
    };
    let value: serde_json::Value = serde_json::from_str(&line(LogFormat::Json, &tunnel)).unwrap();
    let expected = serde_json::json!({
        "time": "2023-11-14T22:13:20.123Z", "listener": "web", "client": "192.0.2.1:5000",
        "method": "GET", "target": "/ws", "version": "HTTP/1.1", "status": 200,
        "route": "/v1", "upstream": "api", "server": "[2001:db8::1]:3000", "request_bytes": 0,
        "response_bytes": 1234, "ttfb_seconds": 0.0015, "duration_seconds": 2.04,
        "end": "tunnel", "tunnel": "websocket", "engine_up": "pipe", "engine_down": "copy",
        "tunnel_end": "idle",
    });
    assert_eq!(value, expected);
}

#[test]
fn nothing_a_peer_sends_forges_a_line_or_a_field() {
    let hostile = [
        "/\n2023-11-14T22:13:20.123Z listener=web status=200",
        "/\r\n\r\n",
        "/ status=200 end=complete",
        "/\" status=200 x=\"",
        "/\\\" status=200",
        "/\u{1b}[2J\u{7}\0\t",
        "/\u{85}\u{9b}2J\u{2028}\u{2029}\u{202e}\u{7f}",
        "/\u{fffd}\u{1f600}",
        "",
        "-",
    ];
    for target in hostile {
        for format in [LogFormat::Text, LogFormat::Json] {
            let mut exchange = Exchange { host: Some(target), ..exchange(target) };
            exchange.request.as_mut().unwrap().method = target;
            let line = line(format, &exchange);
            let body = line.strip_suffix('\n').unwrap();
            assert!(body.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{line:?}");
            match format {
                LogFormat::Json => {
                    let value: serde_json::Value = serde_json::from_str(body).unwrap();
                    assert_eq!(value["target"], target);
                    assert_eq!(value["status"], 200);
                }
                LogFormat::Text => {
                    let fields = split(body);
                    assert_eq!(fields.len(), 16, "{line:?}");
                    assert!(fields[6].starts_with("version="), "{line:?}");
                }
            }
        }
    }
}

/// Fields of a text line, as any reader would split it: at spaces outside quotes.
fn split(line: &str) -> Vec<String> {
    let (mut fields, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for c in line.chars() {
        match c {
            ' ' if !quoted => fields.push(String::new()),
            '"' if !escaped => quoted = !quoted,
            c => fields.last_mut().unwrap().push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    assert!(!quoted, "{line:?}");
    fields
}

#[test]
fn every_line_logged_before_shutdown_is_written_in_order() {
    let memory = Memory::default();
    let dropped = Counter::default();
    let log = AccessLog::into_sink(
        memory.clone(),
        form(LogFormat::Text),
        QUEUE_BYTES,
        dropped.clone(),
        true,
    )
    .unwrap();
    let workers: Vec<_> = (0..2)
        .map(|worker| {
            let writer = log.worker();
            std::thread::spawn(move || {
                for i in 0..2_000 {
                    writer.log(&exchange(&format!("/{worker}/{i}")));
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    log.shutdown();

    assert_eq!(dropped.get(), 0);
    let text = memory.text();
    assert_eq!(text.lines().count(), 4_000);
    for worker in 0..2 {
        let mut numbers = text
            .lines()
            .filter_map(|line| line.split_once(&format!(" target=/{worker}/")))
            .map(|(_, rest)| rest.split(' ').next().unwrap().parse::<usize>().unwrap());
        assert!((0..2_000).all(|i| numbers.next() == Some(i)), "worker {worker}");
    }
}

#[test]
fn a_line_is_written_soon_without_shutdown() {
    let (reader, writer) = io::pipe().unwrap();
    let log =
        AccessLog::into_sink(writer, form(LogFormat::Text), QUEUE_BYTES, Counter::default(), true)
            .unwrap();
    let worker = log.worker();
    for path in ["/first", "/second"] {
        worker.log(&exchange(path));
        let mut read = [0; 1024];
        // Blocks for ever if the line is kept back.
        let count = (&reader).read(&mut read).unwrap();
        assert!(String::from_utf8_lossy(&read[..count]).contains(path));
    }
}

#[test]
fn a_full_queue_drops_the_line_and_counts_it() {
    let (seen, is_stalled) = mpsc::channel();
    let (resume, go_on) = mpsc::channel();
    let memory = Memory::default();
    let dropped = Counter::default();
    let sink = Stalled { seen, go_on, then: memory.clone() };
    let one = line(LogFormat::Text, &exchange("/0")).len();
    let log =
        AccessLog::into_sink(sink, form(LogFormat::Text), one * 3, dropped.clone(), true).unwrap();
    let worker = log.worker();
    worker.log(&exchange("/0"));
    is_stalled.recv().unwrap();
    // The thread is stuck in its write; its lane takes three more lines.
    for i in 1..=5 {
        worker.log(&exchange(&format!("/{i}")));
    }
    assert_eq!(dropped.get(), 2);
    drop(resume);
    log.shutdown();
    assert_eq!(memory.text().lines().count(), 4);
    assert!(memory.text().contains("target=/3 "));

    worker.log(&exchange("/late"));
    assert_eq!(dropped.get(), 3);
}

#[test]
fn a_failing_sink_counts_its_lines_and_starts_a_new_line_when_it_recovers() {
    /// Takes ten bytes, then fails once, then takes everything.
    struct Flaky(usize, Memory);
    impl Write for Flaky {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => self.1.write(&bytes[..10]),
                2 => Err(io::ErrorKind::StorageFull.into()),
                _ => self.1.write(bytes),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let memory = Memory::default();
    let dropped = Counter::default();
    let sink = Flaky(0, memory.clone());
    let log = AccessLog::into_sink(sink, form(LogFormat::Text), QUEUE_BYTES, dropped.clone(), true)
        .unwrap();
    let worker = log.worker();
    worker.log(&exchange("/lost"));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while dropped.get() == 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    worker.log(&exchange("/kept"));
    log.shutdown();
    assert_eq!(dropped.get(), 1);
    let text = memory.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0].len(), 10);
    assert!(lines[1].contains(" target=/kept "));
}

#[test]
fn off_logs_nothing_and_a_file_is_appended_to() {
    let off = settings(LogFormat::Text, config::AccessLog::Off);
    let log = AccessLog::open(&off, Counter::default()).unwrap();
    assert!(!log.worker().is_on());
    log.worker().log(&exchange("/"));

    let path = std::env::temp_dir().join(format!("underpass-access-{}.log", std::process::id()));
    let file = settings(LogFormat::Json, config::AccessLog::File(path.clone()));
    for _ in 0..2 {
        let log = AccessLog::open(&file, Counter::default()).unwrap();
        let worker = log.worker();
        assert!(worker.is_on());
        worker.log(&exchange("/"));
    }
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn a_switched_log_loses_nothing_and_can_go_off_and_on() {
    let path = |name: &str| {
        std::env::temp_dir().join(format!("underpass-switch-{name}-{}.log", std::process::id()))
    };
    let to = |name| settings(LogFormat::Text, config::AccessLog::File(path(name)));
    let log = AccessLog::open(&to("a"), Counter::default()).unwrap();
    let worker = log.worker();
    worker.log(&exchange("/first"));
    log.switch(AccessLog::sink(&to("b")).unwrap());
    // What comes now may be in either, and what comes when the switch is over in the second.
    let both = || ["a", "b"].map(|name| std::fs::read_to_string(path(name)).unwrap());
    let begin = Instant::now();
    let mut sent = 0;
    while !both()[1].contains("/more") {
        assert!(begin.elapsed() < Duration::from_secs(10), "never switched");
        worker.log(&exchange("/more"));
        sent += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    log.switch(None);
    assert!(!worker.is_on());
    worker.log(&exchange("/off"));
    log.switch(AccessLog::sink(&to("b")).unwrap());
    worker.log(&exchange("/last"));
    log.shutdown();
    let [first, second] = both();
    let count = |target: &str| (first.clone() + &second).matches(target).count();
    assert!(first.contains("/first") && second.contains("/last"));
    assert_eq!([count("/first"), count("/more"), count("/off"), count("/last")], [1, sent, 0, 1]);
    ["a", "b"].iter().for_each(|name| std::fs::remove_file(path(name)).unwrap());
}
