//! A scanner of TLS: which versions and ciphers a listener takes, as somebody from outside finds.

use mantra_macros::req_test;
use underpass_tests::{Served, models::python, tls::TlsClient};

use super::{Site, has_package, run};

/// Prints `NAME: suite suite …` for each version, and whether the other promises hold.
const SCRIPT: &str = r#"
import sys
from sslyze import Scanner, ScanCommand, ServerScanRequest, ServerNetworkLocation
names = {"2.0": "SSL_2_0", "3.0": "SSL_3_0", "1.0": "TLS_1_0", "1.1": "TLS_1_1", "1.2": "TLS_1_2", "1.3": "TLS_1_3"}
commands = {ScanCommand[name + "_CIPHER_SUITES"] for name in names.values()}
more = {ScanCommand.TLS_COMPRESSION, ScanCommand.SESSION_RENEGOTIATION, ScanCommand.HEARTBLEED, ScanCommand.OPENSSL_CCS_INJECTION, ScanCommand.ROBOT, ScanCommand.TLS_1_3_EARLY_DATA}
scanner = Scanner()
where = ServerNetworkLocation(hostname="localhost", port=int(sys.argv[1]), ip_address="127.0.0.1")
scanner.queue_scans([ServerScanRequest(server_location=where, scan_commands=commands | more)])
for result in scanner.get_results():
    found = result.scan_result
    if found is None:
        raise SystemExit("no connection: %s" % result.connectivity_error_trace)
    def of(name):
        attempt = getattr(found, name)
        if attempt.result is None:
            raise SystemExit("%s: %s %s" % (name, attempt.error_reason, attempt.error_trace))
        return attempt.result
    for version, name in names.items():
        suites = of(name.lower() + "_cipher_suites").accepted_cipher_suites
        print(version + ":", *sorted(suite.cipher_suite.name for suite in suites))
    print("compression:", of("tls_compression").supports_compression)
    print("renegotiation:", of("session_renegotiation").is_vulnerable_to_client_renegotiation_dos)
    print("heartbleed:", of("heartbleed").is_vulnerable_to_heartbleed)
    print("ccs:", of("openssl_ccs_injection").is_vulnerable_to_ccs_injection)
    print("robot:", of("robot").robot_result.name)
    print("early data:", of("tls_1_3_early_data").supports_early_data)
"#;

const OF_13: &str =
    "1.3: TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256\n";

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_scanner_finds_what_is_configured_and_nothing_else() {
    if !has_package("sslyze").await {
        return;
    }
    let of_12 = "1.2: TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 \
                 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 \
                 TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256\n";
    let served = Served::ok().await;
    for (lines, of_12) in [("", of_12), ("min_version = \"1.3\"", "1.2:\n")] {
        let site = Site::new(served.addr(), "http1", lines);
        let found = run(&python(), &["-c", SCRIPT, &site.port().to_string()]).await;
        let (said, why) =
            (String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&found.stderr));
        let old = "2.0:\n3.0:\n1.0:\n1.1:\n";
        let others = "compression: False\nrenegotiation: False\nheartbleed: False\nccs: False\n\
                      robot: NOT_VULNERABLE_RSA_NOT_SUPPORTED\nearly data: False\n";
        assert_eq!(said, format!("{old}{of_12}{OF_13}{others}"), "{why}");
        // Whoever comes afterwards is served.
        let client = TlsClient::trusting(&site.authority);
        let mut client = client.connect(site.proxy.listener("web"), "localhost").await;
        assert_eq!(client.get("localhost").await.text(), "ok");
    }
}
