//! One ECDSA P-256 certificate for all proxies, in the forms they want, and how each is told.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{RootCertStore, pki_types::CertificateDer};

use crate::server::Kind;

/// The name that it is for.
pub(super) const NAME: &str = "bench.test";

/// A folder with the files, gone when dropped.
#[derive(Debug)]
pub(crate) struct Files {
    folder: PathBuf,
    /// What clients trust.
    pub(super) roots: Arc<RootCertStore>,
}

impl Files {
    /// Makes a certificate.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder =
            std::env::temp_dir().join(format!("underpass-benches-tls-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
        fs::write(folder.join("cert.pem"), certificate.pem())?;
        fs::write(folder.join("key.pem"), key.serialize_pem())?;
        fs::set_permissions(folder.join("key.pem"), fs::Permissions::from_mode(0o600))?;
        fs::write(folder.join("both.pem"), certificate.pem() + &key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::clone(certificate.der()))?;
        Ok(Self { folder, roots: Arc::new(roots) })
    }

    /// The same for servers of gRPC, which are spoken to in HTTP/2.
    pub(crate) fn secured_grpc(&self, kind: Kind, text: &str) -> String {
        let text = self.secured(kind, text);
        match kind {
            Kind::Underpass { .. } => {
                text.replace("max_idle_connections", "protocol = \"http2\"\nmax_idle_connections")
            }
            // `grpc_set_header` has the fields; the others are about HTTP/1.1.
            Kind::Nginx => text
                .replace("proxy_pass http://", "grpc_pass grpc://")
                .replace("proxy_http_version 1.1;", "")
                .replace("proxy_set_header Connection \"\";", "")
                .replace("proxy_set_header", "grpc_set_header"),
            _ => text.replace("\nbackend out\n", "\nbackend out\n  default-server proto h2\n"),
        }
    }

    /// The configuration of a proxy for plain HTTP, with TLS on its listener.
    pub(crate) fn secured(&self, kind: Kind, text: &str) -> String {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let (cert, key, both) = (file("cert.pem"), file("key.pem"), file("both.pem"));
        match kind {
            Kind::Underpass { .. } => {
                let certificates = format!("[{{ cert = \"{cert}\", key = \"{key}\" }}]");
                let tls = format!("tls = {{ certificates = {certificates} }}\n[[route]]");
                text.replacen("[[route]]", &tls, 1)
            }
            Kind::Nginx => {
                let tls = format!(
                    " ssl http2 reuseport backlog=4096;\n    ssl_certificate {cert};\n    \
                     ssl_certificate_key {key};\n    ssl_protocols TLSv1.2 TLSv1.3;"
                );
                text.replacen(" reuseport backlog=4096;", &tls, 1)
            }
            _ => {
                let tls = format!(" ssl crt {both} alpn h2,http/1.1 backlog 4096");
                text.replacen(" backlog 4096", &tls, 1)
            }
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_proxy_is_told() {
        let files = Files::new().unwrap();
        let kinds = [Kind::Underpass { bypass: false }, Kind::Nginx, Kind::HaProxy];
        let texts =
            ["[[listener]]\n[[route]]", "listen x reuseport backlog=4096;", "bind x backlog 4096"];
        for (kind, text) in kinds.into_iter().zip(texts) {
            let secured = files.secured(kind, text);
            assert!(secured.contains(".pem"), "{secured}");
        }
        // And that servers of gRPC are spoken to in HTTP/2.
        for (kind, text, wanted) in [
            (Kind::Underpass { bypass: false }, "max_idle_connections = 1", "protocol = \"http2\""),
            (Kind::Nginx, "proxy_pass http://origin;", "grpc_pass grpc://origin;"),
            (
                Kind::HaProxy,
                "  default_backend out\nbackend out\n",
                "  default_backend out\nbackend out\n  default-server proto h2\n",
            ),
        ] {
            let told = files.secured_grpc(kind, text);
            assert!(told.contains(wanted), "{told}");
        }
    }
}
