//! The storage folder: who may read it, what becomes of it, and who uses it at once.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use mantra_macros::req_test;
use underpass_tests::{Proxy, Wire, eventually, tls::Folder};

use super::{Site, orders, until_failed};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

/// Keys are the owner's, and are in no other place.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn keys_are_in_files_of_the_owner_and_nowhere_else() {
    let site = Site::new().await;
    let proxy = Proxy::config(site.text("", &[&["a.test"]])).log("trace").start();
    site.ca.looks_at(proxy.listener("plain"), proxy.listener("web"));
    site.served(&proxy, "a.test").await;
    eventually("the order to end", async || orders(&proxy).await[0] == 1.0).await;
    let folder = site.folder();
    assert_eq!((mode(&folder), mode(folder.parent().expect("a parent"))), (0o700, 0o700));
    let files: Vec<_> =
        fs::read_dir(&folder).expect("list").map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 3 && files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    assert_eq!(site.files(".new").len() + site.files(".order.json").len(), 0, "{files:?}");
    let pem = fs::read_to_string(&site.files(".pem")[0]).expect("the certificate");
    let secret = pem.lines().nth(1).expect("a line of the key");
    let account = fs::read_to_string(folder.join("account.json")).expect("the account");
    let account: serde_json::Value = serde_json::from_str(&account).expect("JSON");
    let account = account["credentials"]["key_pkcs8"].as_str().expect("a key");
    for path in ["/config", "/certificates", "/metrics"] {
        let shown = proxy.ask_admin("GET", path).await.text();
        assert!(!shown.contains(secret) && !shown.contains(account), "{path}");
    }
    let log = proxy.stderr();
    assert!(!log.contains(secret) && !log.contains(account) && !log.contains("PRIVATE KEY"));
}

/// A folder that cannot be written is a failure like any: the process serves.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn a_folder_that_cannot_be_used_keeps_nobody_from_serving() {
    let site = Site::new().await;
    // Nobody, not even root, can make a folder below a device.
    let other = Folder::default();
    std::os::unix::fs::symlink("/dev/null", other.path("acme")).expect("a link");
    let text = site.text("", &[&["a.test"]]);
    let (good, bad) = (site.storage.path("acme"), other.path("acme").join("x"));
    let text = text.replace(&good.display().to_string(), &bad.display().to_string());
    let proxy = Proxy::config(text).start();
    site.ca.looks_at(proxy.listener("plain"), proxy.listener("web"));
    until_failed(&proxy, 1.0).await;
    proxy.log_line(&["ERROR", "the storage folder", "cannot be used"]).await;
    proxy.log_line(&["ERROR", "no new certificate for a.test: storage:"]).await;
    // The CA is not bothered with what could not be kept.
    assert_eq!(site.ca.log(), Vec::<String>::new());
    let head = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut plain = Wire::open(proxy.listener("plain"), head).await;
    assert_eq!(plain.read_response().await.status(), 308);
}

/// An order outlives the process that began it, and is one for two processes.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn an_order_is_gone_on_with_by_whoever_comes_next_and_never_made_twice() {
    let site = Site::new().await;
    site.ca.script(|script| script.looks_later = true);
    let proxy = site.start("", &[&["a.test"]]);
    eventually("an order", async || site.ca.open_tokens().len() == 1).await;
    eventually("its file", async || site.files(".order.json").len() == 1).await;
    // Killed in the middle.
    drop(proxy);
    let one = site.start("", &[&["a.test"]]);
    let token = site.ca.open_tokens().remove(0);
    let head = format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    eventually("the order again", async || {
        let mut wire = Wire::open(one.listener("plain"), &head).await;
        wire.read_response().await.status() == 200
    })
    .await;
    let two = Proxy::config(site.text("", &[&["a.test"]])).start();
    site.ca.script(|script| script.looks_later = false);
    let certificate = site.served(&one, "a.test").await.certificate();
    assert_eq!(site.served(&two, "a.test").await.certificate(), certificate);
    assert_eq!(site.ca.count("order "), 1, "{:?}", site.ca.log());
    assert_eq!(orders(&two).await, [0.0, 0.0]);
    assert_eq!(site.ca.faults(), Vec::<String>::new());
}

/// What somebody deletes or breaks is shown on by those who have it.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn a_file_that_is_damaged_changes_nothing_for_clients() {
    let site = Site::new().await;
    let proxy = site.start("", &[&["a.test"]]);
    let first = site.served(&proxy, "a.test").await.certificate();
    eventually("the order to end", async || orders(&proxy).await[0] == 1.0).await;
    let file = site.files(".pem").remove(0);
    fs::write(&file, "nonsense").expect("write");
    proxy.log_line(&["ERROR", "gone or damaged, the one before stays"]).await;
    let client = site.ca.client().forgetful();
    assert_eq!(client.connect(proxy.listener("web"), "a.test").await.certificate(), first);
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("mode");
    drop(proxy);
    // At a start there is nothing else to show: it is ordered again.
    let proxy = site.start("", &[&["a.test"]]);
    assert_ne!(site.served(&proxy, "a.test").await.certificate(), first);
}
