//! How a CA looks whether a name is its client's: over real sockets, at the proxy.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs::default_provider},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use x509_parser::{extensions::GeneralName, prelude::*};

use super::jws::sha256;
use crate::{
    clock::{BOUND, within},
    tls::Secured,
};

/// RFC 8555 section 8.3: the file has to be the key authorization.
pub(super) async fn http(
    address: SocketAddr,
    name: &str,
    token: &str,
    expected: &str,
) -> Result<(), String> {
    let text = |error: io::Error| format!("connection to {name}: {error}");
    let mut stream = TcpStream::connect(address).await.map_err(text)?;
    let request = format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(text)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") && body == expected => Ok(()),
        _ => Err(format!("Invalid response from http://{name}/: \"{answer}\"")),
    }
}

/// A client that speaks acme-tls/1 and believes everybody.
#[derive(Debug, Default)]
pub struct Prober;

impl Prober {
    /// A handshake for this name.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Secured> {
        let provider = Arc::new(default_provider());
        let any = Any(provider.signature_verification_algorithms);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(any))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        let stream = TcpStream::connect(address).await?;
        let server = ServerName::try_from(name.to_owned()).expect("a server name");
        let connector = TlsConnector::from(Arc::new(config));
        within(BOUND, "a handshake", connector.connect(server, stream)).await.map(Secured)
    }
}

/// RFC 8737 section 3: a certificate for this name alone that says the digest.
pub(super) async fn tls(address: SocketAddr, name: &str, expected: &str) -> Result<(), String> {
    let text = |error: io::Error| format!("connection to {name}: {error}");
    let Secured(mut stream) = Prober.connect(address, name).await.map_err(text)?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(b"acme-tls/1") {
        return Err("acme-tls/1 was not chosen".to_owned());
    }
    let shown =
        session.peer_certificates().and_then(|shown| shown.first()).ok_or("nothing shown")?;
    says(shown, name, &sha256(expected.as_bytes()))?;
    // Nothing is spoken inside.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map_err(text)?;
    rest.is_empty().then_some(()).ok_or("something was said inside".to_owned())
}

fn says(shown: &[u8], name: &str, digest: &[u8]) -> Result<(), String> {
    let (_, shown) = X509Certificate::from_der(shown).map_err(|error| error.to_string())?;
    let names = shown.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.ok_or("no names")?;
    if names.value.general_names != [GeneralName::DNSName(name)] {
        return Err(format!("it is for {:?}", names.value.general_names));
    }
    let identifier =
        shown.extensions().iter().find(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
    let identifier = identifier.ok_or("no acmeIdentifier")?;
    // An OCTET STRING of 32 bytes.
    let right = [&[4, 32], digest].concat();
    match identifier.critical && identifier.value == right {
        true => Ok(()),
        false => Err("another acmeIdentifier".to_owned()),
    }
}

/// Believes everybody, as a CA has to.
#[derive(Debug)]
struct Any(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // webpki takes no certificate with a critical extension that it does not know, and RFC 8737
    // makes it critical; what is looked at is what the certificate says.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
