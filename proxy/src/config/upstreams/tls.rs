//! `[upstream.tls]`: servers that are spoken to over TLS.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::pki_types::ServerName;

use super::super::{
    effective::{header, key, text},
    errors::{Place, Wrong},
    paths,
    section::Section,
    value::{self, Words},
};
use crate::upstream::tls::{Connector, Material, Oldest};

/// TLS to the servers of an upstream, with what its files hold.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// What certificates have to be for; `None`: the server's host.
    pub server_name: Option<String>,
    ca: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    crl: Option<PathBuf>,
    material: Material,
    /// Makes the sessions.
    pub connector: Arc<Connector>,
}

/// Two are the same if they were told the same, and their files hold the same.
impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        self.server_name == other.server_name && self.material == other.material
    }
}

impl Eq for ServerTls {}

const KEYS: &[&str] = &["server_name", "sni", "ca", "cert", "key", "crl", "verify", "min_version"];

const VERSIONS: Words<Oldest> = &[("1.2", Oldest::Tls12), ("1.3", Oldest::Tls13)];

impl ServerTls {
    /// Reads `[upstream.tls]` of this upstream. `https`: its servers ask for it in any case.
    pub(super) fn read(upstream: &Section<'_>, https: bool) -> Option<Self> {
        let section = upstream.table("tls", "[upstream.tls]", KEYS);
        let Some(section) = &section else {
            return https.then(|| Self::by_default(&upstream.place, upstream)).flatten();
        };
        let path = |key| section.parsed(key, "\"/etc/underpass/ca.pem\"", paths::path);
        let (ca, crl) = (path("ca"), path("crl"));
        let certificate = match (path("cert"), path("key")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                let what = "`cert` without `key`, or `key` without `cert`";
                section.source.add(&one.place, Wrong::new(what, "write both, or none"));
                return None;
            }
        };
        let verify = section.switch("verify").unwrap_or(true);
        if let Some(place) = section.place_of("ca").or(section.place_of("crl")).filter(|_| !verify)
        {
            let what = "`verify = false` with something to verify by";
            section.source.add(&place, Wrong::new(what, "remove one of them"));
        }
        let read = |path: &PathBuf, place: &Place| match section.source.read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                let what = format!("`{}` cannot be read: {error}", path.display());
                section.source.add(place, Wrong::new(what, "name a file that the proxy may read"));
                None
            }
        };
        let content = |of: &Option<super::super::errors::Placed<PathBuf>>| match of {
            Some(path) => read(&path.value, &path.place).map(Some),
            None => Some(None),
        };
        let client = match &certificate {
            Some((certificate, key)) => {
                Some((read(&certificate.value, &certificate.place)?, read(&key.value, &key.place)?))
            }
            None => None,
        };
        let material = Material {
            ca: content(&ca)?,
            client,
            revoked: content(&crl)?,
            verify,
            sni: section.switch("sni").unwrap_or(true),
            oldest: section
                .parsed("min_version", "\"1.2\" or \"1.3\"", |text| value::choice(text, VERSIONS))
                .map_or(Oldest::Tls12, |version| version.value),
        };
        let server_name =
            section.parsed(
                "server_name",
                "\"api.example.org\"",
                |name| match ServerName::try_from(name) {
                    Ok(_) => Ok(name.to_ascii_lowercase()),
                    Err(_) => Err(Wrong::new(
                        format!("`{name}` is no name of a server"),
                        "write a host name or an address, without a port",
                    )),
                },
            );
        let connector = connector(&material, &section.place, section)?;
        Some(Self {
            server_name: server_name.map(|name| name.value),
            ca: ca.map(|path| path.value),
            certificate: certificate.map(|(one, other)| (one.value, other.value)),
            crl: crl.map(|path| path.value),
            material,
            connector,
        })
    }

    /// Nothing was said but that servers are `https://`.
    fn by_default(place: &Place, section: &Section<'_>) -> Option<Self> {
        let connector = connector(&plain(), place, section)?;
        Some(Self::with(plain(), connector))
    }

    /// For a quick command.
    ///
    /// # Errors
    /// As [`Connector::new`].
    pub(crate) fn quick() -> Result<Self, String> {
        Ok(Self::with(plain(), Arc::new(Connector::new(&plain())?)))
    }

    /// For servers that one of these authorities has signed for.
    ///
    /// # Errors
    /// As [`Connector::new`].
    pub(crate) fn trusting(path: &Path, pem: Vec<u8>) -> Result<Self, String> {
        let material = Material { ca: Some(pem), ..plain() };
        let connector = Arc::new(Connector::new(&material)?);
        Ok(Self { ca: Some(path.to_owned()), ..Self::with(material, connector) })
    }

    fn with(material: Material, connector: Arc<Connector>) -> Self {
        Self { server_name: None, ca: None, certificate: None, crl: None, material, connector }
    }

    /// Who may have signed servers' certificates, where that is not left to the system.
    pub(in crate::config) fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Whether servers' certificates are looked at.
    pub fn verifies(&self) -> bool {
        self.material.verify
    }

    /// Writes `[upstream.tls]`.
    pub(super) fn write(&self, out: &mut String) {
        header(out, "[upstream.tls]");
        if let Some(name) = &self.server_name {
            text(out, "server_name", name);
        }
        let (certificate, private) =
            self.certificate.as_ref().map_or((None, None), |(one, other)| (Some(one), Some(other)));
        let files = [("ca", self.ca.as_ref()), ("cert", certificate), ("key", private)];
        for (name, path) in files.into_iter().chain([("crl", self.crl.as_ref())]) {
            if let Some(path) = path {
                text(out, name, path.display());
            }
        }
        key(out, "sni", self.material.sni);
        key(out, "verify", self.material.verify);
        text(out, "min_version", value::word(&self.material.oldest, VERSIONS));
    }
}

fn plain() -> Material {
    Material {
        ca: None,
        client: None,
        revoked: None,
        verify: true,
        sni: true,
        oldest: Oldest::Tls12,
    }
}

fn connector(material: &Material, place: &Place, section: &Section<'_>) -> Option<Arc<Connector>> {
    match Connector::new(material) {
        Ok(connector) => Some(Arc::new(connector)),
        Err(what) => {
            let wrong = Wrong::new(format!("[upstream.tls]: {what}"), "name other files");
            section.source.add(place, wrong);
            None
        }
    }
}
