//! Which certificate a client is shown: by the server name that it asks for (RFC 6066 section
//! 3), then by what it can verify.
//!
//! A name is looked for as it is, then with `*` for its first label; where neither is there,
//! or no name, the default is shown, as clients expect that are sent to a machine by its
//! address. Two certificates for one name are two kinds of key: the first whose signatures the
//! client understands is shown.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::certificate::Certificate;
use super::session::without_dot;

/// The certificates of a listener.
#[derive(Debug)]
pub struct Chooser {
    certificates: Vec<Certificate>,
    /// Shown where no name fits: the default, and others for the same names.
    default: Vec<usize>,
    /// By name, and by what stands behind `*.`.
    exact: HashMap<Box<str>, Vec<usize>>,
    wildcard: HashMap<Box<str>, Vec<usize>>,
}

impl Chooser {
    /// `default` is one of `certificates`, of which there is at least one.
    pub(super) fn new(certificates: Vec<Certificate>, default: usize) -> Self {
        let mut exact: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut wildcard: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (index, certificate) in certificates.iter().enumerate() {
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
        let like = |index: &usize| {
            *index != default && certificates[*index].names == certificates[default].names
        };
        let others = (0..certificates.len()).filter(like);
        let default = std::iter::once(default).chain(others).collect();
        Self { certificates, default, exact, wildcard }
    }

    /// All of them.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Those for a name, in the order of the configuration.
    fn candidates(&self, name: Option<&str>) -> &[usize] {
        let Some(name) = name else { return &self.default };
        let beyond = name.split_once('.').map(|(_, beyond)| beyond);
        let found = self.exact.get(name);
        let found = found.or_else(|| self.wildcard.get(beyond?));
        found.unwrap_or(&self.default)
    }

    /// The certificate that a client which asked for `name` was shown, or one that is for the
    /// same names.
    pub fn for_name(&self, name: Option<&str>) -> &Certificate {
        &self.certificates[self.candidates(name)[0]]
    }

    fn choose(&self, name: Option<&str>, offered: &[SignatureScheme]) -> &Certificate {
        let candidates = self.candidates(name).iter().map(|index| &self.certificates[*index]);
        candidates
            .clone()
            .find(|certificate| certificate.shown.key.choose_scheme(offered).is_some())
            // It will not do, and the handshake says so.
            .unwrap_or_else(|| self.for_name(name))
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has put the name into lower case.
        let name = hello.server_name().map(without_dot);
        let chosen = self.choose(name, hello.signature_schemes());
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
            not_after: 0,
        }
    }

    #[test]
    fn names_are_found_as_they_are_then_with_a_star_then_the_default() {
        let of = |names| certificate(names, &PKCS_ECDSA_P256_SHA256);
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
            assert_eq!(&*chooser.for_name(name).names[0], expected, "{name:?}");
        }
    }

    #[test]
    fn of_two_for_a_name_the_client_gets_one_that_it_can_verify() {
        let names = ["a.test"];
        let chooser = Chooser::new(
            vec![certificate(&names, &PKCS_ED25519), certificate(&names, &PKCS_ECDSA_P256_SHA256)],
            0,
        );
        let all = chooser.certificates();
        for name in [Some("a.test"), Some("other.test"), None] {
            for (offered, expected) in [
                (&[SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256][..], 0),
                (&[SignatureScheme::ECDSA_NISTP256_SHA256], 1),
                (&[SignatureScheme::RSA_PKCS1_SHA1], 0),
            ] {
                let chosen = chooser.choose(name, offered);
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
