//! What a client of ACME signs, verified (RFC 8555 section 6.2, RFC 7515).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto::verify};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use serde_json::{Value, json};

/// A public key on P-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Jwk {
    pub(super) x: String,
    pub(super) y: String,
}

/// A request, of which the signature has not been looked at yet.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) header: Value,
    /// `null` for POST-as-GET.
    pub(super) payload: Value,
    message: String,
    signature: String,
}

impl Signed {
    /// The three parts of a flattened JWS.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        Self::of(&serde_json::from_slice(bytes).map_err(|error| error.to_string())?)
    }

    fn of(jws: &Value) -> Result<Self, String> {
        let part = |name: &str| jws[name].as_str().ok_or(format!("no `{name}`"));
        let (protected, payload) = (part("protected")?, part("payload")?);
        let header = serde_json::from_slice(&decode(protected)?).map_err(|e| e.to_string())?;
        let content = match payload {
            "" => Value::Null,
            payload => serde_json::from_slice(&decode(payload)?).map_err(|e| e.to_string())?,
        };
        Ok(Self {
            header,
            payload: content,
            message: format!("{protected}.{payload}"),
            signature: part("signature")?.to_owned(),
        })
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.header[name].as_str().unwrap_or_default()
    }

    /// The key in the header.
    pub(super) fn jwk(&self) -> Option<Jwk> {
        Jwk::of(&self.header["jwk"])
    }

    pub(super) fn is_signed_by(&self, key: &Jwk) -> Result<(), String> {
        if self.text("alg") != "ES256" {
            return Err(format!("alg {}", self.text("alg")));
        }
        let key = DecodingKey::from_ec_components(&key.x, &key.y).map_err(|e| e.to_string())?;
        self.check(&key, Algorithm::ES256)
    }

    fn check(&self, key: &DecodingKey, algorithm: Algorithm) -> Result<(), String> {
        match verify(&self.signature, self.message.as_bytes(), key, algorithm) {
            Ok(true) => Ok(()),
            _ => Err("the signature does not hold".to_owned()),
        }
    }
}

impl Jwk {
    fn of(value: &Value) -> Option<Self> {
        let part = |name: &str| value[name].as_str().map(str::to_owned);
        let is_p256 = value["kty"] == "EC" && value["crv"] == "P-256";
        is_p256.then_some(())?;
        Some(Self { x: part("x")?, y: part("y")? })
    }

    /// RFC 7638.
    pub(super) fn thumbprint(&self) -> String {
        // Keys in the order of their names, without blanks.
        let text = format!(
            "{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"{}\",\"y\":\"{}\"}}",
            self.x, self.y
        );
        URL_SAFE_NO_PAD.encode(sha256(text.as_bytes()))
    }
}

/// External account binding (section 7.3.4): the account's key, under a key that both sides know.
pub(super) fn binding(
    jws: &Value,
    id: &str,
    key: &[u8],
    url: &str,
    account: &Jwk,
) -> Result<(), String> {
    let signed = Signed::of(jws)?;
    let head = json!({ "alg": "HS256", "kid": id, "url": url });
    if signed.header != head {
        return Err(format!("the header of the binding: {}", signed.header));
    }
    if Jwk::of(&signed.payload).as_ref() != Some(account) {
        return Err("the binding is of another key".to_owned());
    }
    signed.check(&DecodingKey::from_secret(key), Algorithm::HS256)
}

pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(text).map_err(|error| error.to_string())
}

pub(super) fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}
