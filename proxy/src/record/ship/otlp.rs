//! Lines of records as logs in the JSON form of OTLP 1.x (`opentelemetry-proto`,
//! `docs/specification.md`, section "JSON Protobuf Encoding"): a log record for each line, whose
//! body is the line. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::record::read::Line;

/// `SEVERITY_NUMBER_INFO` and `SEVERITY_NUMBER_ERROR`.
const INFO: u8 = 9;
const ERROR: u8 = 17;

/// The body of an `ExportLogsServiceRequest` for these lines.
pub(super) fn batch(service: &str, lines: &[u8], now: SystemTime) -> Vec<u8> {
    let resource = [
        text("service.name", service),
        text("telemetry.sdk.name", "underpass"),
        text("telemetry.sdk.language", "rust"),
    ];
    let scope = json!({ "name": "underpass", "version": env!("CARGO_PKG_VERSION") });
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let observed = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()).to_string();
    let logs: Vec<Value> = lines.map(|line| log(line, &observed)).collect();
    let request = json!({ "resourceLogs": [{
        "resource": { "attributes": resource },
        "scopeLogs": [{ "scope": scope, "logRecords": logs }],
    }]});
    request.to_string().into_bytes()
}

fn log(line: &[u8], observed: &str) -> Value {
    // Made here, and always text.
    let body = String::from_utf8_lossy(line);
    let (mut attributes, mut severity, mut time) = (Vec::new(), INFO, None);
    if let Ok(line) = serde_json::from_slice::<Line<IgnoredAny>>(line) {
        attributes.extend(line.id.as_deref().map(|id| text("underpass.record.id", id)));
        attributes.push(number("underpass.record.part", line.part));
        if let Some(begin) = &line.begin {
            time = Some((begin.seconds() * 1e6).round() as u64 * 1000);
            attributes.extend([
                text("http.request.method", &begin.method),
                text("url.scheme", &begin.scheme),
                text("url.path", begin.path()),
                text("server.address", &begin.host),
                text("client.address", &begin.client),
                text("underpass.listener", &begin.listener),
            ]);
            attributes.extend(begin.route.as_deref().map(|route| text("underpass.route", route)));
        }
        if let Some(answer) = &line.answer {
            attributes.push(number("http.response.status_code", u64::from(answer.status)));
            severity = if answer.status >= 500 { ERROR } else { severity };
        }
        if let Some(end) = &line.end {
            attributes.push(text("underpass.end", &end.how));
            if let Some(error) = &end.error {
                attributes.push(text("error.type", error));
                severity = ERROR;
            }
        }
    }
    let mut log = json!({
        "observedTimeUnixNano": observed,
        "severityNumber": severity,
        "severityText": if severity == ERROR { "ERROR" } else { "INFO" },
        "body": { "stringValue": body },
        "attributes": attributes,
    });
    if let Some(time) = time {
        log["timeUnixNano"] = time.to_string().into();
    }
    log
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// 64 bits are strings in this form.
fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[mantra_macros::req_test("REQ-REC-006")]
    #[test]
    fn a_line_is_a_log_record_with_what_collectors_look_for() {
        let lines = concat!(
            r#"{"v":1,"id":"r-0-1","part":0,"begin":{"time":"2026-02-03T04:05:06.000007Z","#,
            r#""listener":"web","client":"192.0.2.1:5","route":"api","version":"HTTP/1.1","#,
            r#""scheme":"http","method":"GET","host":"h","target":"/a?token=***","headers":[]},"#,
            r#""answer":{"at":1,"status":502,"by":"proxy","headers":[]}}"#,
            "\n",
            r#"{"v":1,"unrecorded":{"time":"2026-02-03T04:05:06Z","exchanges":3}}"#,
            "\n"
        );
        let now = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001);
        let value: Value = serde_json::from_slice(&batch("edge", lines.as_bytes(), now)).unwrap();
        let service = &value["resourceLogs"][0]["resource"]["attributes"][0];
        assert_eq!(*service, text("service.name", "edge"));
        let logs = value["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
        assert_eq!(logs.len(), 2);
        let first = &logs[0];
        assert_eq!(first["timeUnixNano"], "1770091506000007000");
        assert_eq!(first["observedTimeUnixNano"], "1700000000000000001");
        assert_eq!(
            (&first["severityNumber"], &first["severityText"]),
            (&17.into(), &"ERROR".into())
        );
        assert_eq!(first["body"]["stringValue"], lines.lines().next().unwrap());
        for wanted in [
            text("underpass.record.id", "r-0-1"),
            number("underpass.record.part", 0),
            text("url.path", "/a"),
            number("http.response.status_code", 502),
        ] {
            assert!(first["attributes"].as_array().unwrap().contains(&wanted), "{wanted}");
        }
        assert!(logs[1].get("timeUnixNano").is_none());
        assert_eq!(logs[1]["severityText"], "INFO");
    }
}
