//! Tokens that are signed here, by keys made here.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;

/// An Ed25519 key (RFC 8037, appendix A.1), whose private half everybody may know.
const PRIVATE: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn key() -> EncodingKey {
    // PKCS #8 of an Ed25519 key (RFC 8410 section 7): a fixed head before its 32 bytes.
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let secret = URL_SAFE_NO_PAD.decode(PRIVATE).unwrap();
    EncodingKey::from_ed_der(&[&head[..], &secret].concat())
}

fn rules() -> Rules {
    let keys = json!({ "keys": [
        { "kty": "OKP", "crv": "Ed25519", "x": PUBLIC, "kid": "one" },
        { "kty": "oct", "k": "c2VjcmV0", "kid": "shared" },
    ]});
    Rules {
        keys: keys.to_string(),
        issuers: vec!["https://id.test".into()],
        audiences: vec!["api".into()],
        leeway: Duration::from_secs(5),
        cookie: Some("token".into()),
        claims: vec![
            (HeaderName::from_static("x-user"), "sub".into()),
            (HeaderName::from_static("x-groups"), "groups".into()),
        ],
    }
}

fn claims() -> Value {
    let now = jsonwebtoken::get_current_timestamp();
    json!({
        "iss": "https://id.test", "aud": ["api", "other"], "sub": "ada",
        "groups": ["a", "b"], "exp": now + 60,
    })
}

fn token(claims: &Value, id: Option<&str>) -> String {
    let mut head = Header::new(Algorithm::EdDSA);
    head.kid = id.map(str::to_owned);
    encode(&head, claims, &key()).unwrap()
}

fn request(token: &str) -> HeaderMap {
    let mut request = HeaderMap::new();
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    request.insert(header::AUTHORIZATION, value);
    request.insert("x-user", HeaderValue::from_static("root"));
    request
}

fn admit(request: &mut HeaderMap) -> Result<(), Refusal> {
    Verifier::new(rules()).unwrap().admit(request)
}

#[test]
fn a_good_token_is_admitted_and_its_claims_are_passed_on() {
    for id in [Some("one"), None] {
        let mut request = request(&token(&claims(), id));
        assert_eq!(admit(&mut request), Ok(()));
        assert_eq!(request["x-user"], "ada");
        assert_eq!(request["x-groups"], "a,b");
    }
    let mut by_cookie = HeaderMap::new();
    let value = format!("a=b; token={}; c=d", token(&claims(), None));
    by_cookie.insert(header::COOKIE, HeaderValue::from_str(&value).unwrap());
    assert_eq!(admit(&mut by_cookie), Ok(()));
}

#[test]
fn claims_are_not_the_clients_to_make() {
    let mut request = request("rubbish");
    assert_eq!(admit(&mut request), Err(Refusal::Invalid));
    assert!(!request.contains_key("x-user"));
}

#[test]
fn every_rule_is_kept() {
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let now = jsonwebtoken::get_current_timestamp();
    for (claims, refusal) in [
        (with("exp", json!(now - 60)), Refusal::Expired),
        (without("exp"), Refusal::Invalid),
        (with("nbf", json!(now + 60)), Refusal::Invalid),
        (with("iss", json!("https://evil.test")), Refusal::Invalid),
        (without("iss"), Refusal::Invalid),
        (with("aud", json!("other")), Refusal::Invalid),
        (without("aud"), Refusal::Invalid),
    ] {
        let refused = admit(&mut request(&token(&claims, Some("one"))));
        assert_eq!(refused, Err(refusal), "{claims}");
    }
    assert_eq!(admit(&mut HeaderMap::new()), Err(Refusal::Missing));
    let other = token(&claims(), Some("two"));
    assert_eq!(admit(&mut request(&other)), Err(Refusal::Invalid), "no such key");
}

#[test]
fn a_token_does_not_choose_how_it_is_checked() {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{}.", part(json!({ "alg": "none" })), part(claims()));
    assert_eq!(admit(&mut request(&none)), Err(Refusal::Invalid));
    // Signed by the shared secret of the set, which is no key for signatures.
    let shared = EncodingKey::from_secret(b"secret");
    let by_secret = encode(&Header::new(Algorithm::HS256), &claims(), &shared).unwrap();
    assert_eq!(admit(&mut request(&by_secret)), Err(Refusal::Invalid));
    // The public key taken for a secret.
    let public = EncodingKey::from_secret(&URL_SAFE_NO_PAD.decode(PUBLIC).unwrap());
    let confused = encode(&Header::new(Algorithm::HS256), &claims(), &public).unwrap();
    assert_eq!(admit(&mut request(&confused)), Err(Refusal::Invalid));
    let mut forged = token(&claims(), Some("one"));
    let at = forged.len() - 10;
    let other = if &forged[at..=at] == "A" { "B" } else { "A" };
    forged.replace_range(at..=at, other);
    assert_eq!(admit(&mut request(&forged)), Err(Refusal::Invalid));
}

#[test]
fn keys_that_check_nothing_are_an_error() {
    for keys in ["", "{}", "{\"keys\": []}", "{\"keys\": [{\"kty\": \"oct\", \"k\": \"YQ\"}]}"] {
        let rules = Rules { keys: keys.to_owned(), ..rules() };
        assert!(Verifier::new(rules).is_err(), "{keys}");
    }
}
