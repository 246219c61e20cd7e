//! Which certificate, which protocol, and for which hosts.

use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Served, Version, collect, eventually,
    tls::{Authority, Folder, TlsClient, der},
};

use super::{certificates, failures, proxy};

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_certificate_is_chosen_by_the_name_asked_for() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    let issued = [
        ("default", authority.server(&["default.test"])),
        ("exact", authority.server(&["a.test", "b.test"])),
        ("wild", authority.server(&["*.a.test"])),
    ];
    issued.iter().for_each(|(name, issued)| folder.put(name, issued));
    let origin = Served::ok().await;
    let tls = certificates(&folder, &["default", "exact", "wild"]);
    let proxy = proxy("", &tls, origin.addr()).start();
    let client = TlsClient::trusting(&authority).forgetful();
    for (name, expected) in
        [("default.test", 0), ("a.test", 1), ("B.test", 1), ("x.a.test", 2), ("y.a.test", 2)]
    {
        let mut connection = client.connect(proxy.listener("web"), name).await;
        assert!(connection.certificate() == der(&issued[expected].1), "{name}");
        assert_eq!(connection.get(name).await.text(), "ok");
    }
    // The default is for nobody else: who asks for another name finds that out.
    for name in ["c.test", "x.y.a.test"] {
        let error = client.try_connect(proxy.listener("web"), name).await.unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
    let nameless = client.nameless().connect(proxy.listener("web"), "default.test").await;
    assert!(nameless.certificate() == der(&issued[0].1));
    eventually("two alerts", async || failures(&proxy, "alert").await == 2.0).await;
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn the_default_may_be_another_than_the_first() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("one", &authority.server(&["one.test"]));
    folder.put("two", &authority.server(&["two.test"]));
    let two = folder.entry("two").replace(" }", ", default = true }");
    let tls = format!("certificates = [{}, {two}]", folder.entry("one"));
    let origin = Served::ok().await;
    let proxy = proxy("", &tls, origin.addr()).start();
    let client = TlsClient::trusting(&authority).nameless();
    client.connect(proxy.listener("web"), "two.test").await;
    client.try_connect(proxy.listener("web"), "one.test").await.unwrap_err();
}

#[req_test("REQ-EDGE-006", "REQ-EDGE-004")]
#[tokio::test]
async fn http_2_is_spoken_with_those_who_offer_it() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test"]));
    let tls = certificates(&folder, &["site"]);
    let origin = Served::ok().await;
    let both = proxy("", &tls, origin.addr()).start();
    let old = proxy("", &format!("{tls}alpn = [\"http/1.1\"]"), origin.addr()).start();
    let client = TlsClient::trusting(&authority);
    for (proxy, offered, chosen) in [
        (&both, &["h2", "http/1.1"][..], Some("h2")),
        (&both, &["http/1.1", "h2"], Some("h2")),
        (&both, &["http/1.1"], Some("http/1.1")),
        (&both, &[], None),
        (&old, &["h2", "http/1.1"], Some("http/1.1")),
    ] {
        let client = client.clone().alpn(offered);
        let connection = client.connect(proxy.listener("web"), "a.test").await;
        assert_eq!(connection.protocol().as_deref(), chosen, "{offered:?}");
        let version = if chosen == Some("h2") { Version::H2 } else { Version::H1 };
        let mut http = HttpClient::over_tls(connection.0, "a.test", version).await;
        let answer = http.get("/").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(collect(answer.into_body()).await.unwrap().0, b"ok");
    }
    let foreign = client.alpn(&["imap"]);
    foreign.try_connect(both.listener("web"), "a.test").await.unwrap_err();
    eventually("it to be counted", async || failures(&both, "incompatible").await == 1.0).await;
    // The server hears of the way it came.
    let seen = origin.seen();
    for seen in &seen {
        let head = &seen.message.head;
        assert_eq!(head.get("x-forwarded-proto"), Some("https"));
        assert!(head.get("forwarded").unwrap().contains("proto=https"), "{head:?}");
    }
}

/// RFC 9110 section 15.5.20: a connection is for the hosts that its certificate is for.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_request_for_another_host_is_misdirected() {
    let (authority, folder) = (Authority::new("ca"), Folder::default());
    folder.put("site", &authority.server(&["a.test", "*.a.test", "192.0.2.1"]));
    folder.put("other", &authority.server(&["b.test"]));
    let tls = certificates(&folder, &["site", "other"]);
    let origin = Served::ok().await;
    let proxy = proxy("", &tls, origin.addr()).start();
    let client = TlsClient::trusting(&authority);
    let mut connection = client.connect(proxy.listener("web"), "a.test").await;
    for (host, status) in [
        ("a.test", 200),
        ("A.TEST.:8443", 200),
        ("x.a.test", 200),
        ("192.0.2.1", 200),
        ("b.test", 421),
        ("x.y.a.test", 421),
        ("192.0.2.2", 421),
    ] {
        assert_eq!(connection.get(host).await.status(), status, "{host}");
    }
    // The same over HTTP/2, where it is browsers that share a connection among hosts.
    for (host, status) in [("a.test", 200), ("x.a.test", 200), ("b.test", 421)] {
        let h2 = client.clone().alpn(&["h2"]);
        let connection = h2.connect(proxy.listener("web"), "a.test").await;
        let mut http = HttpClient::over_tls(connection.0, host, Version::H2).await;
        assert_eq!(http.get("/").await.status(), status, "{host}");
    }
    // Who named no host in the handshake has contradicted nobody.
    let mut nameless = client.nameless().connect(proxy.listener("web"), "a.test").await;
    assert_eq!(nameless.get("b.test").await.status(), 200);
}
