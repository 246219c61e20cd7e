//! Clients as people use them, told of the proxy and of its authority by the usual variables.
//!
//! `UNDERPASS_TEST_PYTHON` names a Python that has the packages `anthropic` and `openai`; without
//! it `python3` is tried, and one that lacks them skips these tests.

use std::process::Command;

use mantra_macros::req_test;
use serde_json::Value;
use underpass_tests::{
    Records,
    curl::{curl, peer},
    intercept::LocalCa,
    models::{self, Client},
    proxy::run,
    skip,
    tls_origin::{Signer, TlsOrigin},
};

#[req_test("REQ-REC-007")]
#[tokio::test]
async fn curl_is_recorded() {
    if !peer("curl") {
        return;
    }
    let (ca, signer, records) =
        (LocalCa::of(&["localhost"]), Signer::default(), Records::default());
    let config = signer.server(&signer.good("localhost"), &["h2", "http/1.1"]);
    let origin = TlsOrigin::start(config).await;
    let proxy = ca.proxy(&["localhost"], &signer).args(records.args()).start();
    let (address, pem) = (format!("http://{}", proxy.addr()), ca.certificate());
    let url = format!("https://localhost:{}/x", origin.addr().port());
    let common = ["--noproxy", "", "-x", &address, "--cacert", pem.to_str().unwrap(), &url];
    for (flag, alpn) in [("--http1.1", "http/1.1"), ("--http2", "h2")] {
        let text = curl(&[&[flag][..], &common].concat()).await.text();
        assert!(text.contains(&format!("alpn={alpn} ")), "{flag}: {text}");
    }
    let all = records.ended(2).await;
    assert!(all.iter().all(|record| record.is_whole()), "{all:?}");
    assert!(all.iter().all(|record| record.begin.as_ref().unwrap().url() == url), "{all:?}");
    // Without the authority it is told that nobody vouches for the server.
    let refused = curl(&["--noproxy", "", "-x", &address, &url]).await;
    assert_eq!(refused.code, 60, "{}", refused.stderr);
}

async fn says(client: &Client) {
    if !client.is_there() {
        let python = models::python();
        return skip::say(&format!(
            "the client `{}`: {python} has no such package",
            client.package
        ));
    }
    let (ca, signer, records) =
        (LocalCa::of(&["localhost"]), Signer::default(), Records::default());
    let config = signer.server(&signer.good("localhost"), &["h2", "http/1.1"]);
    let origin = TlsOrigin::streaming(config, models::pieces(client.events)).await;
    let proxy = ca.proxy(&["localhost"], &signer).args(records.args()).start();
    let base = format!("https://localhost:{}", origin.addr().port());
    let (proxy_url, pem, script) =
        (format!("http://{}", proxy.addr()), ca.certificate(), client.script);
    let asked = tokio::task::spawn_blocking(move || {
        Command::new(models::python())
            .args(["-c", script, &base])
            .env("HTTPS_PROXY", proxy_url)
            .env("SSL_CERT_FILE", pem)
            .env("NO_PROXY", "")
            .env_remove("no_proxy")
            .output()
    });
    let output = asked.await.expect("a thread").expect("python");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello wörld", "{said}{}", proxy.stderr());
    let record = records.only().await;
    assert!(record.is_whole(), "{record:?}");
    assert_eq!(record.begin.as_ref().unwrap().scheme, "https");
    let secret = b"s3cret-key";
    assert!(!records.bytes().windows(secret.len()).any(|window| window == secret));
    let folder = records.path().to_str().expect("UTF-8");
    let shown = run(&["record", "show", "last", "--json", "--dir", folder]);
    let json: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(json["message"]["parts"], serde_json::json!([{ "text": "Hello wörld" }]));
    assert_eq!(json["events"].as_array().map(Vec::len), Some(client.events.len()));
}

#[req_test("REQ-REC-007", "REQ-REC-003")]
#[tokio::test]
async fn the_client_of_anthropic_is_recorded() {
    says(&models::ANTHROPIC).await;
}

#[req_test("REQ-REC-007", "REQ-REC-003")]
#[tokio::test]
async fn the_client_of_openai_is_recorded() {
    says(&models::OPENAI).await;
}
