//! A CA that speaks ACME (RFC 8555), scripted: it gives certificates to who proves a name, and
//! does what a test tells it to do wrong.
//!
//! Everything over real sockets: requests come by HTTPS, each signature, nonce and URL is
//! verified, and names are looked at where the proxy listens (`look.rs`). What a client does
//! that the RFC forbids is kept in [`Ca::faults`], for the test to find none.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::tls::{Authority, Folder, TlsClient};

mod answer;
mod jws;
mod look;

pub use look::Prober;

/// What certificate comes of an order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Gives {
    /// The one that was asked for.
    #[default]
    Right,
    /// One for a key that nobody has.
    OtherKey,
    /// One for another name.
    OtherName,
    /// One that has expired.
    Expired,
    /// Nothing that could be read.
    Garbage,
}

/// What the CA does. Changed while it serves, by [`Ca::script`].
#[derive(Debug, Clone)]
pub struct Script {
    /// Connections are closed as soon as they come.
    pub down: bool,
    /// So many requests are answered with badNonce, whatever their nonce.
    pub bad_nonces: usize,
    /// Orders are refused with this type of problem, and perhaps Retry-After in seconds.
    pub refuses: Option<(&'static str, Option<u64>)>,
    /// Names that do not hold, whatever is found.
    pub invalid: HashSet<String>,
    /// How often an order is still in process when it is looked at.
    pub processing: usize,
    /// What comes of an order.
    pub gives: Gives,
    /// Requests are answered with a page.
    pub garbage: bool,
    /// How long certificates are good.
    pub lifetime: Duration,
    /// Key and identifier that new accounts have to be bound to.
    pub binding: Option<(String, Vec<u8>)>,
    /// The window of renewal information, in seconds from now.
    pub window: Option<(i64, i64)>,
    /// Names are not looked at before this is false.
    pub looks_later: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            down: false,
            bad_nonces: 0,
            refuses: None,
            invalid: HashSet::new(),
            processing: 0,
            gives: Gives::default(),
            garbage: false,
            lifetime: Duration::from_secs(90 * 24 * 3600),
            binding: None,
            window: None,
            looks_later: false,
        }
    }
}

/// The CA.
pub struct Ca {
    address: SocketAddr,
    shared: Arc<Shared>,
    folder: Folder,
    task: JoinHandle<()>,
}

struct Shared {
    /// Signs what is ordered.
    issuer: Authority,
    base: String,
    books: Mutex<Books>,
}

/// What the CA knows.
#[derive(Default)]
struct Books {
    script: Script,
    /// Where names are looked at: plain, and by TLS.
    places: Option<(SocketAddr, SocketAddr)>,
    nonces: HashSet<String>,
    next: usize,
    accounts: HashMap<String, Account>,
    orders: HashMap<String, Order>,
    proofs: HashMap<String, Proof>,
    certificates: HashMap<String, String>,
    log: Vec<String>,
    faults: Vec<String>,
}

struct Account {
    key: jws::Jwk,
    contact: Vec<String>,
}

struct Order {
    account: String,
    names: Vec<String>,
    proofs: Vec<String>,
    status: &'static str,
    processing: usize,
    certificate: Option<String>,
    replaces: Option<String>,
}

struct Proof {
    name: String,
    token: String,
    /// Of the authorization and its challenges.
    status: &'static str,
    /// Why it is not valid.
    error: Option<String>,
    thumbprint: String,
    looking: bool,
}

impl Ca {
    /// Starts one on a port of its own.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (folder, web) = (Folder::default(), Authority::new("web of the CA"));
        folder.write("root.pem", &web.pem);
        let issued = web.server(&["127.0.0.1"]);
        let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes());
        let chain: Result<Vec<_>, _> = chain.collect();
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.expect("a chain"), key)
            .expect("a pair");
        let shared = Arc::new(Shared {
            issuer: Authority::new("issuer of the CA"),
            base: format!("https://{address}"),
            books: Mutex::default(),
        });
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn(serve(listener, acceptor, Arc::clone(&shared)));
        Self { address, shared, folder, task }
    }

    /// `[acme]` for it, with this storage folder and these keys more.
    pub fn section(&self, storage: &Folder, more: &str) -> String {
        format!(
            "[acme]\ndirectory = \"{}/dir\"\nagree_to_terms = true\nca = \"{}\"\nstorage = \"{}\"\n{more}\n",
            self.shared.base,
            self.folder.path("root.pem").display(),
            storage.path("acme").display(),
        )
    }

    /// Names are looked at here, plain and by TLS.
    pub fn looks_at(&self, plain: SocketAddr, tls: SocketAddr) {
        self.books().places = Some((plain, tls));
    }

    /// Changes what it does.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.books().script);
    }

    /// A client that trusts what it signs.
    pub fn client(&self) -> TlsClient {
        TlsClient::trusting(&self.shared.issuer)
    }

    /// What it was asked for, each with its names: `order a.test,b.test`.
    pub fn log(&self) -> Vec<String> {
        self.books().log.clone()
    }

    /// How many of these there were.
    pub fn count(&self, what: &str) -> usize {
        self.log().iter().filter(|line| line.starts_with(what)).count()
    }

    /// What clients did that the RFC forbids.
    pub fn faults(&self) -> Vec<String> {
        self.books().faults.clone()
    }

    /// Contacts of each account.
    pub fn contacts(&self) -> Vec<Vec<String>> {
        self.books().accounts.values().map(|account| account.contact.clone()).collect()
    }

    /// Tokens of proofs that have not been decided.
    pub fn open_tokens(&self) -> Vec<String> {
        let books = self.books();
        let open = books.proofs.values().filter(|proof| proof.status == "pending");
        open.map(|proof| proof.token.clone()).collect()
    }

    /// It forgets all accounts.
    pub fn forget(&self) {
        self.books().accounts.clear();
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.shared.books.lock().expect("books")
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        if shared.books.lock().expect("books").script.down {
            continue;
        }
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| handle(Arc::clone(&shared), request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn handle(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(answer::answer(&shared, &head, &body))
}
