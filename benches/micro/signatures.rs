//! What a full handshake asks of a worker's CPU: one signature, by the kind of the key.
//!
//! The same calls that rustls makes, with aws-lc-rs. `cargo bench -p underpass-benches -- signature`.

use std::hint::black_box;

use criterion::Criterion;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    RsaKeySize,
};
use rustls::{
    SignatureScheme,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// What is signed: as much as the hash of a transcript with its context (RFC 8446 section 4.4.3).
const MESSAGE: [u8; 130] = [0x20; 130];

/// One signature for each kind of key that certificates have.
pub(crate) fn signatures(c: &mut Criterion) {
    let rsa = |size| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size);
    let mut group = c.benchmark_group("signature");
    for (name, key, scheme) in [
        (
            "ecdsa_p256",
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            SignatureScheme::ECDSA_NISTP256_SHA256,
        ),
        (
            "ecdsa_p384",
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            SignatureScheme::ECDSA_NISTP384_SHA384,
        ),
        ("ed25519", KeyPair::generate_for(&PKCS_ED25519), SignatureScheme::ED25519),
        ("rsa_2048", rsa(RsaKeySize::_2048), SignatureScheme::RSA_PSS_SHA256),
        ("rsa_4096", rsa(RsaKeySize::_4096), SignatureScheme::RSA_PSS_SHA256),
    ] {
        let key = key.expect("a key").serialize_der();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let key = any_supported_type(&key).expect("a key that can sign");
        let signer = key.choose_scheme(&[scheme]).expect("its scheme");
        group
            .bench_function(name, |b| b.iter(|| signer.sign(black_box(&MESSAGE)).expect("signed")));
    }
    group.finish();
}
