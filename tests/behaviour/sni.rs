//! Tcp listeners whose routes go by the server name of a TLS ClientHello.

use mantra_macros::req_test;
use underpass_tests::{
    End, Engine, Nginx, Origin, Proxy, ProxyBuilder, Wire,
    curl::{curl, peer},
    over_engines,
};

over_engines!(a_server_name_chooses_the_server, a_name_that_comes_byte_by_byte_is_found);

/// Alerts of RFC 8446 section 6 as they travel.
const DECODE_ERROR: &[u8] = &[21, 3, 3, 0, 2, 2, 50];
const MISSING_EXTENSION: &[u8] = &[21, 3, 3, 0, 2, 2, 109];
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

const KIB: usize = 1024;

/// One origin behind each route, and a proxy for them.
struct Setup {
    api: Origin,
    wild: Origin,
    default: Origin,
    proxy: Proxy,
}

impl Setup {
    async fn new(with_default: bool, args: &[&str]) -> Self {
        let (api, wild, default) =
            (Origin::bind().await, Origin::bind().await, Origin::bind().await);
        let builder = config([&api, &wild, &default].map(Origin::addr), with_default);
        Self { api, wild, default, proxy: builder.args(args.iter().copied()).start() }
    }

    async fn open(&self, bytes: impl AsRef<[u8]>) -> Wire {
        Wire::open(self.proxy.listener("tls"), bytes).await
    }

    /// What the client sends comes to this origin, and what that answers comes back.
    async fn leads_to(&self, origin: &Origin, bytes: &[u8]) {
        let mut client = self.open(bytes).await;
        let mut server = origin.accept().await;
        server.expect(bytes).await;
        server.send("answer").await;
        client.expect("answer").await;
        client.send("more").await;
        server.expect("more").await;
    }

    /// The client is told by `alert` and nobody else hears of it; the log says why.
    async fn refuses(&self, bytes: &[u8], alert: &[u8], log: &[&str]) {
        let mut client = self.open(bytes).await;
        let (told, end) = client.read_to_end().await;
        assert_eq!((&told[..], end), (alert, End::Fin), "{log:?}");
        // In the log by the client's address, so that it is this one.
        let address = format!("client={}", client.local_addr());
        drop(client);
        self.proxy.log_line(&[&[&*address, "end=error"], log].concat()).await;
    }
}

fn config(servers: [std::net::SocketAddr; 3], with_default: bool) -> ProxyBuilder {
    let [api, wild, default] = servers;
    let mut text = format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         limits = {{ head_timeout = \"2s\" }}\n\
         [[route]]\nlistener = \"tls\"\nsni = \"api.example.org\"\nupstream = \"api\"\n\
         [[route]]\nlistener = \"tls\"\nsni = \"*.example.org\"\nupstream = \"wild\"\n\
         [[upstream]]\nname = \"api\"\nservers = [\"{api}\"]\n\
         [[upstream]]\nname = \"wild\"\nservers = [\"{wild}\"]\n"
    );
    if with_default {
        text += &format!(
            "[[route]]\nlistener = \"tls\"\nupstream = \"default\"\n\
             [[upstream]]\nname = \"default\"\nservers = [\"{default}\"]\n"
        );
    }
    Proxy::config(text)
}

fn vec16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

/// A ClientHello (RFC 8446 section 4.1.2) for this name, as long as `padding` makes it, in
/// records of so many bytes.
fn hello(name: Option<&str>, padding: usize, record: usize) -> Vec<u8> {
    let extension = |kind: u16, content: &[u8]| [&kind.to_be_bytes()[..], &vec16(content)].concat();
    let name = name.map(|name| {
        let entry = [&[0][..], &vec16(name.as_bytes())].concat();
        extension(0, &vec16(&entry))
    });
    let extensions = [name.unwrap_or_default(), extension(21, &vec![0; padding])].concat();
    let body = [&[3, 3][..], &[9; 32], &[0], &vec16(&[19, 1]), &[1, 0], &vec16(&extensions)];
    let body = body.concat();
    let message = [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
    let in_record = |piece: &[u8]| [&[22, 3, 1][..], &vec16(piece)].concat();
    message.chunks(record).flat_map(in_record).collect()
}

fn plain(name: &str) -> Vec<u8> {
    hello(Some(name), 200, 16 * KIB)
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_server_name_chooses_the_server(engine: Engine) {
    let setup = Setup::new(true, &engine.args()).await;
    setup.leads_to(&setup.api, &plain("api.example.org")).await;
    setup.leads_to(&setup.api, &plain("API.Example.ORG")).await;
    setup.leads_to(&setup.wild, &plain("www.example.org")).await;
    setup.leads_to(&setup.wild, &plain("a.b.example.org")).await;
    // A wildcard wants a label.
    setup.leads_to(&setup.default, &plain("example.org")).await;
    setup.leads_to(&setup.default, &plain("api.example.org.evil.test")).await;
    setup.leads_to(&setup.default, &hello(None, 200, 16 * KIB)).await;
    setup.proxy.log_line(&["host=www.example.org", "upstream=wild", "tunnel=tls"]).await;
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn a_name_that_comes_byte_by_byte_is_found(engine: Engine) {
    let setup = Setup::new(true, &engine.args()).await;
    for record in [1, 7, 16 * KIB] {
        let bytes = hello(Some("api.example.org"), 20, record);
        let mut client = setup.open([]).await;
        for byte in &bytes {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        let mut server = setup.api.accept().await;
        server.expect(&bytes).await;
        setup.proxy.until_tunnels(1).await;
        assert_eq!(setup.proxy.tunnels().await[0]["kind"], "tls");
        drop((client, server));
        setup.proxy.until_tunnels(0).await;
    }
}

/// What is sent behind the hello (0-RTT data), and FIN, are carried like all else.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn what_follows_the_hello_is_carried() {
    let setup = Setup::new(false, &[]).await;
    let bytes = [&plain("api.example.org")[..], &[23; 100 * KIB]].concat();
    let mut client = setup.open(&bytes).await;
    client.finish().await;
    let mut server = setup.api.accept().await;
    server.expect(&bytes).await;
    server.expect_fin().await;
    server.send("late").await;
    drop(server);
    client.expect("late").await;
    client.expect_fin().await;
}

#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn other_protocols_take_the_default() {
    let setup = Setup::new(true, &[]).await;
    setup.leads_to(&setup.default, b"GET / HTTP/1.1\r\n\r\n").await;
    setup.leads_to(&setup.default, b"\0").await;
    // TLS in name only.
    setup.leads_to(&setup.default, &[22, 3, 1, 0, 1, 2]).await;
    setup.proxy.log_line(&["host=-", "upstream=default", "tunnel=tcp"]).await;
}

#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn without_a_default_the_client_is_told() {
    let setup = Setup::new(false, &[]).await;
    let unknown = plain("other.test");
    setup.refuses(&unknown, UNRECOGNIZED_NAME, &["error=no_route", "host=other.test"]).await;
    let nameless = hello(None, 200, 16 * KIB);
    setup.refuses(&nameless, MISSING_EXTENSION, &["error=no_route", "host=-"]).await;
    let garbage = &[22, 3, 1, 0, 1, 2];
    setup.refuses(garbage, DECODE_ERROR, &["error=bad_client_hello", "another message"]).await;
    // Who does not speak TLS would not understand.
    setup.refuses(b"GET / HTTP/1.1\r\n\r\n", b"", &["error=bad_client_hello", "not TLS"]).await;
    let metrics = setup.proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_errors_total", &[("kind", "no_route")]), 2.0);
    assert_eq!(metrics.sum("underpass_errors_total", &[("kind", "bad_client_hello")]), 2.0);
    assert_eq!(metrics.sum("underpass_upstream_connects_total", &[]), 0.0);
}

/// 64 KiB, records' headers included: more is not collected.
#[req_test("REQ-TUN-001", "REQ-CTRL-004")]
#[tokio::test]
async fn a_hello_is_bounded() {
    let setup = Setup::new(false, &[]).await;
    setup.leads_to(&setup.api, &hello(Some("api.example.org"), 60 * KIB, 16 * KIB)).await;
    let endless = &hello(Some("api.example.org"), 60 * KIB, 5)[..70 * KIB];
    setup.refuses(endless, DECODE_ERROR, &["error=bad_client_hello", "more than 64 KiB"]).await;
}

#[req_test("REQ-TUN-001", "REQ-CTRL-004")]
#[tokio::test]
async fn a_hello_that_does_not_come_is_not_waited_for() {
    let setup = Setup::new(true, &[]).await;
    let bytes = plain("api.example.org");
    let mut silent = setup.open([]).await;
    let mut half = setup.open(&bytes[..bytes.len() - 1]).await;
    for client in [&mut silent, &mut half] {
        client.expect_end().await;
        let client = format!("client={}", client.local_addr());
        setup.proxy.log_line(&[&client, "error=head_timeout"]).await;
    }
    let mut gone = setup.open(&bytes[..20]).await;
    gone.finish().await;
    gone.expect_end().await;
    let client = format!("client={}", gone.local_addr());
    setup.proxy.log_line(&[&client, "end=client_gone"]).await;
}

/// A drain does not wait for who has said nothing.
#[req_test("REQ-TUN-005")]
#[tokio::test]
async fn a_drain_ends_who_has_not_begun() {
    let mut setup = Setup::new(true, &["--limit", "head_timeout=60s"]).await;
    let mut silent = setup.open([]).await;
    // Accepted: the one behind it has been.
    let behind = setup.open(plain("api.example.org")).await;
    let server = setup.api.accept().await;
    drop((behind, server));
    setup.proxy.until_tunnels(0).await;
    setup.proxy.term();
    silent.expect_end().await;
    assert_eq!(setup.proxy.exited().await.code(), Some(0));
}

/// A true client, and servers that only its true hello reaches: it checks their names.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn curl_reaches_servers_by_their_names() {
    let hosts = ["api.example.org", "www.example.org", "other.test"];
    let big = vec![b'x'; 3 << 20];
    let serve = |host: &str| Nginx::serve_tls(host, &[("name", host.as_bytes()), ("big", &big)]);
    let (true, [Some(api), Some(wild), Some(default)]) = (peer("curl"), hosts.map(serve)) else {
        return;
    };
    let servers = [&api, &wild, &default];
    let proxy = config(servers.map(Nginx::addr), true).start();
    let port = proxy.listener("tls").port();
    for (host, server) in hosts.into_iter().zip(servers) {
        let resolve = format!("{host}:{port}:127.0.0.1");
        let certificate = server.certificate();
        for version in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
            let url = |file: &str| format!("https://{host}:{port}/{file}");
            let (name, file) = (url("name"), url("big"));
            let args = ["--resolve", &resolve, "--cacert", &certificate];
            let text = curl(&[&args, version, &[&name]].concat()).await.text();
            assert_eq!(text, host);
            let output = curl(&[&args, version, &[&file]].concat()).await;
            assert_eq!((output.code, output.stdout.len()), (0, big.len()), "{}", output.stderr);
        }
    }
}

/// openssl says what the alert means.
#[req_test("REQ-TUN-001")]
#[tokio::test]
async fn a_true_client_understands_the_alert() {
    if !peer("curl") {
        return;
    }
    let setup = Setup::new(false, &[]).await;
    let port = setup.proxy.listener("tls").port();
    let resolve = format!("other.test:{port}:127.0.0.1");
    let output = curl(&["--resolve", &resolve, &format!("https://other.test:{port}/")]).await;
    assert_eq!(output.code, 35, "a failed handshake: {}", output.stderr);
    assert!(output.stderr.contains("unrecognized name"), "{}", output.stderr);
}
