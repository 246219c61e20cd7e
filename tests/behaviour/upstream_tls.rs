//! TLS to servers: whom the proxy believes and what it says of those whom it does not, what it
//! shows them, and that all else goes on over it as without.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use http::Response;
use mantra_macros::req_test;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use underpass_tests::{
    HttpClient, Origin, Proxy, Version, Wire,
    client::collect,
    eventually,
    tls_origin::{Signer, TlsOrigin},
};

const NAME: &str = "api.example.org";
const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// An upstream of these servers with these lines, and those of `[upstream.tls]`.
fn proxy(servers: &[&TlsOrigin], lines: &str, tls: &str) -> Proxy {
    let servers: Vec<_> = servers.iter().map(|server| format!("\"{}\"", server.addr())).collect();
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nlistener = \"web\"\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nservers = [{}]\n{lines}\n[upstream.tls]\n{tls}\n",
        servers.join(", ")
    ))
    .start()
}

/// Believes `signer`, and means [`NAME`].
fn trusting(signer: &Signer) -> String {
    format!("ca = \"{}\"\nserver_name = \"{NAME}\"\n", signer.ca())
}

async fn ask(proxy: &Proxy) -> (u16, String) {
    let answer = Wire::open(proxy.listener("web"), GET).await.read_response().await;
    (answer.status(), answer.text())
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_server_is_known_by_its_certificate() {
    let signer = Signer::default();
    let server = TlsOrigin::start(signer.server(&signer.good(NAME), &["http/1.1"])).await;
    let proxy = proxy(&[&server], "", &trusting(&signer));
    for _ in 0..3 {
        let (status, about) = ask(&proxy).await;
        let wanted = "sni=api.example.org alpn=http/1.1 resumed=false client=false scheme=-";
        assert_eq!((status, about.as_str()), (200, wanted));
    }
    assert_eq!(server.connections(), 1, "kept, as without TLS");
}

/// Each is refused for what is wrong with it, in words that say so; nothing is sent to it.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_server_with_a_bad_certificate_is_refused_with_the_reason() {
    let (signer, other) = (Signer::default(), Signer::default());
    let crl = format!("{}crl = \"{}\"\n", trusting(&signer), signer.revocations());
    for (certificate, tls, reason) in [
        (signer.expired(NAME), trusting(&signer), "expired at 2002-03-04T00:00:00"),
        (signer.early(NAME), trusting(&signer), "not valid before 2090-01-01"),
        (
            signer.good("other.example.org"),
            trusting(&signer),
            "is for DnsName(\"other.example.org\")",
        ),
        (other.good(NAME), trusting(&signer), "signed by nobody who is trusted"),
        (Signer::of_itself(NAME), trusting(&signer), "signed by nobody who is trusted"),
        (signer.revoked(NAME), crl.clone(), "has been revoked"),
    ] {
        let server = TlsOrigin::start(signer.server(&certificate, &["http/1.1"])).await;
        let proxy = proxy(&[&server], "", &tls);
        let (status, text) = ask(&proxy).await;
        assert_eq!((status, text.as_str()), (502, "502 Bad Gateway\n"), "{reason}");
        assert_eq!(server.connections(), 1, "tried once");
        proxy.log_line(&["WARN", &server.addr().to_string(), reason]).await;
        proxy.log_line(&["status=502", "error=upstream_tls"]).await;
        let metrics = proxy.metrics().await;
        assert_eq!(metrics.sum("underpass_errors_total", &[("kind", "upstream_tls")]), 1.0);
    }
    // Another one is no worse for the list.
    let server = TlsOrigin::start(signer.server(&signer.good(NAME), &["http/1.1"])).await;
    assert_eq!(ask(&proxy(&[&server], "", &crl)).await.0, 200);
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_request_goes_to_a_server_that_can_be_believed() {
    let signer = Signer::default();
    let bad = TlsOrigin::start(signer.server(&signer.expired(NAME), &[])).await;
    let good = TlsOrigin::start(signer.server(&signer.good(NAME), &[])).await;
    let proxy = proxy(&[&bad, &good], "", &trusting(&signer));
    for _ in 0..4 {
        assert_eq!(ask(&proxy).await.0, 200);
    }
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn a_server_that_asks_is_shown_a_certificate() {
    let signer = Signer::default();
    let server = TlsOrigin::start(signer.strict_server(&signer.good(NAME), &[])).await;
    let files = signer.files(&signer.good("a proxy".replace(' ', "-").as_str()));
    let known = proxy(&[&server], "", &(trusting(&signer) + &files));
    assert!(ask(&known).await.1.contains("client=true"));
    let unknown = proxy(&[&server], "", &trusting(&signer));
    assert_eq!(ask(&unknown).await.0, 502);
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn http2_is_chosen_inside_and_nothing_else_taken_for_it() {
    let signer = Signer::default();
    let server = TlsOrigin::start(signer.server(&signer.good(NAME), &["h2", "http/1.1"])).await;
    let over_http2 = proxy(&[&server], "protocol = \"http2\"\n", &trusting(&signer));
    let mut client = HttpClient::connect(over_http2.listener("web"), Version::H2).await;
    for _ in 0..3 {
        let (about, _) = collect(client.get("/").await.into_body()).await.unwrap();
        let wanted = "sni=api.example.org alpn=h2 resumed=false client=false scheme=https";
        assert_eq!(String::from_utf8(about).unwrap(), wanted);
    }
    assert_eq!(server.connections(), 1);

    let old = TlsOrigin::start(signer.server(&signer.good(NAME), &["http/1.1"])).await;
    let over_http2 = proxy(&[&old], "protocol = \"http2\"\n", &trusting(&signer));
    assert_eq!(ask(&over_http2).await.0, 502);
}

/// What is not said by default, and what is not looked at on demand.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn names_and_verification_can_be_left_out() {
    let signer = Signer::default();
    let server = TlsOrigin::start(signer.server(&signer.good(NAME), &[])).await;
    let silent = proxy(&[&server], "", &(trusting(&signer) + "sni = false\n"));
    assert!(ask(&silent).await.1.contains("sni=- "));

    let nobody = TlsOrigin::start(signer.server(&Signer::of_itself("x"), &[])).await;
    let trusting_all = proxy(&[&nobody], "", "verify = false\n");
    assert_eq!(ask(&trusting_all).await.0, 200);
    trusting_all.log_line(&["WARN", "verify = false", "api"]).await;
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn sessions_are_resumed() {
    let signer = Signer::default();
    let server = TlsOrigin::start(signer.server(&signer.good(NAME), &[])).await;
    let proxy = proxy(&[&server], "max_idle_connections = 0\n", &trusting(&signer));
    assert!(ask(&proxy).await.1.contains("resumed=false"));
    assert!(ask(&proxy).await.1.contains("resumed=true"));
    assert_eq!(server.connections(), 2);
}

#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn checks_are_made_over_it() {
    let signer = Signer::default();
    let certificates = [(signer.good(NAME), "\"passed\""), (signer.expired(NAME), "expired at")];
    for (certificate, wanted) in certificates {
        let server = TlsOrigin::start(signer.server(&certificate, &["http/1.1"])).await;
        let lines = "[upstream.health]\ncontains = \"alpn=http/1.1\"\ninterval = \"50ms\"\n";
        let proxy = proxy(&[&server], lines, &trusting(&signer));
        eventually("a check", async || {
            let text = proxy.ask_admin("GET", "/upstreams").await.text();
            let passed = text.contains("\"passed\": 0") || text.contains("\"passed\":0");
            text.contains(wanted) && (wanted != "\"passed\"" || !passed)
        })
        .await;
    }
}

/// `https://` asks for it by itself; the system says who is trusted.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn the_quick_command_speaks_it_to_https_urls() {
    let signer = Signer::default();
    let server = TlsOrigin::start(signer.server(&signer.good("localhost"), &["http/1.1"])).await;
    let to = format!("https://localhost:{}", server.addr().port());
    let args = ["reverse", "--listen", "127.0.0.1:0", "--to", &to];
    let proxy = Proxy::command(&args, 1).env("SSL_CERT_FILE", signer.ca()).start();
    let answer = proxy.open(GET).await.read_response().await;
    assert!(answer.text().contains("sni=localhost"), "{}", answer.text());
    let proxy = Proxy::command(&args, 1).start();
    assert_eq!(proxy.open(GET).await.read_response().await.status(), 502);
}

/// Connections of a TCP listener, too.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn connections_as_they_are_go_over_it() {
    let signer = Signer::default();
    let server = TlsOrigin::start(signer.server(&signer.good(NAME), &["http/1.1"])).await;
    let proxy = Proxy::config(format!(
        "workers = 1\n[[listener]]\nname = \"raw\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         [[route]]\nlistener = \"raw\"\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nservers = [\"{}\"]\n[upstream.tls]\n{}\n",
        server.addr(),
        trusting(&signer)
    ))
    .start();
    let answer = Wire::open(proxy.listener("raw"), GET).await.read_response().await;
    assert!(answer.text().contains("sni=api.example.org alpn=- "), "{}", answer.text());
}

/// A WebSocket to a server that speaks TLS is a tunnel, which is copied.
#[req_test("REQ-EDGE-006")]
#[tokio::test]
async fn tunnels_pass_to_it() {
    let signer = Signer::default();
    let origin = Origin::bind().await;
    let config = Arc::new(signer.server(&signer.good(NAME), &["http/1.1"]));
    let proxy = Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nservers = [\"{}\"]\n[upstream.tls]\n{}\n",
        origin.addr(),
        trusting(&signer)
    ))
    .start();
    let url = format!("ws://{}/", proxy.listener("web"));
    let serving = async {
        let stream = origin.accept().await.into_stream();
        let stream = TlsAcceptor::from(config).accept(stream).await.unwrap();
        tokio_tungstenite::accept_async(stream).await.unwrap()
    };
    let (client, mut server) = tokio::join!(tokio_tungstenite::connect_async(url), serving);
    let (mut client, answer) = client.unwrap();
    let _: Response<_> = answer;
    for n in 0..10 {
        client.send(Message::text(n.to_string())).await.unwrap();
        let said = server.next().await.unwrap().unwrap();
        server.send(said).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::text(n.to_string()));
    }
    let tunnels = proxy.tunnels().await;
    assert!(tunnels[0].to_string().contains("copy"), "{tunnels:?}");
    client.close(None).await.unwrap();
}
