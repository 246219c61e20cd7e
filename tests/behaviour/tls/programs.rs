//! curl and OpenSSL as clients.

use std::process::Stdio;

use mantra_macros::req_test;
use tokio::process::Command;
use underpass_tests::{
    Served,
    clock::{BOUND, within},
    curl::{curl, peer},
    tls::{Authority, Folder},
};

use super::{certificates, proxy};

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn curl_is_served_over_both_versions() {
    if !peer("curl") {
        return;
    }
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test", "*.b.test"]));
    folder.write("ca.pem", &authority.pem);
    let ca = folder.path("ca.pem").display().to_string();
    let origin = Served::ok().await;
    let proxy = proxy("", &certificates(&folder, &["site"]), origin.addr()).start();
    let port = proxy.listener("web").port();
    for (version, host) in [("--http1.1", "a.test"), ("--http2", "x.b.test")] {
        let resolve = format!("{host}:{port}:127.0.0.1");
        let url = format!("https://{host}:{port}/");
        let args = [version, "--cacert", &ca, "--resolve", &resolve, "-i", &url, &url];
        let got = curl(&args).await.text();
        let status = if version == "--http2" { "HTTP/2 200" } else { "HTTP/1.1 200" };
        assert_eq!(got.matches(status).count(), 2, "{got}");
        assert!(got.ends_with("ok"), "{got}");
    }
    // Without the CA it trusts nobody, and says why it leaves.
    let resolve = format!("a.test:{port}:127.0.0.1");
    let refused = curl(&["--resolve", &resolve, &format!("https://a.test:{port}/")]).await;
    assert_eq!(refused.code, 60, "{}", refused.stderr);
    // And what it reads with a plain URL says what to do.
    let plain = curl(&[&format!("http://127.0.0.1:{port}/")]).await.text();
    assert!(plain.contains("plain HTTP was sent to a port that speaks TLS"), "{plain}");
}

/// What OpenSSL's own client prints of versions, protocols and a stapled response.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn openssl_sees_what_is_configured() {
    if !peer("openssl") {
        return;
    }
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    folder.write("ca.pem", &authority.pem);
    // A response that says that the responder will not answer ("unauthorized"), with room for
    // a length of more than one byte: enough to see that it is sent as it is.
    folder.write("site.ocsp", [0x30, 0x81, 0x03, 0x0a, 0x01, 0x06]);
    let staple = format!(", ocsp = \"{}\" }}", folder.path("site.ocsp").display());
    let entry = folder.entry("site").replace(" }", &staple);
    let tls = format!("certificates = [{entry}]");
    let origin = Served::ok().await;
    let proxy = proxy("", &tls, origin.addr()).start();
    let address = proxy.listener("web").to_string();
    let ca = folder.path("ca.pem").display().to_string();
    for (version, shown) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let run = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-servername", "a.test", version, "-status"])
            .args(["-CAfile", &ca, "-verify_return_error", "-alpn", "h2"])
            .stdin(Stdio::null())
            .output();
        let output = within(BOUND, "openssl to end", run).await.expect("run openssl");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(shown), "{said}");
        assert!(said.contains("ALPN protocol: h2"), "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains("OCSP response:"), "{said}");
        assert!(!said.contains("no response sent"), "{said}");
    }
}
