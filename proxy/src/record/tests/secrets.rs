//! Bodies that are searched for secrets, where bytes of them are missing.

use super::*;

/// What is stored of chunks of an answer of which the ones that are `None` find no room.
fn stored(content_type: &'static str, chunks: &[Option<&'static str>]) -> (String, Vec<String>) {
    let folder = Folder::new();
    let mut config = folder.config();
    config.memory_bytes = 64 << 10;
    config.redact.json_fields = vec!["password".to_owned()];
    let recorder = Recorder::start(&config, 1, Counters::default()).unwrap();
    let lane = Rc::new(recorder.lane(0));
    let recording = begin(&lane, "/").unwrap();
    let mut fields = HeaderMap::new();
    fields.insert("content-type", HeaderValue::from_static(content_type));
    recording.answer(StatusCode::OK, &fields, true);
    let mut sent = 0;
    for chunk in chunks {
        // More than all the memory.
        let chunk = chunk.map_or_else(|| Bytes::from(vec![b'x'; 100_000]), Bytes::from);
        recording.chunk(Side::Response, &chunk);
        sent += chunk.len() as u64;
    }
    end(&recording, false);
    recorder.shutdown();
    let records = folder.records();
    let body = records[0].body(Side::Response);
    assert_eq!(body.length + records[0].missing_bytes(), sent, "every byte is accounted for");
    let why = body.gaps.iter().map(|gap| gap.missing.why.clone()).collect();
    (String::from_utf8(body.bytes.clone()).unwrap(), why)
}

/// Behind missing bytes nobody knows whether a quote begins a string or ends one.
#[req_test("REQ-REC-006", "REQ-REC-005")]
#[test]
fn secrets_behind_missing_bytes_are_left_out() {
    let (body, why) =
        stored("application/json", &[Some(r#"{"password":"s3"#), None, Some("cret\"}\n{}\n\n{}")]);
    assert_eq!(body, r#"{"password":"**"#);
    assert_eq!(why, ["budget", "unsearched"]);
    let broken = [Some("{\"password\":[\"s3\",\n"), None, Some("\"cret\"]}\n{\"a\":1}\n")];
    let (body, _) = stored("text/plain", &broken);
    assert_eq!(body, "{\"password\":[\"**\",\n");
}

/// Lines and events say where the next one begins, and it is there again.
#[req_test("REQ-REC-006")]
#[test]
fn lines_and_events_behind_missing_bytes_are_recorded_again() {
    let chunks =
        [Some("{\"password\":\"s3"), None, Some("cret\"}\n{\"password\":\"a"), Some("b\"}\n")];
    let (body, why) = stored("application/x-ndjson", &chunks);
    assert_eq!(body, "{\"password\":\"**{\"password\":\"**\"}\n");
    assert_eq!(why, ["budget", "unsearched"]);
    let chunks = [
        Some("data: {\"password\":\ndata: \"s3"),
        None,
        Some("cret\",\ndata: \"b\": 1}\n"),
        Some("\ndata: {\"password\":\"ab\"}\n\n"),
    ];
    let (body, _) = stored("text/event-stream; charset=utf-8", &chunks);
    assert!(!body.contains("cret"), "{body}");
    assert!(body.ends_with("data: {\"password\":\"**\"}\n\n"), "{body}");
}

/// Chunks keep their boundaries, though they go to the disk in pieces.
#[req_test("REQ-REC-003", "REQ-REC-006")]
#[test]
fn chunks_are_chunks_where_patterns_hold_them_back() {
    let folder = Folder::new();
    let config = crate::config::parse(
        &format!(
            "[record]\ndirectory = \"{}\"\n[record.redact]\npatterns = ['sk-[a-z]+']\n\
             [[listener]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\n\
             [[route]]\nupstream = \"a\"\n[[upstream]]\nname = \"a\"\nservers = [\"a:1\"]\n",
            folder.0.display()
        ),
        "t.toml",
    );
    let recorder =
        Recorder::start(&config.unwrap().record.unwrap(), 1, Counters::default()).unwrap();
    let lane = Rc::new(recorder.lane(0));
    let chunks = [3000, 10, 5000, 1, 1500].map(|size| Bytes::from(vec![b'x'; size]));
    whole(&lane, "/", &chunks);
    recorder.shutdown();
    let records = folder.records();
    let lengths: Vec<u64> =
        records[0].body(Side::Response).chunks.iter().map(|chunk| chunk.len).collect();
    assert_eq!(lengths, [3000, 10, 5000, 1, 1500]);
}
