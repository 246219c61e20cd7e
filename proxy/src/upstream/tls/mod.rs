//! TLS towards servers: whom the proxy believes, and who it says that it is.
//!
//! A [`Connector`] is made with the configuration, so that a file which cannot be read is a
//! mistake of that; all workers and checks share it, and with it the sessions that can be
//! resumed. What a handshake fails of is told by `fault.rs`.
//!
//! The roots are the system's (rustls-native-certs), read with the configuration: a proxy inside
//! of an organisation has to trust what its machines do, and a list that is compiled in grows old
//! in a binary that does not. aws-lc-rs is the one provider of cryptography.
//!
//! Implements: REQ-EDGE-006

use std::{fmt, io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, pem::PemObject,
    },
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::{tls::Followed, transport::Transport};

pub mod fault;
mod unverified;

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oldest {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What a connector is made of: PEM, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// Who may have signed servers' certificates. `None`: whom the system trusts.
    pub ca: Option<Vec<u8>>,
    /// A certificate for servers that ask for one, and its key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    /// Certificates that hold no longer.
    pub revoked: Option<Vec<u8>>,
    /// Whether certificates are looked at.
    pub verify: bool,
    /// Whether the server is told which name is meant.
    pub sni: bool,
    /// The oldest version.
    pub oldest: Oldest,
}

/// What is spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; a server that does not say so is a wrong one.
    Http2,
    /// Whatever the client speaks.
    Anything,
    /// HTTP/2 or HTTP/1.1, as the server prefers.
    Either,
}

/// Makes sessions.
pub struct Connector {
    /// Of [`Inside`], in its order: what is offered differs (ALPN).
    configs: [Arc<ClientConfig>; 4],
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Reads what it is made of.
    ///
    /// # Errors
    /// What is wrong with it, in words for people.
    pub fn new(material: &Material) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = verifier(material, &provider)?;
        let versions = match material.oldest {
            Oldest::Tls12 => rustls::ALL_VERSIONS,
            Oldest::Tls13 => &[&rustls::version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &material.client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| format!("no private key: {error}"))?;
                builder
                    .with_client_auth_cert(certificates(chain)?, key)
                    .map_err(|error| format!("certificate and key: {error}"))?
            }
        };
        config.enable_sni = material.sni;
        config.enable_secret_extraction = true;
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        let offers: [&[&[u8]]; 4] = [&[b"http/1.1"], &[b"h2"], &[], &[b"h2", b"http/1.1"]];
        Ok(Self { configs: offers.map(offering) })
    }

    /// Whether the server of this name speaks HTTP/2, by a handshake that comes to nothing else.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn speaks_http2(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
    ) -> io::Result<bool> {
        let connector = TlsConnector::from(Arc::clone(&self.configs[Inside::Either as usize]));
        let stream = connector.connect(name, stream).await?;
        Ok(stream.get_ref().1.alpn_protocol() == Some(b"h2"))
    }

    /// Begins a session with the server of this name.
    ///
    /// # Errors
    /// The handshake's; [`fault::of`] tells which.
    pub async fn connect(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
        inside: Inside,
    ) -> io::Result<Transport> {
        let connector = TlsConnector::from(Arc::clone(&self.configs[inside as usize]));
        let stream = connector.connect(name, Followed::from(stream)).await?;
        if inside == Inside::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            let error = rustls::Error::NoApplicationProtocol;
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(Transport::Tls(Box::new(TlsStream::Client(stream))))
    }
}

fn verifier(
    material: &Material,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if !material.verify {
        return Ok(Arc::new(unverified::Unverified::new(provider)));
    }
    let mut roots = RootCertStore::empty();
    match &material.ca {
        Some(ca) => {
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|error| format!("`ca`: {error}"))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err("this system trusts nobody: no root certificates were found".to_owned());
            }
        }
    }
    let mut builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some(revoked) = &material.revoked {
        let lists: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(revoked).collect();
        let lists = lists.map_err(|error| format!("`crl`: {error}"))?;
        if lists.is_empty() {
            return Err("`crl`: no list of revoked certificates in it".to_owned());
        }
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    Ok(builder.build().map_err(|error| error.to_string())?)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| format!("a certificate: {error}"))?;
    if all.is_empty() {
        return Err("no certificate in it".to_owned());
    }
    Ok(all)
}
