//! Which certificate a client is shown: by the server name that it asks for (RFC 6066 section
//! 3), then by what it can verify.
//!
//! A name is looked for as it is, then with `*` for its first label; where neither is there,
//! or no name, the default is shown, as clients expect that are sent to a machine by its
//! address. Two certificates for one name are two kinds of key: the first whose signatures the
//! client understands is shown.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{certificate::Certificate, without_dot};
use crate::acme::Names;

/// A certificate, or what it will be for.
#[derive(Debug)]
pub enum Shown {
    /// It can be shown.
    There(Certificate),
    /// It is being ordered.
    Awaited(Names),
}

impl Shown {
    /// The certificate.
    pub fn there(&self) -> Option<&Certificate> {
        match self {
            Self::There(certificate) => Some(certificate),
            Self::Awaited(_) => None,
        }
    }
}

/// The certificates of a listener.
#[derive(Debug)]
pub struct Chooser {
    certificates: Vec<Shown>,
    /// Shown where no name fits: the default, and others for the same names; none while that is
    /// awaited.
    default: Vec<usize>,
    /// Those who ask for these are not shown what is for others.
    awaited: HashSet<Box<str>>,
    /// By name, and by what stands behind `*.`.
    exact: HashMap<Box<str>, Vec<usize>>,
    wildcard: HashMap<Box<str>, Vec<usize>>,
}

impl Chooser {
    /// `default` is one of `certificates`, of which there is at least one.
    pub(super) fn new(certificates: Vec<Shown>, default: usize) -> Self {
        let mut exact: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut wildcard: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut awaited = HashSet::new();
        for (index, certificate) in certificates.iter().enumerate() {
            let certificate = match certificate {
                Shown::There(certificate) => certificate,
                Shown::Awaited(names) => {
                    awaited.extend(names.iter().map(Box::from));
                    continue;
                }
            };
            for name in &certificate.names {
                let of = match name.strip_prefix("*.") {
                    Some(suffix) => wildcard.entry(suffix.into()).or_default(),
                    None => exact.entry(name.clone()).or_default(),
                };
                if !of.contains(&index) {
                    of.push(index);
                }
            }
        }
        let names = |index: usize| certificates[index].there().map(|shown| &*shown.names);
        let default = match names(default) {
            None => Vec::new(),
            Some(wanted) => {
                let like = |index: &usize| *index != default && names(*index) == Some(wanted);
                let others = (0..certificates.len()).filter(like);
                std::iter::once(default).chain(others).collect()
            }
        };
        Self { certificates, default, awaited, exact, wildcard }
    }

    /// All of them, as they were configured.
    pub fn certificates(&self) -> &[Shown] {
        &self.certificates
    }

    /// Those for a name, in the order of the configuration.
    fn candidates(&self, name: Option<&str>) -> &[usize] {
        let Some(name) = name else { return &self.default };
        let beyond = name.split_once('.').map(|(_, beyond)| beyond);
        let found = self.exact.get(name);
        let found = found.or_else(|| self.wildcard.get(beyond?));
        match found {
            Some(found) => found,
            None if self.awaited.contains(name) => &[],
            None => &self.default,
        }
    }

    /// The certificate that a client which asked for `name` was shown, or one that is for the
    /// same names; `None` while that is awaited.
    pub fn for_name(&self, name: Option<&str>) -> Option<&Certificate> {
        self.certificates[*self.candidates(name).first()?].there()
    }

    fn choose(&self, name: Option<&str>, offered: &[SignatureScheme]) -> Option<&Certificate> {
        let candidates = self.candidates(name).iter();
        let mut candidates = candidates.filter_map(|index| self.certificates[*index].there());
        candidates
            .find(|certificate| certificate.shown.key.choose_scheme(offered).is_some())
            // It will not do, and the handshake says so.
            .or_else(|| self.for_name(name))
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has put the name into lower case.
        let name = hello.server_name().map(without_dot);
        let chosen = self.choose(name, hello.signature_schemes())?;
        Some(Arc::clone(&chosen.shown))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    fn certificate(names: &[&str], kind: &'static SignatureAlgorithm) -> Certificate {
        let key = KeyPair::generate_for(kind).unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::CertificateParams::new(names.clone()).unwrap().self_signed(&key).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        Certificate {
            shown: Arc::new(CertifiedKey::new(vec![made.der().clone()], key)),
            names: names.into_iter().map(Into::into).collect(),
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            not_before: 0,
            not_after: 0,
        }
    }

    #[test]
    fn names_are_found_as_they_are_then_with_a_star_then_the_default() {
        let of = |names| Shown::There(certificate(names, &PKCS_ECDSA_P256_SHA256));
        let chooser = Chooser::new(
            vec![
                of(&["a.test", "*.a.test"]),
                of(&["default.test"]),
                of(&["www.a.test"]),
                of(&["*.b.a.test", "b.a.test"]),
            ],
            1,
        );
        for (name, expected) in [
            (Some("a.test"), "a.test"),
            (Some("x.a.test"), "a.test"),
            (Some("www.a.test"), "www.a.test"),
            (Some("b.a.test"), "*.b.a.test"),
            (Some("x.b.a.test"), "*.b.a.test"),
            (Some("x.y.a.test"), "default.test"),
            (Some("test"), "default.test"),
            (Some("unknown.test"), "default.test"),
            (None, "default.test"),
        ] {
            assert_eq!(&*chooser.for_name(name).unwrap().names[0], expected, "{name:?}");
        }
    }

    #[test]
    fn who_asks_for_one_that_is_awaited_is_shown_none_unless_another_is_for_the_name() {
        let there = |names| Shown::There(certificate(names, &PKCS_ECDSA_P256_SHA256));
        let awaited = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Shown::Awaited(Names::new(names).unwrap())
        };
        let parts = || vec![there(&["b.test", "*.c.test"]), awaited(&["a.test", "x.c.test"])];
        let shown = |chooser: &Chooser, name| {
            let scheme = [SignatureScheme::ECDSA_NISTP256_SHA256];
            chooser.choose(name, &scheme).map(|shown| shown.names[0].to_string())
        };
        let chooser = Chooser::new(parts(), 0);
        for (name, expected) in [
            (Some("a.test"), None),
            (Some("x.c.test"), Some("b.test")),
            (Some("other.test"), Some("b.test")),
            (None, Some("b.test")),
        ] {
            assert_eq!(shown(&chooser, name).as_deref(), expected, "{name:?}");
        }
        let chooser = Chooser::new(parts(), 1);
        for (name, expected) in
            [(Some("b.test"), Some("b.test")), (Some("other.test"), None), (None, None)]
        {
            assert_eq!(shown(&chooser, name).as_deref(), expected, "{name:?}");
        }
    }

    #[test]
    fn of_two_for_a_name_the_client_gets_one_that_it_can_verify() {
        let names = ["a.test"];
        let chooser = Chooser::new(
            vec![
                Shown::There(certificate(&names, &PKCS_ED25519)),
                Shown::There(certificate(&names, &PKCS_ECDSA_P256_SHA256)),
            ],
            0,
        );
        let all: Vec<_> = chooser.certificates().iter().filter_map(Shown::there).collect();
        for name in [Some("a.test"), Some("other.test"), None] {
            for (offered, expected) in [
                (&[SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256][..], 0),
                (&[SignatureScheme::ECDSA_NISTP256_SHA256], 1),
                (&[SignatureScheme::RSA_PKCS1_SHA1], 0),
            ] {
                let chosen = chooser.choose(name, offered).unwrap();
                assert!(Arc::ptr_eq(&chosen.shown, &all[expected].shown), "{name:?} {offered:?}");
            }
        }
    }

    #[test]
    fn a_certificate_covers_its_names_and_addresses() {
        let one = certificate(&["a.test", "*.a.test"], &PKCS_ED25519);
        for host in ["a.test", "x.a.test", "192.0.2.1", "[2001:db8::1]", "[2001:db8:0::1]"] {
            assert!(one.covers(host), "{host}");
        }
        for host in ["b.test", "x.y.a.test", ".a.test.b", "192.0.2.2", "[2001:db8::2]", "", "*"] {
            assert!(!one.covers(host), "{host}");
        }
    }
}
