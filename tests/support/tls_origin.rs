//! Servers that speak TLS, with certificates made for the test: good ones, and each kind of bad
//! one. They answer with what they know of the session.

use std::{
    convert::Infallible,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::{
    Response,
    body::Frame,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::proxy::scratch;

/// Who signs, and where its files lie.
#[derive(Debug)]
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    pem: String,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Signed {
    certificate: String,
    key: String,
}

impl Signed {
    /// The certificate as it is sent.
    pub fn der(&self) -> Vec<u8> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        certificate.expect("PEM").to_vec()
    }
}

/// The serial number of certificates that [`Signer::revocations`] names.
const REVOKED: u64 = 4711;

impl Default for Signer {
    fn default() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let folder = scratch("tls");
        fs::create_dir_all(&folder).expect("a folder");
        params.distinguished_name.push(DnType::CommonName, folder.display().to_string());
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), folder, pem }
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Signer {
    /// A certificate of its own, changed by `how`.
    pub fn sign(&self, name: &str, how: impl FnOnce(&mut CertificateParams)) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        how(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A good one.
    pub fn good(&self, name: &str) -> Signed {
        self.sign(name, |_| {})
    }

    /// One that was good until a day long ago.
    pub fn expired(&self, name: &str) -> Signed {
        self.sign(name, |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 3, 4);
        })
    }

    /// One that will be good.
    pub fn early(&self, name: &str) -> Signed {
        self.sign(name, |params| params.not_before = date_time_ymd(2090, 1, 1))
    }

    /// One that has been called back.
    pub fn revoked(&self, name: &str) -> Signed {
        self.sign(name, |params| params.serial_number = Some(SerialNumber::from(REVOKED)))
    }

    /// One that nobody but itself has signed.
    pub fn of_itself(name: &str) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The path of a file with its own certificate.
    pub fn ca(&self) -> String {
        self.file("ca.pem", &self.pem)
    }

    /// The path of a file that calls certificates back.
    pub fn revocations(&self) -> String {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(REVOKED),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        self.file("crl.pem", &list.pem().expect("PEM"))
    }

    /// `cert` and `key` of a configuration for this certificate.
    pub fn files(&self, signed: &Signed) -> String {
        let certificate = self.file("client.pem", &signed.certificate);
        let key = self.file("client.key", &signed.key);
        format!("cert = \"{certificate}\"\nkey = \"{key}\"\n")
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, content).expect("write a file");
        path.display().to_string()
    }

    /// Settings of a server that shows this certificate, and speaks these protocols.
    pub fn server(&self, signed: &Signed, protocols: &[&str]) -> ServerConfig {
        Self::settings(signed, protocols, None)
    }

    /// The same for one that wants a certificate of this authority.
    pub fn strict_server(&self, signed: &Signed, protocols: &[&str]) -> ServerConfig {
        Self::settings(signed, protocols, Some(&self.pem))
    }

    fn settings(signed: &Signed, protocols: &[&str], clients: Option<&str>) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                let root = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
                roots.add(root).expect("a root");
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let chain = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).expect("PEM");
        let mut config = builder.with_single_cert(vec![chain], key).expect("a pair");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// A server that answers each request with a line about its session.
#[derive(Debug)]
pub struct TlsOrigin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Posts,
    task: JoinHandle<()>,
}

/// Requests with a body: the path, the media type, and the body.
type Posts = Arc<Mutex<Vec<(String, String, Bytes)>>>;

impl TlsOrigin {
    /// Serves.
    pub async fn start(config: ServerConfig) -> Self {
        Self::answering(config, None).await
    }

    /// Answers each request with a stream of events, each of these by itself.
    pub async fn streaming(config: ServerConfig, pieces: Vec<String>) -> Self {
        Self::answering(config, Some(pieces)).await
    }

    async fn answering(config: ServerConfig, pieces: Option<Vec<String>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        Self::serve(listener, config, pieces)
    }

    /// Serves on a listener, which has to be nonblocking.
    pub fn over(listener: std::net::TcpListener, config: ServerConfig) -> Self {
        Self::serve(TcpListener::from_std(listener).expect("listener"), config, None)
    }

    fn serve(listener: TcpListener, config: ServerConfig, pieces: Option<Vec<String>>) -> Self {
        let address = listener.local_addr().expect("address");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Posts::default();
        let posts = Arc::clone(&seen);
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, SeqCst);
                let (acceptor, pieces, posts) = (acceptor.clone(), pieces.clone(), posts.clone());
                tasks.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, pieces, posts).await;
                    }
                });
            }
        });
        Self { address, connections, seen, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Requests with a body so far: the path, the media type, and the body.
    pub fn posts(&self) -> Vec<(String, String, Bytes)> {
        self.seen.lock().expect("posts").clone()
    }

    /// Connections so far, whatever became of them.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for TlsOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TlsStream<TcpStream>, pieces: Option<Vec<String>>, posts: Posts) {
    let session = stream.get_ref().1;
    let name = session.server_name().unwrap_or("-").to_owned();
    let protocol = session
        .alpn_protocol()
        .map_or("-".to_owned(), |name| String::from_utf8_lossy(name).into_owned());
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let known = session.peer_certificates().is_some();
    let about = format!("sni={name} alpn={protocol} resumed={resumed} client={known}");
    let over_http2 = protocol == "h2";
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let scheme = request.uri().scheme_str().unwrap_or("-").to_owned();
        let response = match &pieces {
            None => {
                let text = Bytes::from(format!("{about} scheme={scheme}"));
                Response::new(Either::Left(Full::new(text)))
            }
            Some(pieces) => {
                let frames = pieces
                    .clone()
                    .into_iter()
                    .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
                let body = StreamBody::new(futures_util::stream::iter(frames));
                let mut response = Response::new(Either::Right(body));
                let kind = http::HeaderValue::from_static("text/event-stream");
                response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                response
            }
        };
        let posts = Arc::clone(&posts);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes);
            if let Some(body) = body.ok().filter(|body| !body.is_empty()) {
                let kind = head.headers.get(http::header::CONTENT_TYPE);
                let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
                posts.lock().expect("posts").push((head.uri.path().to_owned(), kind, body));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(stream);
    if over_http2 {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(io, service).await;
    }
}
