//! nghttp2's own client and its generator of load.

use std::process::Stdio;

use mantra_macros::req_test;
use underpass_tests::{Origin, Reply, pattern, skip};

use super::{Site, run};

fn is_there(program: &str) -> bool {
    let mut command = std::process::Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    let found = command.status().is_ok_and(|status| status.success());
    if !found {
        skip::say(&format!("{program} is not installed (nghttp2-client)"));
    }
    found
}

/// A frame for each thing that the proxy says, as another implementation reads it.
#[req_test("REQ-EDGE-005", "REQ-EDGE-006")]
#[tokio::test]
async fn nghttp_understands_every_frame() {
    if !is_there("nghttp") {
        return;
    }
    let body = pattern::bytes(300_000);
    let served = Origin::bind().await.serve(move |_| Reply::ok(&body));
    let site = Site::new(served.addr(), "http1", "");
    let (one, other) = (site.url("/one"), site.url("/other"));
    let upload = site.folder.path("upload");
    std::fs::write(&upload, pattern::bytes(200_000)).unwrap();
    let file = upload.display().to_string();
    let asked = run("nghttp", &["-v", "-n", "--no-verify-peer", &one, &other]).await;
    let said = String::from_utf8_lossy(&asked.stdout);
    assert!(asked.status.success(), "{said}");
    for part in ["The negotiated protocol: h2", "ENABLE_CONNECT_PROTOCOL(0x08):1", ":status: 200"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(said.matches(":status: 200").count(), 2, "{said}");
    for wrong in ["RST_STREAM", "Some requests were not processed", "[ERROR]"] {
        assert!(!said.contains(wrong), "{wrong}: {said}");
    }
    let sent = run("nghttp", &["-v", "-n", "--no-verify-peer", "-d", &file, &one]).await;
    let said = String::from_utf8_lossy(&sent.stdout);
    assert!(sent.status.success() && said.contains(":status: 200"), "{said}");
    assert_eq!(served.seen().last().unwrap().message.body.len(), 200_000);
}

/// Every request of many is answered, over many streams of a few connections, with small windows.
#[req_test("REQ-EDGE-005", "REQ-EDGE-006")]
#[tokio::test]
async fn h2load_has_every_request_answered() {
    if !is_there("h2load") {
        return;
    }
    let body = pattern::bytes(20_000);
    let served = Origin::bind().await.serve(move |_| Reply::ok(&body));
    let site = Site::new(served.addr(), "http1", "");
    let url = site.url("/");
    for windows in [&[][..], &["-w", "14", "-W", "14"]] {
        let args = [&["-n", "600", "-c", "3", "-m", "20"][..], windows, &[&url]].concat();
        let loaded = run("h2load", &args).await;
        let said = String::from_utf8_lossy(&loaded.stdout);
        assert!(loaded.status.success(), "{said}");
        let all = "600 total, 600 started, 600 done, 600 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(said.contains(all) && said.contains("600 2xx"), "{said}");
        assert!(said.contains("Application protocol: h2"), "{said}");
    }
}
