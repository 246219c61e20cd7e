//! A tunnel with TLS on one side or both, and peers that play a seeded stream over it.

use std::{io, sync::Arc};

use rustls::{
    ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use underpass_tests::{
    Engine, Origin, Proxy, Wire,
    clock::{BOUND, within},
    eventually, pattern,
    tls::{Authority, Folder, TlsClient},
};

/// What a side reads and writes.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What is to be between the peers.
pub(super) struct Plan {
    /// Whether there is TLS: at the client's side, at the server's.
    pub(super) legs: [bool; 2],
    /// The only version and suite of the client's side, where that is not left to it.
    pub(super) suite: Option<(&'static SupportedProtocolVersion, &'static str)>,
    pub(super) engine: Engine,
    /// Peers whose receive buffers are small.
    pub(super) narrow: bool,
}

impl Plan {
    pub(super) fn new(legs: [bool; 2], engine: Engine) -> Self {
        Self { legs, suite: None, engine, narrow: false }
    }
}

/// A proxy, its server, and what they need.
pub(super) struct Rig {
    pub(super) proxy: Proxy,
    pub(super) origin: Origin,
    authority: Authority,
    narrow: bool,
    legs: [bool; 2],
    version: Option<&'static SupportedProtocolVersion>,
    _folder: Folder,
}

impl Rig {
    pub(super) async fn new(plan: Plan) -> Self {
        let (authority, folder) = (Authority::new("ca"), Folder::default());
        folder.put("site", &authority.server(&["test"]));
        folder.write("ca.pem", &authority.pem);
        let origin = if plan.narrow { Origin::bind_narrow() } else { Origin::bind().await };
        let suites = plan.suite.map(|(_, name)| format!("cipher_suites = [\"{name}\"]\n"));
        let listens = format!(
            "[listener.tls]\ncertificates = [{}]\n{}",
            folder.entry("site"),
            suites.unwrap_or_default()
        );
        let asks = format!(
            "[upstream.tls]\nca = \"{}\"\nserver_name = \"test\"\n",
            folder.path("ca.pem").display()
        );
        let proxy = Proxy::config(format!(
            "workers = 1\nktls = true\n[admin]\naddress = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"in\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n{}\
             [[route]]\nlistener = \"in\"\nupstream = \"out\"\n\
             [[upstream]]\nname = \"out\"\nservers = [\"{}\"]\n{}",
            if plan.legs[0] { &listens } else { "" },
            origin.addr(),
            if plan.legs[1] { &asks } else { "" },
        ));
        let proxy = proxy.splice(plan.engine).log("underpass=debug").start();
        let version = plan.suite.map(|(version, _)| version);
        let (narrow, legs) = (plan.narrow, plan.legs);
        Self { proxy, origin, authority, narrow, legs, version, _folder: folder }
    }

    /// A client that knows whom to trust.
    pub(super) fn tls_client(&self) -> TlsClient {
        match self.version {
            None => TlsClient::trusting(&self.authority),
            Some(version) => TlsClient::speaking(&self.authority, version),
        }
    }

    /// A connection to the listener.
    pub(super) async fn connect(&self) -> TcpStream {
        let address = self.proxy.listener("in");
        let wire = match self.narrow {
            true => Wire::connect_narrow(address).await,
            false => Wire::connect(address).await,
        };
        wire.into_stream()
    }

    /// The server's end of a connection.
    pub(super) async fn accept(&self) -> Box<dyn Io> {
        let stream = self.origin.accept().await.into_stream();
        if !self.legs[1] {
            return Box::new(stream);
        }
        let issued = self.authority.server(&["test"]);
        let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let accepting = TlsAcceptor::from(Arc::new(config)).accept(stream);
        Box::new(within(BOUND, "a handshake", accepting).await.expect("a handshake"))
    }

    /// Both ends of a tunnel.
    pub(super) async fn open(&self) -> (Box<dyn Io>, Box<dyn Io>) {
        let stream = self.connect().await;
        let client = async {
            let client: Box<dyn Io> = match self.legs[0] {
                false => Box::new(stream),
                true => Box::new(self.tls_client().over(stream, "test").await.unwrap().0),
            };
            client
        };
        tokio::join!(client, self.accept())
    }

    /// Waits until the kernel has the keys of the only tunnel.
    pub(super) async fn until_taken_over(&self) {
        let sides = ["downstream", "upstream"].into_iter().zip(self.legs);
        let sides: Vec<_> = sides.filter(|(_, tls)| *tls).map(|(side, _)| side).collect();
        eventually("the kernel to have the keys", async || {
            let tunnels = self.proxy.tunnels().await;
            tunnels.first().is_some_and(|tunnel| tunnel["ktls"] == serde_json::json!(sides))
        })
        .await;
    }
}

/// Numbers that are the same each time.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    /// Below `limit`, and mostly far below.
    fn next(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let bits = self.0 >> 33;
        let limit = match bits % 4 {
            0 => limit.min(16),
            1 => limit.min(2000),
            _ => limit,
        };
        (bits >> 2) % limit
    }
}

/// Sends `total` bytes of the pattern from `from` on, in pieces of all sizes.
pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), from: u64, total: u64, seed: u64) {
    let (mut numbers, end, mut at) = (Numbers(seed), from + total, from);
    while at < end {
        let piece = pattern::at(at, (1 + numbers.next(60_000)).min(end - at));
        let sent = async {
            to.write_all(piece).await?;
            to.flush().await
        };
        within(BOUND, "room to send", sent).await.unwrap_or_else(|e| panic!("after {at}: {e}"));
        at += piece.len() as u64;
    }
}

/// Reads so many and checks each.
pub(super) async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    begin: u64,
    total: u64,
    seed: u64,
) {
    let (mut numbers, end, mut at) = (Numbers(seed), begin + total, begin);
    let mut room = vec![0; 100_000];
    while at < end {
        let most = (1 + numbers.next(100_000)).min(end - at) as usize;
        let read = within(BOUND, "bytes", from.read(&mut room[..most])).await;
        let read = read.unwrap_or_else(|e| panic!("after {at} of {end}: {e}"));
        assert_ne!(read, 0, "ended after {at} of {end}");
        pattern::check(at, &room[..read]);
        at += read as u64;
    }
}

/// The end, and nothing before it.
pub(super) async fn expect_end(from: &mut (impl AsyncRead + Unpin)) {
    let mut room = [0; 16];
    let read = within(BOUND, "the end", from.read(&mut room)).await;
    assert_eq!(read.expect("a clean end"), 0, "bytes behind the last");
}

/// An end that is none.
pub(super) async fn expect_break(from: &mut (impl AsyncRead + Unpin)) -> io::Error {
    let mut rest = Vec::new();
    let read = within(BOUND, "a break", from.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{} bytes", rest.len());
    read.expect_err("a clean end")
}
