//! Secrets: none of their bytes is stored anywhere.

use mantra_macros::req_test;
use underpass::record::Side;
use underpass_tests::{HttpClient, Origin, OutBody, Proxy, Records, Reply, Served, Version};

fn assert_no(needle: &str, records: &Records) {
    let bytes = records.bytes();
    let found = bytes.windows(needle.len()).position(|window| window == needle.as_bytes());
    if let Some(at) = found {
        let from = at.saturating_sub(80);
        panic!(
            "{needle} in {:?}",
            String::from_utf8_lossy(&bytes[from..(at + 80).min(bytes.len())])
        );
    }
}

#[req_test("REQ-REC-006")]
#[tokio::test]
async fn credentials_in_heads_are_blanked_by_default() {
    let answer = "HTTP/1.1 302 Found\r\nSet-Cookie: sid=s3cret; HttpOnly\r\n\
                  Location: https://a/cb?code=s3cret&state=1#access_token=s3cret\r\n\
                  Refresh: 1; url=//u:s3cret@h/?token=s3cret\r\n\
                  Link: </?page=2&key=s3cret>; rel=next\r\nContent-Length: 2\r\n\r\nok";
    let origin = Origin::bind().await.serve(move |_| Reply::from(answer));
    let records = Records::default();
    let proxy = Proxy::reverse(origin.addr()).args(records.args()).start();
    for version in [Version::H1, Version::H2] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        let request = client
            .request(http::Method::GET, "/v1?key=s3cret&page=2&access_token=s3cret")
            .header("authorization", "Bearer s3cret")
            .header("proxy-authorization", "Basic s3cret")
            .header("cookie", "sid=s3cret")
            .header("x-api-key", "s3cret")
            .header("api-key", "s3cret")
            .header("x-auth-key", "s3cret")
            .header("sec-websocket-protocol", "realtime, openai-insecure-api-key.s3cret")
            .header("x-forwarded-uri", "/?token=s3cret")
            .header("referer", "http://h/?token=s3cret")
            .header("x-kept", "visible");
        let answer = client.send(request.body(OutBody::Empty).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 302);
        assert_eq!(answer.headers()["set-cookie"], "sid=s3cret; HttpOnly", "the client's stays");
    }
    let found = records.ended(2).await;
    assert_no("s3cret", &records);
    for record in &found {
        let begin = record.begin.as_ref().unwrap();
        assert_eq!(begin.target, "/v1?key=***&page=2&access_token=***");
        let kept = begin
            .headers
            .iter()
            .any(|(name, value)| name.lossy() == "x-kept" && value.lossy() == "visible");
        assert!(kept && record.is_whole());
        assert_eq!(record.body(Side::Response).bytes, b"ok");
    }
    // What the server got is untouched.
    let seen = origin.seen();
    assert!(
        seen.iter().all(|seen| seen.message.head.get("authorization") == Some("Bearer s3cret"))
    );
}

/// Bodies are blanked where asked for, wherever chunks end; what cannot be searched is left out.
#[req_test("REQ-REC-006")]
#[tokio::test]
async fn bodies_are_blanked_across_chunks_and_encoded_ones_left_out() {
    let origin = Origin::bind().await;
    let records = Records::default();
    let section = "batch_delay = \"1ms\"\n[record.redact]\njson_fields = [\"password\"]\n\
                   patterns = ['sk-[A-Za-z0-9]+']\n";
    let config = format!(
        "workers = 1\n{}[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n[[route]]\n\
         upstream = \"o\"\n[[upstream]]\nname = \"o\"\nservers = [\"{}\"]\n",
        records.section(section),
        origin.addr()
    );
    let proxy = Proxy::config(config).start();
    let body = r#"{"user":"ada","password":"s3cret","note":"key sk-s3cretS3CRET end"}"#;
    let head = "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = proxy.open(head).await;
    let mut server = origin.accept().await;
    server.read_head().await;
    // Each byte a chunk, and most of them a batch of their own.
    for byte in body.bytes() {
        client.send(format!("1\r\n{}\r\n", byte as char)).await;
        server.read_until(&format!("{}\r\n", byte as char)).await;
    }
    client.send("0\r\n\r\n").await;
    server.read_until("0\r\n\r\n").await;
    let packed = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\ns3cret";
    server.send(packed).await;
    client.expect_status(200).await;
    let record = records.only().await;
    assert_no("s3cret", &records);
    assert_no("S3CRET", &records);
    let request = record.body(Side::Request);
    let wanted = r#"{"user":"ada","password":"******","note":"key *************** end"}"#;
    assert_eq!(String::from_utf8_lossy(&request.bytes), wanted);
    assert_eq!(request.chunks.len(), body.len(), "a chunk is a chunk");
    assert!(request.chunks.iter().all(|chunk| chunk.len == 1));
    let response = record.body(Side::Response);
    assert!(response.bytes.is_empty());
    let missing = &response.gaps[0].missing;
    assert_eq!((missing.bytes, missing.why.as_str()), (6, "encoded"));
}

/// What is shown is blanked where that is asked for, and what is stored is not.
#[req_test("REQ-REC-006")]
#[tokio::test]
async fn what_is_shown_can_be_blanked() {
    let body = r#"{"email":"ada@example.org","note":"call DE12345"}"#;
    let served = Served::always(Reply::ok(body)).await;
    let records = Records::default();
    let proxy = Proxy::reverse(served.addr()).args(records.args()).start();
    let ask = "GET /a?who=ada HTTP/1.1\r\nHost: t\r\nX-Tenant: acme\r\n\r\n";
    proxy.open(ask).await.expect_status(200).await;
    records.ended(1).await;
    let folder = records.path().to_str().expect("UTF-8");
    let config = underpass_tests::proxy::scratch("toml");
    std::fs::write(
        &config,
        "[record]\ndirectory = \"/d\"\n[record.redact_shown]\njson_fields = [\"email\"]\n\
         headers = [\"x-tenant\"]\nquery = [\"who\"]\npatterns = ['DE[0-9]{5}']\n",
    )
    .expect("write");
    let rules = ["json:email", "header:x-tenant", "query:who", "pattern:DE[0-9]{5}"];
    let flags: Vec<&str> = rules.iter().flat_map(|rule| ["--redact", rule]).collect();
    let file = ["--redact-config", config.to_str().expect("UTF-8")];
    for rules in [&flags[..], &file] {
        for args in [
            &["show", "last"][..],
            &["show", "last", "--json"],
            &["show", "last", "--raw", "response"],
            &["export", "--format", "har"],
            &["export", "--format", "html"],
            &["export", "--format", "jsonl"],
            &["export", "--format", "curl"],
        ] {
            let all = [&["record"][..], args, &["--dir", folder], rules].concat();
            let output = underpass_tests::proxy::run(&all);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let shown = String::from_utf8(output.stdout).expect("UTF-8");
            for secret in ["ada@example.org", "DE12345", "acme", "who=ada"] {
                assert!(!shown.contains(secret), "{args:?} {rules:?}: {secret} in {shown}");
            }
        }
    }
    let _ = std::fs::remove_file(&config);
    let stored = String::from_utf8_lossy(&records.bytes()).into_owned();
    assert!(stored.contains("ada@example.org") && stored.contains("acme"), "it stays stored");
    let wrong = ["record", "show", "last", "--dir", folder, "--redact", "nothing"];
    assert_eq!(underpass_tests::proxy::run(&wrong).status.code(), Some(2));
}
