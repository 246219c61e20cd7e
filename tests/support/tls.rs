//! Certificates made for a test, and clients that speak TLS.
//!
//! An [`Authority`] signs what a test needs; its files lie in a [`Folder`] that goes with the
//! test. A [`TlsClient`] trusts one authority and can be told what it offers; a [`Secured`]
//! connection is played byte by byte.

use std::{
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    clock::{BOUND, within},
    message::Message,
    proxy::scratch,
};

/// Files of a test, gone with it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Default for Folder {
    fn default() -> Self {
        let path = scratch("tls");
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Folder {
    /// Where a file lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Puts a file in its place by a rename, as whoever renews certificates does.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let new = self.path(&format!(".{name}"));
        fs::write(&new, content).expect("write a file");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("its mode");
        fs::rename(&new, self.path(name)).expect("put it in place");
    }

    /// `NAME.pem` and `NAME.key`.
    pub fn put(&self, name: &str, issued: &Issued) {
        self.write(&format!("{name}.key"), &issued.key);
        self.write(&format!("{name}.pem"), &issued.certificate);
    }

    /// An entry of `certificates` for these two files.
    pub fn entry(&self, name: &str) -> String {
        let path = |extension: &str| self.path(&format!("{name}.{extension}"));
        format!("{{ cert = \"{}\", key = \"{}\" }}", path("pem").display(), path("key").display())
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Who signs.
pub struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    pub pem: String,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The chain.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// One with a key of its own.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// For a server of these names.
    pub fn server(&self, names: &[&str]) -> Issued {
        self.issue(names, |_| {})
    }

    /// For a client.
    pub fn client(&self, common_name: &str) -> Issued {
        self.issue(&[], |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "Example");
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// With everything as `change` has it.
    pub fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("parameters");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// What a client offers.
#[derive(Debug, Clone)]
pub struct TlsClient {
    config: ClientConfig,
}

impl TlsClient {
    /// One that trusts an authority, offers no protocol and remembers sessions.
    pub fn trusting(authority: &Authority) -> Self {
        Self::build(&authority.pem, rustls::ALL_VERSIONS, None)
    }

    /// One that trusts a root that others made.
    pub fn trusting_root(root: &CertificateDer<'_>) -> Self {
        Self::over_root(root.clone().into_owned(), rustls::ALL_VERSIONS, None)
    }

    /// One that speaks this version only.
    pub fn speaking(authority: &Authority, version: &'static SupportedProtocolVersion) -> Self {
        Self::build(&authority.pem, &[version], None)
    }

    /// One that shows a certificate.
    pub fn showing(authority: &Authority, own: &Issued) -> Self {
        Self::build(&authority.pem, rustls::ALL_VERSIONS, Some(own))
    }

    /// The same of one that is known by its certificate, PEM.
    pub fn trusting_pem(pem: &str) -> Self {
        Self::build(pem, rustls::ALL_VERSIONS, None)
    }

    fn build(
        authority: &str,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Issued>,
    ) -> Self {
        let root = CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate");
        Self::over_root(root, versions, own)
    }

    fn over_root(
        root: CertificateDer<'static>,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Issued>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions).expect("versions");
        let builder = builder.with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain: Result<Vec<_>, _> =
                    CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(chain.expect("a chain"), key).expect("a pair")
            }
        };
        Self { config }
    }

    /// It offers these protocols.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    /// It remembers nothing, so that every handshake is a full one.
    pub fn forgetful(mut self) -> Self {
        self.config.resumption = Resumption::disabled();
        self
    }

    /// It sends no server name.
    pub fn nameless(mut self) -> Self {
        self.config.enable_sni = false;
        self
    }

    /// A session that is to be played by hand.
    pub fn session(&self, name: &str) -> ClientConnection {
        let name = ServerName::try_from(name.to_owned()).expect("a server name");
        ClientConnection::new(Arc::new(self.config.clone()), name).expect("a session")
    }

    /// Connects, and asks for this name.
    pub async fn try_connect(&self, address: SocketAddr, name: &str) -> io::Result<Secured> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        self.over(stream, name).await
    }

    /// The same over a socket.
    pub async fn over(&self, stream: TcpStream, name: &str) -> io::Result<Secured> {
        let name = ServerName::try_from(name.to_owned()).expect("a server name");
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        within(BOUND, "a handshake", connector.connect(name, stream)).await.map(Secured)
    }

    /// The same, and it has to succeed.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> Secured {
        let done = self.try_connect(address, name).await;
        done.unwrap_or_else(|error| panic!("a handshake for {name}: {error}"))
    }
}

/// How a connection ended for its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsEnd {
    /// close_notify.
    Closed,
    /// A FIN without one: anybody could have sent it.
    Truncated,
    /// A reset, or an alert.
    Broken,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Secured(pub TlsStream<TcpStream>);

impl Secured {
    /// Writes all of it.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = async {
            self.0.write_all(bytes.as_ref()).await?;
            self.0.flush().await
        };
        within(BOUND, "bytes to be taken", sent).await.expect("send");
    }

    /// Reads so many.
    pub async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        within(BOUND, "bytes", self.0.read_exact(&mut bytes)).await.expect("read");
        bytes
    }

    /// Reads exactly this.
    pub async fn expect(&mut self, text: &str) {
        assert_eq!(String::from_utf8_lossy(&self.read_exact(text.len()).await), text);
    }

    /// Reads up to the end of this.
    pub async fn read_until(&mut self, pattern: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(pattern.as_bytes()) {
            bytes.extend(self.read_exact(1).await);
        }
        String::from_utf8(bytes).expect("text")
    }

    /// An answer with a length, to a request other than HEAD.
    pub async fn read_response(&mut self) -> Message {
        let head = self.read_until("\r\n\r\n").await;
        let head = crate::Head::parse(head.as_bytes());
        let length =
            head.get("content-length").map_or(0, |length| length.parse().expect("a length"));
        let body = self.read_exact(length).await;
        Message { head, body, trailers: Vec::new(), cut: None }
    }

    /// Asks for `/` of a host.
    pub async fn get(&mut self, host: &str) -> Message {
        self.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        self.read_response().await
    }

    /// Everything up to the end.
    pub async fn read_to_end(&mut self) -> (Vec<u8>, TlsEnd) {
        let mut bytes = Vec::new();
        let end = match within(BOUND, "the end", self.0.read_to_end(&mut bytes)).await {
            Ok(_) => TlsEnd::Closed,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => TlsEnd::Truncated,
            Err(_) => TlsEnd::Broken,
        };
        (bytes, end)
    }

    /// The certificate that was shown.
    pub fn certificate(&self) -> CertificateDer<'static> {
        let shown = self.0.get_ref().1.peer_certificates().expect("certificates");
        shown[0].clone().into_owned()
    }

    /// The protocol that was chosen.
    pub fn protocol(&self) -> Option<String> {
        let chosen = self.0.get_ref().1.alpn_protocol();
        chosen.map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// Whether it went on from an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.0.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }
}

/// The certificate of a chain in PEM as it is sent.
pub fn der(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("a certificate")
}
