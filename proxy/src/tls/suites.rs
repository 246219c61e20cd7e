//! Cipher suites by the names of IANA's registry, as other servers have them. Pure.

use rustls::{CipherSuite, ProtocolVersion};

/// Those that there are, in the order in which they are preferred (rustls with aws-lc-rs): all
/// authenticate what they encrypt, and all have forward secrecy.
pub const ALL: [(&str, CipherSuite); 9] = [
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// The name of a suite.
pub fn name(suite: CipherSuite) -> &'static str {
    ALL.iter().find(|(_, known)| *known == suite).map_or("unknown", |(name, _)| name)
}

/// Whether a suite is one of TLS 1.3.
pub fn is_tls13(suite: CipherSuite) -> bool {
    ALL[..3].iter().any(|(_, known)| *known == suite)
}

/// A version as logs and metrics have it.
pub fn version(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "1.2",
        _ => "1.3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_has_these_and_no_others() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let there: Vec<_> = provider.cipher_suites.iter().map(|suite| suite.suite()).collect();
        assert_eq!(there, ALL.map(|(_, suite)| suite));
        for suite in &provider.cipher_suites {
            assert_eq!(is_tls13(suite.suite()), suite.tls13().is_some());
            assert_ne!(name(suite.suite()), "unknown");
        }
    }
}
