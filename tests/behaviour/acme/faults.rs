//! CAs that say no, that are slow, and that give what is of no use.

use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{Proxy, acme::Gives, eventually};

use super::{Site, entry, until_failed, until_orders};

/// Asks for what has failed to be tried again.
fn again(proxy: &Proxy) {
    proxy.signal(Signal::HUP);
}

/// Nonces are the CA's to take back (RFC 8555 section 6.5).
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn a_bad_nonce_is_no_failure() {
    let site = Site::new().await;
    site.ca.script(|script| script.bad_nonces = 2);
    let proxy = site.start("", &[&["a.test"]]);
    site.served(&proxy, "a.test").await;
    until_orders(&proxy, [1.0, 0.0]).await;
    assert_eq!(site.ca.faults(), Vec::<String>::new());
}

/// Limits are honoured: nothing is asked before the time that the CA has said, not even on a
/// reload or after a restart.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn a_ca_that_asks_for_a_pause_gets_it() {
    let site = Site::new().await;
    site.ca.script(|script| script.refuses = Some(("rateLimited", Some(3600))));
    let proxy = site.start("", &[&["a.test"]]);
    until_failed(&proxy, 1.0).await;
    let line = proxy.log_line(&["ERROR", "rateLimited", "next try in 3600s"]).await;
    // What it said is in one line.
    assert!(line.contains("scripted  refusal"), "{line}");
    again(&proxy);
    eventually("a reload", async || proxy.reloads().await[0] == 1.0).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(site.ca.count("order "), 1, "{:?}", site.ca.log());
    let shown = entry(&proxy, "a.test").await;
    assert_eq!(shown["acme"]["failures"], 1, "{shown}");
    drop(proxy);
    let proxy = site.start("", &[&["a.test"]]);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(site.ca.count("order "), 1, "{:?}", site.ca.log());
    drop(proxy);

    // And comes back after it.
    let site = Site::new().await;
    site.ca.script(|script| script.refuses = Some(("rateLimited", Some(1))));
    let proxy = site.start("", &[&["a.test"]]);
    until_failed(&proxy, 1.0).await;
    site.ca.script(|script| script.refuses = None);
    site.served(&proxy, "a.test").await;
    eventually("it to be shown", async || entry(&proxy, "a.test").await["acme"]["failures"] == 0)
        .await;
}

/// Without a word of how long, the pause is ours; a person who reloads knows better.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn a_name_that_does_not_hold_is_told_and_waits_while_others_are_served() {
    let site = Site::new().await;
    site.ca.script(|script| _ = script.invalid.insert("bad.test".to_owned()));
    let proxy = site.start("", &[&["bad.test"], &["good.test"]]);
    site.served(&proxy, "good.test").await;
    until_failed(&proxy, 1.0).await;
    proxy.log_line(&["ERROR", "bad.test", "NXDOMAIN looking up bad.test"]).await;
    let shown = entry(&proxy, "bad.test").await;
    let error = shown["acme"]["error"].as_str().expect("an error");
    assert!(error.contains("NXDOMAIN"), "{shown}");
    let pause = shown["acme"]["retry_at"].as_i64().expect("a time");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((200..=400).contains(&(pause - now.as_secs() as i64)), "{shown}");
    assert_eq!(site.ca.count("order bad.test"), 1);
    // It is repaired, and somebody says so.
    site.ca.script(|script| script.invalid.clear());
    again(&proxy);
    site.served(&proxy, "bad.test").await;
    assert_eq!(site.ca.count("order good.test"), 1, "{:?}", site.ca.log());
}

/// Nothing that could not be shown for these names is stored, or shown.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn a_certificate_of_no_use_is_never_shown() {
    for (gives, why) in [
        (Gives::OtherKey, "the key in it does not belong"),
        (Gives::OtherName, "it is not for a.test"),
        (Gives::Expired, "it has expired already"),
        (Gives::Garbage, "cannot be read"),
    ] {
        let site = Site::new().await;
        site.ca.script(|script| script.gives = gives);
        let proxy = site.start("", &[&["a.test"]]);
        until_failed(&proxy, 1.0).await;
        proxy.log_line(&["ERROR", "a.test", why]).await;
        assert_eq!(site.files(".pem").len(), 0, "{gives:?}");
        let client = site.ca.client();
        client.try_connect(proxy.listener("web"), "a.test").await.map(|_| ()).unwrap_err();
        // The next is ordered anew.
        site.ca.script(|script| script.gives = Gives::Right);
        again(&proxy);
        site.served(&proxy, "a.test").await;
        assert_eq!(site.ca.count("order a.test"), 2, "{gives:?}");
    }
}

/// One that takes its time, and one that says what nobody understands.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn a_slow_ca_is_waited_for_and_nonsense_is_a_failure_like_any() {
    let site = Site::new().await;
    site.ca.script(|script| script.processing = 3);
    let proxy = site.start("", &[&["a.test"]]);
    site.served(&proxy, "a.test").await;
    until_orders(&proxy, [1.0, 0.0]).await;
    drop(proxy);

    let site = Site::new().await;
    site.ca.script(|script| script.garbage = true);
    let proxy = site.start("", &[&["a.test"]]);
    until_failed(&proxy, 1.0).await;
    proxy.log_line(&["ERROR", "a.test", "is not what RFC 8555 says"]).await;
    site.ca.script(|script| script.garbage = false);
    again(&proxy);
    site.served(&proxy, "a.test").await;
}

/// Accounts are bound to one elsewhere where the CA wants that, and made anew where it has
/// forgotten them.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn accounts_are_bound_and_outlive_a_ca_that_forgets() {
    let site = Site::new().await;
    let key = b"a key that both sides know";
    site.ca.script(|script| script.binding = Some(("kid-1".to_owned(), key.to_vec())));
    // base64url of the key.
    site.storage.write("eab.key", "YSBrZXkgdGhhdCBib3RoIHNpZGVzIGtub3c\n");
    let file = site.storage.path("eab.key");
    let more = format!("eab_key_id = \"kid-1\"\neab_key_file = \"{}\"", file.display());
    let proxy = site.start(&more, &[&["a.test"]]);
    site.served(&proxy, "a.test").await;
    assert_eq!(site.ca.faults(), Vec::<String>::new());
    let config = proxy.ask_admin("GET", "/config").await.text();
    assert!(config.contains("eab.key") && !config.contains("YSBr"), "{config}");
    assert!(!proxy.stderr().contains("YSBr"));
    drop(proxy);

    site.ca.forget();
    let proxy = site.start(&more, &[&["a.test"], &["b.test"]]);
    site.served(&proxy, "b.test").await;
    assert_eq!(site.ca.count("account "), 2, "{:?}", site.ca.log());
    proxy.log_line(&["WARN", "does not know the account any more"]).await;
}

/// A CA that knows no account, however new, gets two and no more.
#[req_test("REQ-EDGE-011")]
#[tokio::test]
async fn a_ca_that_knows_no_account_is_not_given_one_after_the_other() {
    let site = Site::new().await;
    site.ca.script(|script| script.refuses = Some(("accountDoesNotExist", None)));
    let proxy = site.start("", &[&["a.test"]]);
    until_failed(&proxy, 2.0).await;
    proxy.log_line(&["WARN", "does not know the account any more"]).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    eventually("a pause of minutes", async || {
        let retry_at = entry(&proxy, "a.test").await["acme"]["retry_at"].as_i64();
        retry_at.is_some_and(|at| at - now.as_secs() as i64 > 200)
    })
    .await;
    assert_eq!(site.ca.count("account "), 2, "{:?}", site.ca.log());
    assert_eq!((site.files("account.json").len(), site.files(".old.1.json").len()), (1, 1));
}
