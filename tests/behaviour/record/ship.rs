//! Records for a server elsewhere: every line arrives, over failures of that server and restarts of
//! this one, and the traffic knows nothing of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use mantra_macros::req_test;
use underpass_tests::{
    Origin, Proxy, ProxyBuilder, Records, Reply, Served, eventually,
    tls_origin::{Signer, TlsOrigin},
};

fn proxy(records: &Records, origin: &Served, collector: &Served, more: &str) -> ProxyBuilder {
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n{}\
         [record.ship]\nendpoint = \"http://{}/in\"\ninterval = \"20ms\"\nbatch_bytes = \"4KiB\"\n\
         headers = {{ x-token = \"t0k\" }}\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"o\"\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        records.section(more),
        collector.addr(),
        origin.addr()
    ))
}

async fn ask(proxy: &Proxy, targets: std::ops::Range<usize>) {
    let mut client = underpass_tests::Wire::connect(proxy.listener("web")).await;
    for number in targets {
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: t\r\n\r\n")).await;
        client.expect_status(200).await;
    }
}

/// Targets of the records that the collector has seen the beginning and the end of.
fn taken(collector: &Served) -> BTreeSet<String> {
    let (mut begun, mut ended) = (BTreeMap::new(), BTreeSet::new());
    for seen in collector.seen() {
        for line in seen.message.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: serde_json::Value = serde_json::from_slice(line).expect("whole lines");
            let id = line["id"].as_str().expect("an id").to_owned();
            if let Some(target) = line["begin"]["target"].as_str() {
                begun.insert(id.clone(), target.to_owned());
            }
            if line["end"].is_object() {
                ended.insert(id);
            }
        }
    }
    begun.into_iter().filter(|(id, _)| ended.contains(id)).map(|(_, target)| target).collect()
}

#[req_test("REQ-REC-006")]
#[tokio::test]
async fn every_line_arrives_over_failures_and_restarts() {
    for compression in ["none", "zstd"] {
        let origin = Served::ok().await;
        let records = Records::default();
        let well = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&well);
        let collector = Origin::bind().await.serve(move |_| match asked.load(SeqCst) {
            true => Reply::ok(""),
            false => Reply::from("HTTP/1.1 503 Not now\r\nContent-Length: 0\r\n\r\n"),
        });
        let more = format!("compression = \"{compression}\"");
        let mut first = proxy(&records, &origin, &collector, &more).start();
        ask(&first, 0..30).await;
        eventually("a post that is refused", async || !collector.seen().is_empty()).await;
        first.log_line(&["records cannot be sent"]).await;
        first.term();
        assert!(first.exited().await.success());
        assert_eq!(first.stderr().matches("records cannot be sent").count(), 1, "said once");
        let before = collector.seen().len();
        well.store(true, SeqCst);
        let mut second = proxy(&records, &origin, &collector, &more).start();
        ask(&second, 30..60).await;
        let wanted: BTreeSet<String> = (0..60).map(|number| format!("/{number}")).collect();
        eventually("all lines at the collector", async || taken(&collector) == wanted).await;
        let head = &collector.seen()[before].message.head;
        assert_eq!((head.method(), head.target()), ("POST", "/in"));
        assert_eq!(head.get("content-type"), Some("application/x-ndjson"));
        assert_eq!(head.get("x-token"), Some("t0k"));
        eventually("60 lines to be counted", async || {
            second.metrics().await.sum("underpass_record_lines_shipped_total", &[]) >= 60.0
        })
        .await;
        // What was taken is not sent again: at its end it has written down what that is.
        second.term();
        assert!(second.exited().await.success());
        let posts = collector.seen().len();
        let third = proxy(&records, &origin, &collector, &more).start();
        ask(&third, 60..61).await;
        eventually("the new line", async || taken(&collector).contains("/60")).await;
        let again =
            collector.seen()[posts..].iter().map(|seen| seen.message.body.len()).sum::<usize>();
        assert!(again < 2000, "{again} bytes for one record");
    }
}

/// What the cap removes while the server is away is counted then, and not when it is back.
#[req_test("REQ-REC-006")]
#[tokio::test]
async fn files_that_are_removed_before_they_were_sent_are_counted_at_once() {
    let (origin, records) = (Served::ok().await, Records::default());
    let answer = "HTTP/1.1 503 Not now\r\nContent-Length: 0\r\n\r\n";
    let collector = Origin::bind().await.serve(move |_| Reply::from(answer));
    let more = "segment_bytes = \"4KiB\"\nmax_total_bytes = \"16KiB\"\nbatch_bytes = \"2KiB\"";
    let proxy = proxy(&records, &origin, &collector, more).start();
    ask(&proxy, 0..200).await;
    eventually("what is removed to be counted as unsent", async || {
        let metrics = proxy.metrics().await;
        let removed = metrics.sum("underpass_record_segments_removed_total", &[]);
        let unsent = metrics.sum("underpass_record_segments_unshipped_total", &[]);
        removed > 3.0 && unsent == removed
    })
    .await;
}

/// Over TLS, whose server is verified, in both forms.
#[req_test("REQ-REC-006")]
#[tokio::test]
async fn records_go_over_tls_as_lines_and_as_logs() {
    let signer = Signer::default();
    for (format, path, kind) in
        [("ndjson", "/", "application/x-ndjson"), ("otlp", "/v1/logs", "application/json")]
    {
        let origin = Served::ok().await;
        let records = Records::default();
        let config = signer.server(&signer.good("localhost"), &["http/1.1"]);
        let collector = TlsOrigin::start(config).await;
        let port = collector.addr().port();
        let service = if format == "otlp" { "service_name = \"edge\"\n" } else { "" };
        let proxy = Proxy::config(format!(
            "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n{}\
             [record.ship]\nendpoint = \"https://localhost:{port}\"\nca = \"{}\"\n\
             format = \"{format}\"\n{service}interval = \"20ms\"\n\
             [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nupstream = \"o\"\n[[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
            records.section(""),
            signer.ca(),
            origin.addr()
        ))
        .start();
        ask(&proxy, 0..3).await;
        // A line is an exchange, or a part of it where the writer was faster than the exchange.
        let lines = |posts: &[(String, String, bytes::Bytes)]| -> Vec<serde_json::Value> {
            let lines = posts.iter().flat_map(|(_, _, body)| match format {
                "ndjson" => body.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect(),
                _ => logs(body).iter().map(|log| text(log).to_vec()).collect::<Vec<_>>(),
            });
            let lines = lines.filter(|line| !line.is_empty());
            lines.map(|line| serde_json::from_slice(&line).expect("JSON")).collect()
        };
        eventually("the ends of three exchanges", async || {
            lines(&collector.posts()).iter().filter(|line| line["end"].is_object()).count() == 3
        })
        .await;
        let posts = collector.posts();
        let lines = lines(&posts);
        assert_eq!((&lines[0]["v"], &lines[0]["begin"]["target"]), (&1.into(), &"/0".into()));
        for (sent_to, sent_as, body) in posts {
            assert_eq!((sent_to.as_str(), sent_as.as_str()), (path, kind));
            for log in if format == "otlp" { logs(&body) } else { Vec::new() } {
                let line: serde_json::Value = serde_json::from_slice(text(&log)).expect("JSON");
                let status = serde_json::json!(
                    { "key": "http.response.status_code", "value": { "intValue": "200" } }
                );
                let told = log["attributes"].as_array().expect("a list").contains(&status);
                assert_eq!(told, line["answer"].is_object(), "{log}");
            }
        }
    }
}

/// The line that a log is about.
fn text(log: &serde_json::Value) -> &[u8] {
    log["body"]["stringValue"].as_str().expect("a line").as_bytes()
}

fn logs(body: &[u8]) -> Vec<serde_json::Value> {
    let request: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    let scope = &request["resourceLogs"][0]["scopeLogs"][0];
    scope["logRecords"].as_array().expect("a list").clone()
}

/// Whoever has no certificate that can be believed gets no record.
#[req_test("REQ-REC-006")]
#[tokio::test]
async fn a_collector_that_cannot_be_believed_gets_nothing() {
    let (signer, other) = (Signer::default(), Signer::default());
    let (origin, records) = (Served::ok().await, Records::default());
    let config = other.server(&other.good("localhost"), &["http/1.1"]);
    let collector = TlsOrigin::start(config).await;
    let proxy = Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n{}\
         [record.ship]\nendpoint = \"https://localhost:{}\"\nca = \"{}\"\ninterval = \"20ms\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"o\"\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        records.section(""),
        collector.addr().port(),
        signer.ca(),
        origin.addr()
    ))
    .start();
    ask(&proxy, 0..1).await;
    proxy.log_line(&["records cannot be sent", "signed by nobody who is trusted"]).await;
    assert!(collector.posts().is_empty());
}
