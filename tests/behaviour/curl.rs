//! curl as a client: HTTP/1.1 and HTTP/2 with prior knowledge.

use mantra_macros::req_test;
use underpass_tests::{
    Origin, Proxy, Reply, Seen, Served, Version,
    curl::{curl, peer},
    over_versions,
    proxy::scratch,
};

over_versions!(downloads_and_uploads_of_curl);

fn flag(version: Version) -> &'static str {
    match version {
        Version::H1 => "--http1.1",
        Version::H2 => "--http2-prior-knowledge",
    }
}

#[req_test("REQ-CORE-001.F-003")]
async fn downloads_and_uploads_of_curl(version: Version) {
    if !peer("curl") {
        return;
    }
    let answer = |seen: &Seen| match seen.message.head.method() {
        "GET" => Reply::from(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Origin: yes\r\n\r\n\
             7\r\nchunked\r\n0\r\n\r\n",
        ),
        _ => Reply::ok(&seen.message.body),
    };
    let origin = Origin::bind().await.serve(answer);
    let proxy = Proxy::reverse(origin.addr()).start();
    let url = format!("http://{}/x", proxy.addr());
    let got = curl(&[flag(version), "-i", &url]).await.text();
    let expected = if version == Version::H2 { "HTTP/2 200" } else { "HTTP/1.1 200" };
    assert!(got.starts_with(expected) && got.ends_with("chunked"), "{got}");
    assert!(got.to_ascii_lowercase().contains("x-origin: yes"), "{got}");

    // Large enough for curl to ask with Expect: 100-continue first.
    let file = scratch("upload");
    std::fs::write(&file, underpass_tests::pattern::bytes(2 << 20)).unwrap();
    let at = format!("@{}", file.display());
    for framing in ["Content-Type: x/y", "Transfer-Encoding: chunked"] {
        if version == Version::H2 && framing.starts_with("Transfer") {
            continue;
        }
        let args = [flag(version), "--data-binary", &at, "-H", framing, "-H"];
        let got = curl(&[&args[..], &["Expect: 100-continue", &url]].concat()).await;
        assert_eq!(got.code, 0, "{}", got.stderr);
        assert!(got.stdout == underpass_tests::pattern::bytes(2 << 20), "{framing}");
    }
    std::fs::remove_file(file).unwrap();

    let args = [flag(version), "--head", "-w", "%{http_code}", "-o", "/dev/null", &url];
    assert!(curl(&args).await.text().ends_with("200"));
}

/// Over HTTP/1.1 only: curl 7.88 breaks with prior knowledge on its second request, whatever
/// the server.
#[tokio::test]
async fn curl_reuses_its_connection() {
    if !peer("curl") {
        return;
    }
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let url = format!("http://{}/[1-5]", proxy.addr());
    let made = curl(&["--http1.1", "-w", "%{num_connects}", &url]).await.text();
    assert_eq!(made, "ok1ok0ok0ok0ok0");
    assert_eq!(origin.connections(), 1);
}

/// An error of ours reads like any other answer.
#[tokio::test]
async fn curl_shows_our_errors() {
    if !peer("curl") {
        return;
    }
    let refusing = underpass_tests::Refusing::bind();
    let proxy = Proxy::reverse(refusing.addr()).start();
    let url = format!("http://{}/", proxy.addr());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let got = curl(&[version, "-w", "%{http_code}", &url]).await.text();
        assert!(got.ends_with("502") && got.len() > 4, "{got}");
    }
}

/// A truncated answer is an error for curl (18), not a short success.
#[tokio::test]
async fn curl_notices_a_cut_answer() {
    if !peer("curl") {
        return;
    }
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    let origin = Served::always(Reply::from(cut).then_close()).await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let url = format!("http://{}/", proxy.addr());
    let got = curl(&["--http1.1", &url]).await;
    assert_eq!((got.code, got.stdout.as_slice()), (18, &b"half"[..]), "{}", got.stderr);
    // 92: stream not closed cleanly; 18 and 56 from other builds of it.
    let got = curl(&["--http2-prior-knowledge", &url]).await;
    assert!([92, 18, 56].contains(&got.code), "{got:?}");
}
