//! Certificates and their keys, from files: everything that can be wrong with them is said
//! here, before a client could find it.

use std::{fs, io, net::IpAddr, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use rustls::{
    Error, InconsistentKeys, RootCertStore,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
    time::ASN1Time,
};

use super::Files;
use crate::{
    acme::Names,
    config::{Sources, Wrong},
};

/// Which file of which certificate, or what else of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate with this number.
    Certificate(usize),
    /// Its key.
    Key(usize),
    /// What is to be stapled to it.
    Staple(usize),
    /// Who signs certificates of clients.
    ClientCa,
    /// All of it together.
    Whole,
}

/// Something of a part: a fault, or a warning.
pub type About<T> = (Part, T);

/// A certificate that can be shown.
#[derive(Debug)]
pub struct Certificate {
    /// The chain, its key and what is stapled to it.
    pub shown: Arc<CertifiedKey>,
    /// Names that it is for, in lower case; one may begin with `*.`.
    pub names: Vec<Box<str>>,
    /// Addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// The first second that it is good for, in Unix time.
    pub not_before: i64,
    /// The last one.
    pub not_after: i64,
}

impl Certificate {
    /// Whether it is for a host, by name or address (RFC 9525 section 6).
    pub fn covers(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let beyond = host.split_once('.').map(|(_, beyond)| beyond);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(suffix) => beyond == Some(suffix),
            None => **name == *host,
        })
    }

    /// Reads one that was ordered by ACME. What is missing, or of no use, is no mistake of the
    /// configuration: it is being ordered. Beside it what is to be said of it.
    pub(super) fn read_ordered(
        path: &Path,
        names: &Names,
        sources: &mut Sources,
    ) -> (Option<Self>, Option<String>) {
        let found = sources.read_bytes(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => None,
            _ => Some(format!("{} cannot be read: {error}", path.display())),
        });
        let made = found.and_then(|bytes| {
            let made = Self::ordered(names, &bytes);
            made.map_err(|what| Some(format!("{} is of no use: {what}", path.display())))
        });
        match made {
            Ok(made) => (Some(made), None),
            Err(what) => (None, what),
        }
    }

    /// Reads one.
    pub(super) fn read(
        files: &Files,
        at: usize,
        sources: &mut Sources,
        faults: &mut Vec<About<Wrong>>,
        warnings: &mut Vec<About<String>>,
    ) -> Option<Self> {
        fn note<T>(
            part: Part,
            result: Result<T, Wrong>,
            faults: &mut Vec<About<Wrong>>,
        ) -> Option<T> {
            result.map_err(|wrong| faults.push((part, wrong))).ok()
        }
        let chain = read(&files.certificate, sources)
            .and_then(|bytes| certificates(&files.certificate, &bytes));
        let chain = note(Part::Certificate(at), chain, faults);
        let key = read(&files.key, sources).and_then(|bytes| private_key(&files.key, &bytes));
        let key = note(Part::Key(at), key, faults);
        let stapled = files.staple.as_ref().map(|path| {
            let stapled = read(path, sources).and_then(|bytes| staple(path, bytes));
            note(Part::Staple(at), stapled, faults)
        });
        let made = Self::new(files, chain?, key?, stapled.flatten());
        let (made, validity) = made
            .map_err(|(key, wrong)| {
                let part = if key { Part::Key(at) } else { Part::Certificate(at) };
                faults.push((part, wrong));
            })
            .ok()?;
        warnings.extend(validity.map(|warning| (Part::Certificate(at), warning)));
        if is_open(&files.key) {
            let path = files.key.display();
            let warning = format!("the key {path} can be read by everybody; chmod o-rwx it");
            warnings.push((Part::Key(at), warning));
        }
        Some(made)
    }

    /// Of a chain and a key that belong together; a fault with `true` is the key's. Beside it
    /// a warning about its time.
    fn new(
        files: &Files,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        stapled: Option<Vec<u8>>,
    ) -> Result<(Self, Option<String>), (bool, Wrong)> {
        let path = files.certificate.display();
        let first = chain.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()));
        let (_, parsed) = X509Certificate::from_der(&first).map_err(|error| {
            let what = format!("the first certificate in {path} cannot be read: {error}");
            (false, Wrong::new(what, "name the certificate of the server, in PEM"))
        })?;
        let key = any_supported_type(&key).map_err(|error| {
            let what = format!("the key in {} cannot be used: {error}", files.key.display());
            (true, Wrong::new(what, "make an ECDSA P-256, Ed25519 or RSA key of 2048 bits or more"))
        })?;
        let mut shown = CertifiedKey::new(chain, key);
        shown.ocsp = stapled;
        match shown.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => {
                let what = format!(
                    "the key in {} does not belong to the first certificate in {path}",
                    files.key.display()
                );
                let cure = "name the key that the certificate was made for; the server's own \
                            certificate comes first in its file, those that signed it behind it";
                return Err((true, Wrong::new(what, cure)));
            }
            Err(error) => {
                let what = format!("the certificate in {path} cannot be used: {error}");
                return Err((false, Wrong::new(what, "use one of version 3")));
            }
        }
        let validity = parsed.validity();
        let now = ASN1Time::now();
        let warning = if now > validity.not_after {
            Some(format!("the certificate in {path} has expired on {}", date(validity.not_after)))
        } else if now < validity.not_before {
            let date = date(validity.not_before);
            Some(format!("the certificate in {path} is not valid before {date}"))
        } else {
            None
        };
        let (names, addresses) = names(&parsed);
        let (not_before, not_after) =
            (validity.not_before.timestamp(), validity.not_after.timestamp());
        let shown = Arc::new(shown);
        Ok((Self { shown, names, addresses, not_before, not_after }, warning))
    }

    /// One that was ordered for these names, with its key: one file, in PEM.
    ///
    /// # Errors
    /// Why it cannot be shown for them, in words for people.
    pub fn ordered(names: &Names, bytes: &[u8]) -> Result<Self, String> {
        let path = Path::new("it");
        let files = Files {
            certificate: path.to_owned(),
            key: path.to_owned(),
            staple: None,
            ordered: Some(names.clone()),
        };
        let made = certificates(path, bytes).map_err(|wrong| (false, wrong)).and_then(|chain| {
            let key = private_key(path, bytes).map_err(|wrong| (true, wrong))?;
            Self::new(&files, chain, key, None)
        });
        let (made, _) = made.map_err(|(_, wrong)| wrong.what().to_owned())?;
        match names.iter().find(|name| !made.covers(name)) {
            Some(name) => Err(format!("it is not for {name}")),
            None => Ok(made),
        }
    }
}

/// Those who may sign certificates of clients.
pub(super) fn roots(path: &Path, bytes: &[u8]) -> Result<RootCertStore, Wrong> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, bytes)? {
        roots.add(certificate).map_err(|error| {
            let what = format!("a certificate in {} cannot be used: {error}", path.display());
            Wrong::new(what, "name the certificates of CAs, in PEM")
        })?;
    }
    Ok(roots)
}

pub(super) fn read(path: &Path, sources: &mut Sources) -> Result<Vec<u8>, Wrong> {
    sources.read_bytes(path).map_err(|error| {
        let shown = path.display();
        let what = match error.kind() {
            io::ErrorKind::NotFound => format!("there is no file {shown}"),
            _ => format!("{shown} cannot be read: {error}"),
        };
        Wrong::new(what, "name a file that this process can read")
    })
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(nothing(path, bytes, "certificate", "CERTIFICATE")),
        Err(error) => Err(broken(path, &error)),
    }
}

fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Wrong> {
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if holds(bytes, b"ENCRYPTED") => Err(Wrong::new(
            format!("the key in {} is encrypted", path.display()),
            "decrypt it: openssl pkey -in KEY -out NEW; there is nobody to ask for a passphrase",
        )),
        Err(pem::Error::NoItemsFound) => Err(nothing(path, bytes, "private key", "PRIVATE KEY")),
        Err(error) => Err(broken(path, &error)),
    }
}

/// OCSP responses have no form in text.
fn staple(path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>, Wrong> {
    // A SEQUENCE (RFC 6960 section 4.2.1) whose length takes more than one byte.
    match bytes.first_chunk::<2>() {
        Some([0x30, length]) if *length >= 0x80 => Ok(bytes),
        _ => Err(Wrong::new(
            format!("{} is no OCSP response in DER", path.display()),
            "write one with: openssl ocsp -respout FILE",
        )),
    }
}

fn nothing(path: &Path, bytes: &[u8], what: &str, label: &str) -> Wrong {
    let path = path.display();
    let what = match holds(bytes, b"-----BEGIN ") {
        true => format!("{path} holds no {what}"),
        false => format!("{path} is not PEM"),
    };
    Wrong::new(what, format!("it has to have a line such as -----BEGIN {label}-----"))
}

/// What is wrong is named, never shown: it may be a key.
fn broken(path: &Path, error: &pem::Error) -> Wrong {
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "a section without its -----END line",
        pem::Error::IllegalSectionStart { .. } => "a malformed -----BEGIN line",
        pem::Error::Base64Decode(_) => "a section that is not base64",
        pem::Error::SectionTooLarge => "a section that is too large",
        _ => "it cannot be read",
    };
    Wrong::new(
        format!("{} is not valid PEM: {what}", path.display()),
        "write it anew; a line may be missing or cut off",
    )
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    memchr::memmem::find(bytes, wanted).is_some()
}

/// Whether everybody on the machine can read it.
fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0)
}

/// Names of the extension (RFC 5280 section 4.2.1.6), or the subject's where there is none.
fn names(certificate: &X509Certificate<'_>) -> (Vec<Box<str>>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase().into()),
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                    let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                    addresses.extend(v4.or(v6));
                }
                _ => {}
            }
        }
    } else {
        let common = certificate.subject().iter_common_name();
        names.extend(
            common.filter_map(|name| Some(name.as_str().ok()?.to_ascii_lowercase().into())),
        );
    }
    (names, addresses)
}

fn date(time: ASN1Time) -> String {
    let time = time.to_datetime();
    let (year, month, day) = time.to_calendar_date();
    format!("{year}-{:02}-{day:02}", u8::from(month))
}
