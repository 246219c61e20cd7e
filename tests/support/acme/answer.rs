//! What the scripted CA answers (RFC 8555 section 7).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Response, StatusCode, request::Parts};
use http_body_util::Full;
use rcgen::{CertificateSigningRequestParams, KeyPair, SanType, SerialNumber};
use serde_json::{Value, json};

use super::{
    Account, Books, Gives, Order, Proof, Shared,
    jws::{self, Signed},
    look,
};

type Answer = Response<Full<Bytes>>;

/// A type of a problem, what it says and how soon to come again.
struct Problem(&'static str, String, Option<u64>);

impl Problem {
    fn new(kind: &'static str, detail: impl Into<String>) -> Self {
        Self(kind, detail.into(), None)
    }
}

/// Answers one request.
pub(super) fn answer(shared: &Arc<Shared>, head: &Parts, body: &[u8]) -> Answer {
    let mut books = shared.books.lock().expect("books");
    if books.script.garbage {
        return Response::new(Full::new("<html>It works!</html>".into()));
    }
    let nonce = books.fresh("nonce");
    let path = head.uri.path().to_owned();
    let mut answer = match (&head.method, path.as_str()) {
        (&Method::GET, "/dir") => directory(shared, &books),
        (&Method::HEAD, "/nonce") => Answer::default(),
        (&Method::GET, path) if path.starts_with("/renewal/") => renewal(&mut books, path),
        (&Method::POST, path) => match post(shared, &mut books, head, path, body) {
            Ok(answer) => answer,
            Err(problem) => refused(&mut books, problem),
        },
        (method, path) => {
            books.faults.push(format!("{method} {path}"));
            refused(&mut books, Problem::new("malformed", "no such thing"))
        }
    };
    books.nonces.insert(nonce.clone());
    let headers = answer.headers_mut();
    headers.insert("replay-nonce", nonce.parse().expect("a value"));
    headers.insert("cache-control", "no-store".parse().expect("a value"));
    answer
}

fn directory(shared: &Shared, books: &Books) -> Answer {
    let url = |path: &str| format!("{}/{path}", shared.base);
    let mut directory = json!({
        "newNonce": url("nonce"), "newAccount": url("account"), "newOrder": url("order"),
        "revokeCert": url("revoke"), "keyChange": url("key"),
        "meta": { "termsOfService": url("terms"), "externalAccountRequired": books.script.binding.is_some() },
    });
    if books.script.window.is_some() {
        directory["renewalInfo"] = url("renewal").into();
    }
    object(StatusCode::OK, &directory)
}

/// RFC 9773.
fn renewal(books: &mut Books, path: &str) -> Answer {
    books.log.push(format!("renewal {}", path.trim_start_matches("/renewal/")));
    let (start, end) = books.script.window.unwrap_or_default();
    let window = json!({ "suggestedWindow": { "start": rfc3339(start), "end": rfc3339(end) } });
    let mut answer = object(StatusCode::OK, &window);
    answer.headers_mut().insert("retry-after", "60".parse().expect("a value"));
    answer
}

fn post(
    shared: &Arc<Shared>,
    books: &mut Books,
    head: &Parts,
    path: &str,
    body: &[u8],
) -> Result<Answer, Problem> {
    let malformed = |what: String| Problem::new("malformed", what);
    if head.headers.get("content-type").is_none_or(|kind| kind != "application/jose+json") {
        return Err(malformed("not application/jose+json".to_owned()));
    }
    let signed = Signed::parse(body).map_err(malformed)?;
    let known = books.nonces.remove(signed.text("nonce"));
    if books.script.bad_nonces > 0 {
        books.script.bad_nonces -= 1;
        return Err(Problem::new("badNonce", "scripted"));
    }
    if !known {
        books.faults.push(format!("{path}: a nonce that was not given, or twice"));
        return Err(Problem::new("badNonce", "unknown"));
    }
    let url = format!("{}{path}", shared.base);
    if signed.text("url") != url {
        return Err(malformed(format!("signed for {}", signed.text("url"))));
    }
    if path == "/account" {
        return account(shared, books, &signed, &url);
    }
    // RFC 8555 section 6.2: an account, and no key.
    let id = signed.text("kid").to_owned();
    if !signed.header["jwk"].is_null() {
        return Err(malformed("both jwk and kid".to_owned()));
    }
    let Some(account) = books.accounts.get(&id) else {
        return Err(Problem::new("accountDoesNotExist", "who?"));
    };
    signed.is_signed_by(&account.key).map_err(malformed)?;
    let payload = &signed.payload;
    match path.trim_start_matches('/').split_once('/') {
        None if path == "/order" => new_order(shared, books, &id, payload),
        Some(("accounts", _)) if url == id => {
            let contact = strings(&payload["contact"]);
            books.log.push(format!("contact {}", contact.join(",")));
            books.accounts.get_mut(&id).expect("known").contact = contact;
            Ok(object(StatusCode::OK, &json!({ "status": "valid" })))
        }
        Some(("orders", number)) => order(shared, books, number, &id, payload),
        Some(("proofs", number)) => {
            let proof = books.proofs.get(number).ok_or(Problem::new("malformed", "no proof"))?;
            Ok(object(StatusCode::OK, &proof_object(shared, number, proof)))
        }
        Some(("challenges", which)) => challenge(shared, books, which),
        Some(("finalize", number)) => finalize(shared, books, number, &id, payload),
        Some(("certificates", number)) => {
            let pem = books.certificates.get(number).cloned();
            let pem = pem.ok_or(Problem::new("malformed", "no certificate"))?;
            let mut answer = Response::new(Full::new(pem.into()));
            let kind = "application/pem-certificate-chain".parse().expect("a value");
            answer.headers_mut().insert("content-type", kind);
            Ok(answer)
        }
        _ => Err(malformed(format!("nothing at {path}"))),
    }
}

fn account(
    shared: &Shared,
    books: &mut Books,
    signed: &Signed,
    url: &str,
) -> Result<Answer, Problem> {
    let malformed = |what: String| Problem::new("malformed", what);
    let key = signed.jwk().ok_or_else(|| malformed("no jwk".to_owned()))?;
    signed.is_signed_by(&key).map_err(malformed)?;
    let payload = &signed.payload;
    if payload["termsOfServiceAgreed"] != true {
        return Err(Problem::new("userActionRequired", "agree to the terms"));
    }
    if let Some((id, secret)) = &books.script.binding {
        let bound = &payload["externalAccountBinding"];
        jws::binding(bound, id, secret, url, &key)
            .map_err(|what| Problem::new("externalAccountRequired", what))?;
    }
    let contact = strings(&payload["contact"]);
    let id = format!("{}/accounts/{}", shared.base, books.fresh("a"));
    books.log.push(format!("account {}", contact.join(",")));
    books.accounts.insert(id.clone(), Account { key, contact });
    let mut answer = object(StatusCode::CREATED, &json!({ "status": "valid" }));
    answer.headers_mut().insert("location", id.parse().expect("a value"));
    Ok(answer)
}

fn new_order(
    shared: &Shared,
    books: &mut Books,
    account: &str,
    payload: &Value,
) -> Result<Answer, Problem> {
    let identifiers = payload["identifiers"].as_array().cloned().unwrap_or_default();
    let names: Vec<String> = identifiers
        .iter()
        .filter(|one| one["type"] == "dns")
        .filter_map(|one| one["value"].as_str().map(str::to_owned))
        .collect();
    let replaces = payload["replaces"].as_str().map(str::to_owned);
    let replaced = replaces.as_ref().map_or(String::new(), |id| format!(" replaces {id}"));
    books.log.push(format!("order {}{replaced}", names.join(",")));
    if let Some((kind, again)) = books.script.refuses {
        return Err(Problem(kind, "scripted\r\nrefusal".to_owned(), again));
    }
    let thumbprint = books.accounts[account].key.thumbprint();
    let proofs = names.iter().map(|name| {
        let number = books.fresh("p");
        let token = URL_SAFE_NO_PAD.encode(jws::sha256(number.as_bytes()));
        let (name, thumbprint) = (name.clone(), thumbprint.clone());
        let (status, error, looking) = ("pending", None, false);
        let proof = Proof { name, token, status, error, thumbprint, looking };
        books.proofs.insert(number.clone(), proof);
        number
    });
    let proofs = proofs.collect();
    let number = books.fresh("o");
    let (status, certificate) = ("pending", None);
    let (account, processing) = (account.to_owned(), books.script.processing);
    let order = Order { account, names, proofs, status, processing, certificate, replaces };
    books.orders.insert(number.clone(), order);
    let mut answer = object(StatusCode::CREATED, &order_object(shared, books, &number));
    let url = format!("{}/orders/{number}", shared.base);
    answer.headers_mut().insert("location", url.parse().expect("a value"));
    Ok(answer)
}

fn own<'a>(books: &'a mut Books, number: &str, account: &str) -> Result<&'a mut Order, Problem> {
    let order = books.orders.get_mut(number).filter(|order| order.account == account);
    order.ok_or(Problem::new("malformed", "no such order"))
}

fn order(
    shared: &Shared,
    books: &mut Books,
    number: &str,
    account: &str,
    payload: &Value,
) -> Result<Answer, Problem> {
    if !payload.is_null() {
        return Err(Problem::new("malformed", "not POST-as-GET"));
    }
    books.log.push(format!("look {number}"));
    let order = own(books, number, account)?;
    if order.status == "processing" {
        match order.processing.checked_sub(1) {
            Some(left) => order.processing = left,
            None => order.status = "valid",
        }
    }
    Ok(object(StatusCode::OK, &order_object(shared, books, number)))
}

/// `http-01/p1`: the CA is told that it may look.
fn challenge(shared: &Arc<Shared>, books: &mut Books, which: &str) -> Result<Answer, Problem> {
    let (kind, number) = which.split_once('/').unwrap_or_default();
    let proof = books.proofs.get_mut(number).ok_or(Problem::new("malformed", "no challenge"))?;
    if proof.status == "pending" && !proof.looking {
        proof.looking = true;
        let (shared, kind, number) = (Arc::clone(shared), kind.to_owned(), number.to_owned());
        let (name, token) = (proof.name.clone(), proof.token.clone());
        let expected = format!("{token}.{}", proof.thumbprint);
        tokio::spawn(async move {
            let (plain, secure) = place(&shared).await;
            let found = match kind.as_str() {
                "http-01" => look::http(plain, &name, &token, &expected).await,
                _ => look::tls(secure, &name, &expected).await,
            };
            let mut books = shared.books.lock().expect("books");
            let found = match books.script.invalid.contains(&name) {
                true => Err(format!("DNS problem: NXDOMAIN looking up {name}")),
                false => found,
            };
            books.log.push(format!("looked at {name} by {kind}: {found:?}"));
            let proof = books.proofs.get_mut(&number).expect("known");
            proof.status = if found.is_ok() { "valid" } else { "invalid" };
            proof.error = found.err();
            books.settle();
        });
    }
    let object_of = proof_object(shared, number, &books.proofs[number]);
    let challenges = object_of["challenges"].as_array().cloned().unwrap_or_default();
    let one = challenges.into_iter().find(|one| one["type"] == kind);
    Ok(object(StatusCode::OK, &one.ok_or(Problem::new("malformed", "no challenge"))?))
}

/// Where to look, once it may. The test's end is the bound.
async fn place(shared: &Shared) -> (SocketAddr, SocketAddr) {
    loop {
        {
            let books = shared.books.lock().expect("books");
            if let (Some(places), false) = (books.places, books.script.looks_later) {
                return places;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn finalize(
    shared: &Shared,
    books: &mut Books,
    number: &str,
    account: &str,
    payload: &Value,
) -> Result<Answer, Problem> {
    let bad = |what: String| Problem::new("badCSR", what);
    let script = books.script.clone();
    let order = own(books, number, account)?;
    if order.status != "ready" {
        return Err(Problem::new("orderNotReady", order.status));
    }
    let csr = jws::decode(payload["csr"].as_str().unwrap_or_default()).map_err(bad)?;
    // Its signature, too.
    let mut csr = CertificateSigningRequestParams::from_der(&csr.into())
        .map_err(|error| bad(error.to_string()))?;
    let asked = |name: &String| {
        csr.params
            .subject_alt_names
            .iter()
            .any(|one| matches!(one, SanType::DnsName(n) if n.as_str() == name))
    };
    if !order.names.iter().all(asked) || csr.params.subject_alt_names.len() != order.names.len() {
        return Err(bad("other names".to_owned()));
    }
    order.status = "processing";
    let names = order.names.clone();
    let serial = format!("{number}s");
    order.certificate = Some(number.to_owned());
    if let Gives::OtherName = script.gives {
        csr.params.subject_alt_names =
            vec![SanType::DnsName("other.test".try_into().expect("a name"))];
    }
    let now = std::time::SystemTime::now();
    let (from, to) = match script.gives {
        Gives::Expired => (now - Duration::from_secs(7200), now - Duration::from_secs(3600)),
        _ => (now - Duration::from_secs(60), now + script.lifetime),
    };
    (csr.params.not_before, csr.params.not_after) = (from.into(), to.into());
    csr.params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    csr.params.use_authority_key_identifier_extension = true;
    let issuer = &shared.issuer;
    let pem = match script.gives {
        Gives::Garbage => "-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(),
        Gives::OtherKey => {
            let key = KeyPair::generate().expect("a key");
            csr.params.signed_by(&key, &issuer.issuer).expect("a certificate").pem()
        }
        _ => csr.signed_by(&issuer.issuer).expect("a certificate").pem(),
    };
    books.log.push(format!("certificate {}", names.join(",")));
    books.certificates.insert(number.to_owned(), format!("{pem}{}", issuer.pem));
    Ok(object(StatusCode::OK, &order_object(shared, books, number)))
}

impl Books {
    /// A name that nothing had before.
    pub(super) fn fresh(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{}", self.next)
    }

    /// Orders follow their proofs.
    fn settle(&mut self) {
        for order in self.orders.values_mut().filter(|order| order.status == "pending") {
            let mut proofs = order.proofs.iter().map(|number| self.proofs[number].status);
            if proofs.clone().any(|status| status == "invalid") {
                order.status = "invalid";
            } else if proofs.all(|status| status == "valid") {
                order.status = "ready";
            }
        }
    }
}

fn order_object(shared: &Shared, books: &Books, number: &str) -> Value {
    let order = &books.orders[number];
    let url = |kind: &str, number: &str| format!("{}/{kind}/{number}", shared.base);
    let names = order.names.iter().map(|name| json!({ "type": "dns", "value": name }));
    let proofs = order.proofs.iter().map(|proof| url("proofs", proof));
    let mut object = json!({
        "status": order.status,
        "identifiers": names.collect::<Vec<_>>(),
        "authorizations": proofs.collect::<Vec<_>>(),
        "finalize": url("finalize", number),
    });
    if let (Some(certificate), "valid") = (&order.certificate, order.status) {
        object["certificate"] = url("certificates", certificate).into();
    }
    if let Some(replaces) = &order.replaces {
        object["replaces"] = replaces.as_str().into();
    }
    object
}

fn proof_object(shared: &Shared, number: &str, proof: &Proof) -> Value {
    let challenge = |kind: &str| {
        let url = format!("{}/challenges/{kind}/{number}", shared.base);
        let mut one =
            json!({ "type": kind, "url": url, "token": proof.token, "status": proof.status });
        if let Some(error) = &proof.error {
            one["error"] =
                json!({ "type": "urn:ietf:params:acme:error:unauthorized", "detail": error });
        }
        one
    };
    json!({
        "status": proof.status,
        "identifier": { "type": "dns", "value": proof.name },
        "challenges": [challenge("dns-01"), challenge("http-01"), challenge("tls-alpn-01")],
    })
}

fn refused(books: &mut Books, Problem(kind, detail, again): Problem) -> Answer {
    if matches!(kind, "malformed" | "badCSR" | "orderNotReady") {
        books.faults.push(format!("{kind}: {detail}"));
    }
    let status = match kind {
        "rateLimited" => StatusCode::TOO_MANY_REQUESTS,
        "serverInternal" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let problem = json!({
        "type": format!("urn:ietf:params:acme:error:{kind}"),
        "detail": detail, "status": status.as_u16(),
    });
    let mut answer = object(status, &problem);
    let headers = answer.headers_mut();
    headers.insert("content-type", "application/problem+json".parse().expect("a value"));
    if let Some(seconds) = again {
        headers.insert("retry-after", seconds.into());
    }
    answer
}

fn object(status: StatusCode, object: &Value) -> Answer {
    let mut answer = Response::new(Full::new(object.to_string().into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    answer
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// So many seconds from now.
fn rfc3339(seconds: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    let time = i64::try_from(now.as_secs()).expect("a time") + seconds;
    let time = x509_parser::time::ASN1Time::from_timestamp(time).expect("a time").to_datetime();
    let (date, (hour, minute, second)) = (time.date(), time.to_hms());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
