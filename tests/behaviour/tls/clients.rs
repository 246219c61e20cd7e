//! Clients that are known by their certificates.

use mantra_macros::req_test;
use underpass_tests::{
    Origin, Proxy, Served, Wire, eventually,
    tls::{Authority, Folder, Secured, TlsClient},
};

use super::{certificates, failures, proxy, text};

struct Bed {
    authority: Authority,
    clients: Authority,
    folder: Folder,
    origin: Served,
}

impl Bed {
    async fn new() -> Self {
        let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
        let folder = Folder::default();
        folder.put("site", &authority.server(&["a.test", "b.test"]));
        folder.write("clients.pem", &clients.pem);
        Self { authority, clients, folder, origin: Served::ok().await }
    }

    fn tls(&self, auth: &str) -> String {
        format!(
            "{}client_auth = \"{auth}\"\nclient_ca = \"{}\"\nclient_subject_header = \"X-Subject\"",
            certificates(&self.folder, &["site"]),
            self.folder.path("clients.pem").display()
        )
    }

    fn proxy(&self, auth: &str) -> Proxy {
        proxy("", &self.tls(auth), self.origin.addr()).start()
    }

    fn subjects(&self) -> Vec<Option<String>> {
        let seen = self.origin.seen();
        assert!(seen.iter().all(|seen| !seen.message.head.has("x_subject")), "{seen:?}");
        seen.iter().map(|seen| seen.message.head.get("x-subject").map(str::to_owned)).collect()
    }
}

/// In TLS 1.3 a client learns only after its handshake that it is not welcome.
async fn is_refused(connected: std::io::Result<Secured>) -> bool {
    match connected {
        Err(_) => true,
        Ok(mut connection) => {
            let sent = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut connection.0, sent.as_bytes()).await;
            connection.read_to_end().await.0.is_empty()
        }
    }
}

const FORGED: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Subject: CN=root\r\nx-subject: CN=b\r\nX_Subject: CN=c\r\n\r\n";

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn nobody_is_let_in_without_a_certificate_of_the_ca() {
    let bed = Bed::new().await;
    let proxy = bed.proxy("require");
    let alice = TlsClient::showing(&bed.authority, &bed.clients.client("alice, CN=root"));
    let mut connection = alice.connect(proxy.listener("web"), "a.test").await;
    connection.send(FORGED).await;
    assert_eq!(connection.read_response().await.status(), 200);
    assert_eq!(bed.subjects(), [Some("CN=alice\\, CN\\=root,O=Example".to_owned())]);

    let without = TlsClient::trusting(&bed.authority);
    assert!(is_refused(without.try_connect(proxy.listener("web"), "a.test").await).await);
    let strangers = Authority::new("clients");
    let stranger = TlsClient::showing(&bed.authority, &strangers.client("alice"));
    assert!(is_refused(stranger.try_connect(proxy.listener("web"), "a.test").await).await);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let without = TlsClient::speaking(&bed.authority, version);
        assert!(is_refused(without.try_connect(proxy.listener("web"), "a.test").await).await);
    }
    eventually("refusals", async || failures(&proxy, "client_certificate").await == 4.0).await;
    assert_eq!(bed.subjects().len(), 1);
}

/// Whoever has a certificate shows it; a field of that name is never a client's own, not even
/// on a listener beside it that goes to the same servers.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_subject_comes_from_a_certificate_alone() {
    let bed = Bed::new().await;
    let plain = "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n";
    let mut config = text("", &bed.tls("request"), bed.origin.addr());
    config.push_str(plain);
    config.push_str("[[route]]\nlistener = \"plain\"\nupstream = \"one\"\n");
    let proxy = Proxy::config(config).start();
    let nobody = TlsClient::trusting(&bed.authority);
    let mut connection = nobody.connect(proxy.listener("web"), "a.test").await;
    connection.send(FORGED).await;
    assert_eq!(connection.read_response().await.status(), 200);
    let mut plain = Wire::open(proxy.listener("plain"), FORGED).await;
    plain.expect_status(200).await;
    let bob = TlsClient::showing(&bed.authority, &bed.clients.client("bob"));
    let mut connection = bob.connect(proxy.listener("web"), "a.test").await;
    connection.send(FORGED).await;
    assert_eq!(connection.read_response().await.status(), 200);
    assert_eq!(bed.subjects(), [None, None, Some("CN=bob,O=Example".to_owned())]);
    // One that does not hold is not the same as none.
    let stranger = TlsClient::showing(&bed.authority, &Authority::new("x").client("bob"));
    assert!(is_refused(stranger.try_connect(proxy.listener("web"), "a.test").await).await);
}

/// A client that has shown its certificate for one host gets to no other by it.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn hosts_are_strict_where_clients_are_known() {
    let bed = Bed::new().await;
    let proxy = bed.proxy("require");
    let alice = TlsClient::showing(&bed.authority, &bed.clients.client("alice"));
    let mut connection = alice.connect(proxy.listener("web"), "a.test").await;
    assert_eq!(connection.get("a.test").await.status(), 200);
    assert_eq!(connection.get("b.test").await.status(), 421);
    let mut nameless = alice.nameless().connect(proxy.listener("web"), "a.test").await;
    assert_eq!(nameless.get("b.test").await.status(), 200);
    assert_eq!(nameless.get("c.test").await.status(), 421);
}

/// A ticket has the client's certificate in it, and is believed: it would be a way past the end
/// of that certificate, and past a CA that has been taken away.
#[req_test("REQ-EDGE-006", "REQ-EDGE-008")]
#[tokio::test]
async fn a_client_with_a_certificate_shows_it_each_time() {
    let bed = Bed::new().await;
    for auth in ["request", "require"] {
        let mut proxy = bed.proxy(auth);
        let alice = TlsClient::showing(&bed.authority, &bed.clients.client("alice"));
        for _ in 0..2 {
            let mut connection = alice.connect(proxy.listener("web"), "a.test").await;
            connection.send(FORGED).await;
            assert_eq!(connection.read_response().await.status(), 200);
            assert!(!connection.is_resumed());
        }
        bed.folder.write("clients.pem", Authority::new("other").pem);
        let config = std::fs::read_to_string(proxy.config_path()).unwrap();
        proxy.reload(&config).await;
        assert!(is_refused(alice.try_connect(proxy.listener("web"), "a.test").await).await);
        bed.folder.write("clients.pem", &bed.clients.pem);
    }
    assert_eq!(bed.subjects(), [(); 4].map(|()| Some("CN=alice,O=Example".to_owned())));
}

/// Naming the field in `Connection` takes out what the client sent, not what we write.
#[req_test("REQ-EDGE-006", "REQ-EDGE-004")]
#[tokio::test]
async fn a_client_cannot_have_its_subject_left_out() {
    let bed = Bed::new().await;
    let proxy = bed.proxy("require");
    let alice = TlsClient::showing(&bed.authority, &bed.clients.client("alice"));
    let mut connection = alice.connect(proxy.listener("web"), "a.test").await;
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nX-Mine: 1\r\n\
                   Connection: keep-alive, X-Subject, X-Mine\r\n\r\n";
    for _ in 0..2 {
        connection.send(request).await;
        assert_eq!(connection.read_response().await.status(), 200);
    }
    assert_eq!(bed.subjects(), [(); 2].map(|()| Some("CN=alice,O=Example".to_owned())));
    assert!(bed.origin.seen().iter().all(|seen| !seen.message.head.has("x-mine")));
}

/// Nor does a trailer get through: servers there are that add trailers to the head.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_subject_is_no_trailer() {
    let bed = Bed::new().await;
    let proxy = bed.proxy("request");
    let nobody = TlsClient::trusting(&bed.authority);
    let mut connection = nobody.connect(proxy.listener("web"), "a.test").await;
    let request = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                   0\r\nX-Subject: CN=root\r\nX_Subject: CN=root\r\nX-Sum: 1\r\n\r\n";
    connection.send(request).await;
    assert_eq!(connection.read_response().await.status(), 200);
    let trailers = bed.origin.only().trailers;
    assert_eq!(trailers, [("x-sum".to_owned(), "1".to_owned())]);
}

/// What a reload forbids it forbids open connections, too: a field to be our own, and to come
/// without a certificate where one is asked for.
#[req_test("REQ-EDGE-006", "REQ-EDGE-008")]
#[tokio::test]
async fn open_connections_are_held_to_a_stricter_configuration() {
    let bed = Bed::new().await;
    let plain = "[[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
                 [[route]]\nlistener = \"plain\"\nupstream = \"one\"\n";
    let strict = text("", &bed.tls("require"), bed.origin.addr()) + plain;
    let open = text("", &certificates(&bed.folder, &["site"]), bed.origin.addr()) + plain;
    let mut proxy = Proxy::config(open).start();
    let mut plain = Wire::open(proxy.listener("plain"), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    plain.expect_status(200).await;
    let nobody = TlsClient::trusting(&bed.authority);
    let mut secured = nobody.connect(proxy.listener("web"), "a.test").await;
    assert_eq!(secured.get("a.test").await.status(), 200);

    proxy.reload(&strict).await;
    plain.send(FORGED).await;
    plain.expect_status(200).await;
    assert_eq!(bed.subjects(), [(); 3].map(|()| None));
    // By the configuration that let it in, and once at most.
    secured.send(FORGED).await;
    secured.read_to_end().await;
    let subjects = bed.subjects();
    assert!(subjects.len() <= 4 && subjects.iter().all(Option::is_none), "{subjects:?}");
}

/// Whoever the server is told of may have been answered for alone.
#[req_test("REQ-EDGE-006", "REQ-CACHE-004")]
#[tokio::test]
async fn what_is_answered_to_a_subject_is_not_kept_for_others() {
    let bed = Bed::new().await;
    let origin = Origin::bind().await.serve(|seen| {
        let head = &seen.message.head;
        let allows = if head.target() == "/public" { ", public" } else { "" };
        let who = head.get("x-subject").unwrap_or("nobody");
        format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=600{allows}\r\nContent-Length: {}\r\n\r\n{who}",
            who.len()
        )
    });
    let config = text("", &bed.tls("request"), origin.addr());
    let route = "upstream = \"one\"\n";
    let config = config.replace(route, &format!("{route}cache = true\n")) + "[cache]\n";
    let proxy = Proxy::config(config).start();
    let client = |name: &str| TlsClient::showing(&bed.authority, &bed.clients.client(name));
    let (alice, bob) = (client("alice"), client("bob"));
    let nobody = TlsClient::trusting(&bed.authority);
    for (client, target, outcome, body) in [
        (&alice, "/", "UNCACHEABLE", "CN=alice,O=Example"),
        (&bob, "/", "UNCACHEABLE", "CN=bob,O=Example"),
        (&nobody, "/", "MISS", "nobody"),
        (&nobody, "/", "HIT", "nobody"),
        (&alice, "/public", "MISS", "CN=alice,O=Example"),
        (&bob, "/public", "HIT", "CN=alice,O=Example"),
    ] {
        let mut connection = client.connect(proxy.listener("web"), "a.test").await;
        connection.send(&format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        let got = connection.read_response().await;
        let is = (got.head.get("x-cache"), got.text());
        assert_eq!(is, (Some(outcome), body.to_owned()), "{target}");
    }
}
