//! The authority: its files, whom it may sign for, and that its key is told to nobody.

use std::{fs, os::unix::fs::PermissionsExt as _};

use mantra_macros::req_test;
use underpass_tests::{
    Records,
    intercept::{LocalCa, inside},
    proxy::run,
    tls_origin::{Signer, TlsOrigin},
};

#[req_test("REQ-REC-007")]
#[test]
fn it_is_made_once_and_only_its_owner_can_read_it() {
    let ca = LocalCa::default();
    assert_eq!(ca.modes(), [0o700, 0o600, 0o600]);
    let (key, folder) = (ca.key(), ca.path().to_str().unwrap());
    let again = run(&["record", "ca", "init", "--dir", folder]);
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("is there already") && said.contains("--replace"), "{said}");
    assert_eq!(ca.key(), key);
    let replaced = run(&["record", "ca", "init", "--dir", folder, "--replace"]);
    assert!(replaced.status.success());
    assert_ne!(ca.key(), key);
    assert_eq!(ca.modes(), [0o700, 0o600, 0o600]);
    assert_eq!(fs::read_dir(ca.path()).unwrap().count(), 2, "nothing else is left there");
}

#[req_test("REQ-REC-007")]
#[test]
fn only_its_certificate_is_exported() {
    let ca = LocalCa::default();
    // Whatever else is in that file.
    let both = fs::read_to_string(ca.certificate()).unwrap() + &ca.key();
    fs::write(ca.certificate(), both).unwrap();
    let folder = ca.path().to_str().unwrap();
    for args in [&[][..], &["--bundle"]] {
        let exported = run(&[&["record", "ca", "export", "--dir", folder], args].concat());
        let text = String::from_utf8(exported.stdout).unwrap();
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----\n"), "{args:?}: {text}");
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
}

/// Each with what is said of it.
#[test]
fn an_authority_that_others_can_read_or_that_is_none_is_refused() {
    type Spoil = fn(&LocalCa);
    let rows: [(Spoil, &str); 5] = [
        (|ca| mode(ca, "ca.key", 0o640), "ca.key is open to others (mode 640); chmod 600 it"),
        (|ca| mode(ca, "", 0o770), "is open to others (mode 770); chmod 700 it"),
        (|ca| fs::remove_file(ca.path().join("ca.key")).unwrap(), "underpass record ca init"),
        (|ca| fs::write(ca.path().join("ca.key"), "secret").unwrap(), "holds no key"),
        (
            |ca| _ = fs::copy(LocalCa::default().certificate(), ca.certificate()).unwrap(),
            "does not belong to it",
        ),
    ];
    for (spoil, wanted) in rows {
        let ca = LocalCa::default();
        spoil(&ca);
        let folder = ca.path().to_str().unwrap();
        let args = ["forward", "--listen", "127.0.0.1:0", "--intercept", "a.example"];
        let refused = run(&[&args[..], &["--intercept-ca", folder]].concat());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(wanted) && !said.contains("secret"), "{wanted}: {said}");
    }
}

fn mode(ca: &LocalCa, name: &str, mode: u32) {
    fs::set_permissions(ca.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
}

/// Clients hold it to the hosts that it was made for.
#[req_test("REQ-REC-007")]
#[tokio::test]
async fn it_is_believed_for_its_own_hosts_only() {
    let ca = LocalCa::of(&["localhost"]);
    let signer = Signer::default();
    let origin = TlsOrigin::start(signer.server(&signer.good("localhost"), &["http/1.1"])).await;
    let proxy = ca.proxy(&["localhost", "*.example", "127.0.0.1"], &signer).start();
    let port = origin.addr().port();
    let mut client = inside(&proxy, &ca.client(), &format!("localhost:{port}")).await;
    let answer = client.get(&format!("localhost:{port}")).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    for host in ["a.example", "127.0.0.1"] {
        let wire = underpass_tests::intercept::connect(&proxy, &format!("{host}:443")).await;
        let refused = ca.client().over(wire.into_stream(), host).await.unwrap_err();
        assert!(refused.to_string().contains("NameConstraint"), "{host}: {refused}");
    }
}

/// Neither logs nor the effective configuration nor metrics nor records have the key, or the
/// password of the proxy's user.
#[req_test("REQ-REC-007")]
#[tokio::test]
async fn nothing_tells_the_key_or_the_password_of_the_proxy() {
    let (ca, signer, records) = (LocalCa::default(), Signer::default(), Records::default());
    let origin = TlsOrigin::start(signer.server(&signer.good("localhost"), &[])).await;
    let proxy = ca
        .proxy(&["localhost"], &signer)
        .args(["--user", "ada:s3cret-pass"])
        .args(records.args())
        .log("trace,aya=off,aya_obj=off,underpass::bpf=off")
        .start();
    let authority = format!("localhost:{}", origin.addr().port());
    let ask = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let mut unknown = proxy.open(ask).await;
    assert_eq!(unknown.read_head().await.status(), 407);
    let credentials = "YWRhOnMzY3JldC1wYXNz";
    let mut wire = proxy
        .open(format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\
             Proxy-Authorization: Basic {credentials}\r\n\r\n"
        ))
        .await;
    assert_eq!(wire.read_head().await.status(), 200);
    let mut client = ca.client().over(wire.into_stream(), "localhost").await.unwrap();
    client
        .send(format!(
            "GET / HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Basic {credentials}\r\n\r\n"
        ))
        .await;
    assert_eq!(client.read_response().await.status(), 200, "inside nobody is asked again");
    records.ended(1).await;
    let key = ca.key();
    let lines = key.lines().filter(|line| !line.starts_with("---"));
    let config = proxy.ask_admin("GET", "/config").await.text();
    assert!(config.contains("[listener.intercept]\nhosts = [\"localhost\"]\n"), "{config}");
    let metrics = proxy.ask_admin("GET", "/metrics").await.text();
    let recorded = String::from_utf8_lossy(&records.bytes()).into_owned();
    let secrets: Vec<&str> = lines.chain(["s3cret-pass", credentials]).collect();
    for (what, text) in
        [("log", proxy.stderr()), ("config", config), ("metrics", metrics), ("records", recorded)]
    {
        let told = secrets.iter().find(|secret| text.contains(**secret));
        assert_eq!(told, None, "{what}");
    }
}
