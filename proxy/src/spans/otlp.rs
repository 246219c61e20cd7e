//! A batch of spans in the JSON form of OTLP 1.x (`opentelemetry-proto`, `docs/specification.md`,
//! section "JSON Protobuf Encoding"), with the names of OpenTelemetry's conventions for HTTP. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Span;

/// `SPAN_KIND_SERVER`: what a proxy is for its clients.
const KIND_SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`.
const STATUS_ERROR: u8 = 2;
/// The flag of `traceparent`, which every span here has.
const SAMPLED: u8 = 1;

/// The body of an `ExportTraceServiceRequest`.
pub(super) fn batch(service: &str, spans: &[Span]) -> Vec<u8> {
    let resource = [
        text("service.name", service),
        text("telemetry.sdk.name", "underpass"),
        text("telemetry.sdk.language", "rust"),
    ];
    let scope = json!({ "name": "underpass", "version": env!("CARGO_PKG_VERSION") });
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": scope, "spans": spans }],
    }]});
    request.to_string().into_bytes()
}

fn span(span: &Span) -> Value {
    let mut attributes = vec![
        text("http.request.method", &span.method),
        text("url.path", &span.path),
        text("url.scheme", span.scheme),
        text("network.protocol.version", span.version),
        number("http.response.status_code", u64::from(span.status)),
        text("client.address", &span.client.ip().to_string()),
        number("client.port", u64::from(span.client.port())),
        text("underpass.listener", &span.listener),
        number("http.request.body.size", span.request_bytes),
        number("http.response.body.size", span.response_bytes),
    ];
    attributes.extend(span.host.as_deref().map(|host| text("server.address", host)));
    attributes.extend(span.route.as_deref().map(|route| text("underpass.route", route)));
    attributes.extend(span.upstream.as_deref().map(|name| text("underpass.upstream", name)));
    attributes.extend(span.server.map(|it| text("underpass.server", &it.to_string())));
    attributes.extend(
        (span.resends > 0).then(|| number("http.request.resend_count", u64::from(span.resends))),
    );
    // The conventions: of a server, only its own faults are errors.
    let failed = span.status >= 500 || span.error.is_some();
    if failed {
        let status = span.status.to_string();
        attributes.push(text("error.type", span.error.map_or(&status, |kind| kind.name())));
    }
    let name = match &span.route {
        Some(route) => format!("{} {route}", span.method),
        None => span.method.clone(),
    };
    let end = span.start + span.duration;
    let mut value = json!({
        "traceId": span.context.trace_id(),
        "spanId": format!("{:016x}", span.context.span),
        "flags": SAMPLED,
        "name": name,
        "kind": KIND_SERVER,
        "startTimeUnixNano": nanoseconds(span.start),
        "endTimeUnixNano": nanoseconds(end),
        "attributes": attributes,
    });
    if let Some(parent) = span.context.parent {
        value["parentSpanId"] = json!(format!("{parent:016x}"));
    }
    if failed {
        value["status"] = json!({ "code": STATUS_ERROR });
    }
    value
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// 64 bits are strings in this form.
fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn nanoseconds(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{error::Kind, spans::Context};

    #[test]
    fn a_span_has_the_fields_that_a_collector_reads() {
        let span = Span {
            context: Context { trace: 0xabc, parent: Some(0x12), span: 0x34, sampled: true },
            start: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001),
            duration: Duration::from_nanos(5),
            method: "GET".into(),
            path: "/v1".into(),
            scheme: "http",
            host: Some("api.test".into()),
            version: "1.1",
            status: 502,
            client: "192.0.2.1:5".parse().unwrap(),
            listener: "web".into(),
            route: Some("api".into()),
            upstream: None,
            server: None,
            resends: 2,
            request_bytes: 1,
            response_bytes: 1 << 60,
            error: Some(Kind::Connect),
        };
        let value: Value = serde_json::from_slice(&batch("edge", &[span])).unwrap();
        let span = &value["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        for (field, expected) in [
            ("traceId", json!("00000000000000000000000000000abc")),
            ("spanId", json!("0000000000000034")),
            ("parentSpanId", json!("0000000000000012")),
            ("name", json!("GET api")),
            ("kind", json!(2)),
            ("startTimeUnixNano", json!("1700000000000000001")),
            ("endTimeUnixNano", json!("1700000000000000006")),
            ("status", json!({ "code": 2 })),
        ] {
            assert_eq!(span[field], expected, "{field}");
        }
        let attributes = span["attributes"].as_array().unwrap();
        for (key, expected) in [
            ("http.response.status_code", json!({ "intValue": "502" })),
            ("http.response.body.size", json!({ "intValue": "1152921504606846976" })),
            ("http.request.resend_count", json!({ "intValue": "2" })),
            ("error.type", json!({ "stringValue": "connect" })),
        ] {
            let found = attributes.iter().find(|attribute| attribute["key"] == key).unwrap();
            assert_eq!(found["value"], expected, "{key}");
        }
        let service = &value["resourceSpans"][0]["resource"]["attributes"][0];
        assert_eq!(*service, text("service.name", "edge"));
    }
}
