//! Requests as parts of traces: what servers are told, what a collector gets, and that nobody
//! waits for it.

use mantra_macros::req_test;
use serde_json::Value;
use underpass_tests::{
    HttpClient, Message, Proxy, Refusing, Reply, Served, Version, collect, eventually,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn config(served: &Served, tracing: &str) -> String {
    format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n[tracing]\n{tracing}\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"api\"\nupstream = \"o\"\n\
         [[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        served.addr()
    )
}

fn spans(collector: &Served) -> Vec<Value> {
    let spans = |message: &Message| {
        let request: Value = serde_json::from_slice(&message.body).unwrap();
        let spans = &request["resourceSpans"][0]["scopeSpans"][0]["spans"];
        spans.as_array().unwrap().clone()
    };
    collector.seen().iter().flat_map(|seen| spans(&seen.message)).collect()
}

fn attribute(span: &Value, key: &str) -> Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    found.map_or(Value::Null, |attribute| attribute["value"].clone())
}

#[req_test("REQ-CTRL-005")]
#[tokio::test]
async fn a_trace_is_gone_on_with_and_told_to_the_collector() {
    let served = Served::ok().await;
    let collector = Served::always(Reply::ok("{}")).await;
    let tracing = format!(
        "endpoint = \"http://{}\"\nservice_name = \"edge\"\nheaders = {{ x-token = \"t\" }}",
        collector.addr()
    );
    let proxy = Proxy::config(config(&served, &tracing)).start();
    for version in [Version::H1, Version::H2] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        let request = client
            .request(http::Method::GET, "/v1?secret=x")
            .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
            .header("tracestate", "vendor=1");
        let answer = client.send(request.body(underpass_tests::OutBody::Empty).unwrap());
        collect(answer.await.unwrap().into_body()).await.unwrap();
    }
    eventually("both spans", async || spans(&collector).len() == 2).await;
    for (span, seen) in spans(&collector).iter().zip(served.seen()) {
        let told = seen.message.head.get("traceparent").unwrap();
        let id = span["spanId"].as_str().unwrap();
        assert_eq!(told, format!("00-{TRACE}-{id}-01"), "the server's parent is this span");
        assert_eq!(seen.message.head.get("tracestate"), Some("vendor=1"));
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&TRACE.into(), &PARENT.into()));
        assert_eq!(span["name"], "GET api");
        assert_eq!(attribute(span, "url.path")["stringValue"], "/v1");
        assert_eq!(attribute(span, "http.response.status_code")["intValue"], "200");
        assert_eq!(attribute(span, "underpass.upstream")["stringValue"], "o");
        let nanoseconds = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        assert!(nanoseconds("startTimeUnixNano") < nanoseconds("endTimeUnixNano"));
    }
    let post = &collector.seen()[0].message.head;
    assert_eq!((post.method(), post.target()), ("POST", "/v1/traces"));
    assert_eq!(
        (post.get("content-type"), post.get("x-token")),
        (Some("application/json"), Some("t"))
    );
    proxy.log_line(&[&format!("trace_id={TRACE}")]).await;
    eventually("both spans to be counted", async || {
        proxy.metrics().await.sum("underpass_spans_exported_total", &[]) == 2.0
    })
    .await;
}

/// What is not sampled is passed on as such, and told to nobody; a trace that nobody brought
/// begins here.
#[req_test("REQ-CTRL-005")]
#[tokio::test]
async fn what_is_not_sampled_is_told_to_nobody() {
    let served = Served::ok().await;
    let collector = Served::always(Reply::ok("{}")).await;
    let tracing = format!("endpoint = \"http://{}\"\nsample_ratio = 0.0", collector.addr());
    let proxy = Proxy::config(config(&served, &tracing)).start();
    let fields = [
        String::new(),
        format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n"),
        format!("traceparent: 00-{TRACE}-{PARENT}-0\r\ntracestate: vendor=1\r\n"),
        // The parent decides.
        format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n"),
    ];
    for fields in fields {
        let request = format!("GET / HTTP/1.1\r\nHost: t\r\n{fields}\r\n");
        assert_eq!(proxy.open(request).await.read_response().await.status(), 200);
    }
    let seen = served.seen();
    let told = |at: usize| seen[at].message.head.get("traceparent").unwrap();
    assert!(told(0).ends_with("-00") && !told(0).contains(TRACE), "{}", told(0));
    assert!(told(1).starts_with(&format!("00-{TRACE}-")) && told(1).ends_with("-00"));
    assert!(!told(2).contains(TRACE), "what cannot be understood is not gone on with");
    assert!(!seen[2].message.head.has("tracestate"));
    assert!(told(3).ends_with("-01"));
    eventually("the span", async || spans(&collector).len() == 1).await;
    assert_eq!(spans(&collector)[0]["traceId"], TRACE);
}

#[tokio::test]
async fn without_a_collector_the_fields_pass_as_they_are() {
    let served = Served::ok().await;
    let proxy = Proxy::reverse(served.addr()).start();
    let field = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let request = format!("GET / HTTP/1.1\r\nHost: t\r\n{field}\r\n\r\n");
    assert_eq!(proxy.open(request).await.read_response().await.status(), 200);
    assert_eq!(served.only().head.get("traceparent"), Some(&field[13..]));
}

/// A collector that is not there, or does not like what it gets, holds nobody up.
#[req_test("REQ-CTRL-005")]
#[tokio::test]
async fn a_collector_that_fails_is_waited_for_by_nobody() {
    let served = Served::ok().await;
    let refusing = Refusing::bind();
    let unwilling = Served::always("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    for (address, again) in [(refusing.addr(), true), (unwilling.addr(), false)] {
        let tracing = format!("endpoint = \"http://{address}\"");
        let mut proxy = Proxy::config(config(&served, &tracing)).start();
        let request = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
        for _ in 0..20 {
            assert_eq!(proxy.open(request).await.read_response().await.status(), 200);
        }
        proxy.log_line(&["spans cannot be sent"]).await;
        if !again {
            eventually("all to be given up", async || {
                let metrics = proxy.metrics().await;
                metrics.sum("underpass_spans_dropped_total", &[]) == 20.0
            })
            .await;
        }
        proxy.term();
        assert!(proxy.exited().await.success(), "the end does not wait for it either");
    }
}

/// What is finished when the process ends is told.
#[tokio::test]
async fn the_last_spans_are_sent_at_the_end() {
    let served = Served::ok().await;
    let collector = Served::always(Reply::ok("{}")).await;
    let tracing = format!("endpoint = \"http://{}\"", collector.addr());
    let mut proxy = Proxy::config(config(&served, &tracing)).start();
    let request = "GET / HTTP/1.1\r\nHost: t\r\n\r\n";
    assert_eq!(proxy.open(request).await.read_response().await.status(), 200);
    proxy.term();
    assert!(proxy.exited().await.success());
    assert_eq!(spans(&collector).len(), 1);
}
