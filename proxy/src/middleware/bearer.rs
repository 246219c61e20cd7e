//! Bearer tokens (RFC 6750) that are JSON Web Tokens (RFC 7519), checked by a set of keys
//! (RFC 7517).
//!
//! Invariant: a key is used with the algorithms of its own kind only, whatever a token's head
//! asks for (RFC 8725 section 3.1), and a token without an end is none.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet},
};
use serde_json::{Map, Value};

use crate::{headers::cookie, wire::fields};

/// What a token has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The JWKS document.
    pub keys: String,
    /// `iss` has to be one of these; empty: any.
    pub issuers: Vec<String>,
    /// `aud` has to name one of these; empty: any.
    pub audiences: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Where the token may be besides `Authorization`.
    pub cookie: Option<String>,
    /// Fields of the request that tell the server of claims.
    pub claims: Vec<(HeaderName, String)>,
}

/// The keys and rules, ready for use.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<Key>,
    rules: Rules,
}

struct Key {
    id: Option<String>,
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has no token.
    Missing,
    /// Its token is none of ours.
    Invalid,
    /// Its token was one of ours.
    Expired,
}

impl Refusal {
    /// The value of `WWW-Authenticate` (RFC 6750 section 3): nothing is said of a token to who
    /// sent none.
    pub fn challenge(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Refusal::Missing => "Bearer",
            Refusal::Invalid => "Bearer error=\"invalid_token\"",
            Refusal::Expired => {
                "Bearer error=\"invalid_token\", error_description=\"the token has expired\""
            }
        })
    }
}

impl Verifier {
    /// # Errors
    /// What is wrong with the keys.
    pub fn new(rules: Rules) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_str(&rules.keys)
            .map_err(|error| format!("not a JSON Web Key Set: {error}"))?;
        let keys: Vec<Key> = set.keys.iter().filter_map(usable).collect();
        if keys.is_empty() {
            return Err("the set has no key for signatures by RSA, ECDSA or Ed25519".to_owned());
        }
        Ok(Self { keys, rules })
    }

    /// Checks the token of a request, and has the request tell of its claims. What the client
    /// itself put into those fields is gone in any case.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(&self, request: &mut HeaderMap) -> Result<(), Refusal> {
        for (name, _) in &self.rules.claims {
            request.remove(name);
        }
        let claims = {
            let token = self.token(request).ok_or(Refusal::Missing)?;
            self.verify(token)?
        };
        for (name, claim) in &self.rules.claims {
            if let Some(value) = claims.get(claim).and_then(shown) {
                request.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    fn token<'a>(&self, request: &'a HeaderMap) -> Option<&'a [u8]> {
        let bearer = request.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| fields::trim(token))
        });
        bearer.or_else(|| cookie(request, self.rules.cookie.as_deref()?))
    }

    fn verify(&self, token: &[u8]) -> Result<Map<String, Value>, Refusal> {
        let head = decode_header(token).map_err(|_| Refusal::Invalid)?;
        let named = |key: &&Key| match (&head.kid, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            // A set with one key needs no names.
            _ => true,
        };
        let fitting = |key: &&Key| key.algorithms.contains(&head.alg);
        let mut validation = Validation::new(head.alg);
        validation.leeway = self.rules.leeway.as_secs();
        validation.validate_nbf = true;
        validation.validate_aud = !self.rules.audiences.is_empty();
        let mut required = vec!["exp"];
        if !self.rules.audiences.is_empty() {
            validation.set_audience(&self.rules.audiences);
            required.push("aud");
        }
        if !self.rules.issuers.is_empty() {
            validation.set_issuer(&self.rules.issuers);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let mut refusal = Refusal::Invalid;
        for key in self.keys.iter().filter(named).filter(fitting) {
            match decode::<Map<String, Value>>(token, &key.key, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => {
                    use jsonwebtoken::errors::ErrorKind;
                    if let ErrorKind::ExpiredSignature = error.kind() {
                        refusal = Refusal::Expired;
                    }
                }
            }
        }
        Err(refusal)
    }
}

/// A key that signatures can be checked by, and by what it can be.
fn usable(jwk: &Jwk) -> Option<Key> {
    use Algorithm::*;
    let of_its_kind: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[ES256],
            EllipticCurve::P384 => &[ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => &[EdDSA],
        // Whoever can check by a shared secret can sign by it.
        _ => return None,
    };
    let algorithms = match jwk.common.key_algorithm {
        None => of_its_kind.to_vec(),
        Some(only) => {
            let only: Algorithm = only.to_string().parse().ok()?;
            of_its_kind.iter().copied().filter(|algorithm| *algorithm == only).collect()
        }
    };
    let encrypts =
        matches!(jwk.common.public_key_use, Some(jsonwebtoken::jwk::PublicKeyUse::Encryption));
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let id = jwk.common.key_id.clone();
    (!algorithms.is_empty() && !encrypts).then_some(Key { id, key, algorithms })
}

/// A claim as the value of a field; what has a form of its own is left out.
fn shown(claim: &Value) -> Option<HeaderValue> {
    match claim {
        Value::String(text) => HeaderValue::from_str(text).ok(),
        Value::Number(number) => HeaderValue::from_str(&number.to_string()).ok(),
        Value::Bool(yes) => Some(HeaderValue::from_static(if *yes { "true" } else { "false" })),
        Value::Array(items) => {
            let items: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            HeaderValue::from_str(&items?.join(",")).ok()
        }
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
#[path = "bearer_tests.rs"]
mod tests;
