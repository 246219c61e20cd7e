//! Who is let in, how often, and how many at once. Who is not reaches no server.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mantra_macros::req_test;
use serde_json::json;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Served, Version, collect, eventually, proxy::scratch,
};

use super::{config, with};

/// `ada:s3cret`
const ADA: &str = "Basic YWRhOnMzY3JldA==";

async fn status_with(proxy: &Proxy, fields: &str) -> u16 {
    let mut client = proxy.open(format!("GET / HTTP/1.1\r\nHost: t\r\n{fields}\r\n")).await;
    client.read_response().await.status()
}

#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn addresses_are_let_in_or_not() {
    let served = Served::ok().await;
    for (definition, status) in [
        ("access = { allow = [\"127.0.0.0/8\"] }", 200),
        ("access = { allow = [\"10.0.0.0/8\"] }", 403),
        ("access = { deny = [\"127.0.0.1\"] }", 403),
        ("access = { allow = [\"127.0.0.0/8\"], deny = [\"127.0.0.1\"] }", 403),
        ("access = { deny = [\"10.0.0.0/8\"] }", 200),
    ] {
        let before = served.targets().len();
        let proxy = with(&served, &[("m", definition)]).start();
        assert_eq!(status_with(&proxy, "").await, status, "{definition}");
        assert_eq!(served.targets().len() - before, usize::from(status == 200));
    }
}

#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn users_are_asked_for_their_password() {
    let served = Served::ok().await;
    let definition = "basic_auth = { users = [\"ada:s3cret\"], realm = \"the office\", \
                      user_header = \"x-user\", remove = true }";
    let proxy = with(&served, &[("m", definition)]).start();
    let mut client = proxy.open("GET /a HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let answer = client.read_response().await;
    assert_eq!(answer.status(), 401);
    let challenge = answer.head.get("www-authenticate").unwrap();
    assert!(challenge.contains("realm=\"the office\""), "{challenge}");
    // The connection goes on, and what the client says of itself is not believed.
    let fields = format!("Authorization: {ADA}\r\nX-User: root\r\n");
    client.send(format!("GET /b HTTP/1.1\r\nHost: t\r\n{fields}\r\n")).await;
    assert_eq!(client.read_response().await.status(), 200);
    assert_eq!(served.targets(), ["/b"]);
    let seen = served.only();
    assert_eq!(seen.head.all("x-user"), ["ada"]);
    assert!(!seen.head.has("authorization"));
    assert_eq!(status_with(&proxy, "Authorization: Basic YWRhOnMzY3JldA=a\r\n").await, 401);
    proxy.log_line(&["status=401", "error=unauthorized"]).await;
}

/// A password that is kept as a hash takes long to check, and no other request waits for that.
#[tokio::test]
async fn hashed_passwords_hold_up_nobody() {
    let served = Served::ok().await;
    let hash = bcrypt::hash("s3cret", 12).unwrap();
    let file = scratch("users");
    std::fs::write(&file, format!("# by htpasswd\nada:{hash}\n")).unwrap();
    let users = format!("basic_auth = {{ users_file = \"{}\" }}", file.display());
    let open = "[[route]]\npath_prefix = \"/open\"\nupstream = \"api\"\n";
    let text = config(&served, &[("m", &users)]).replace("workers = 2", "workers = 1");
    let proxy = Proxy::config(text + open).start();
    std::fs::remove_file(file).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: t\r\nAuthorization: {ADA}\r\n\r\n");
    let mut slow = proxy.open(request).await;
    // The only worker serves others meanwhile: their answers come first.
    let mut quick = proxy.open("GET /open HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(quick.read_response().await.status(), 200);
    assert_eq!(served.targets()[0], "/open");
    assert_eq!(slow.read_response().await.status(), 200);
    assert_eq!(status_with(&proxy, &format!("Authorization: {ADA}\r\n")).await, 200);
    assert_eq!(status_with(&proxy, "Authorization: Basic YWRhOndyb25n\r\n").await, 401);
}

/// Users with ada's password as a hash that takes long to check, and the file that has them.
fn slowly() -> (PathBuf, String) {
    let file = scratch("users");
    std::fs::write(&file, format!("ada:{}\n", bcrypt::hash("s3cret", 12).unwrap())).unwrap();
    let users = format!("basic_auth = {{ users_file = \"{}\" }}", file.display());
    (file, users)
}

/// `ada:wrong`
const WRONG: &str = "GET / HTTP/1.1\r\nHost: t\r\nAuthorization: Basic YWRhOndyb25n\r\n\r\n";

/// The server has its whole time to answer, however long the check of a password took.
#[tokio::test]
async fn no_server_pays_for_the_check_of_a_password() {
    let served = Served::ok().await;
    let (file, users) = slowly();
    let limits = "workers = 1\n[limits]\nresponse_timeout = \"1s\"\n";
    let text = config(&served, &[("m", &users)]).replace("workers = 2\n", limits);
    let proxy = Proxy::config(text).start();
    std::fs::remove_file(file).unwrap();
    // Two are checked at once, so that the last has waited for longer than that.
    let mut before = Vec::new();
    for _ in 0..10 {
        before.push(proxy.open(WRONG).await);
    }
    assert_eq!(status_with(&proxy, &format!("Authorization: {ADA}\r\n")).await, 200);
    assert_eq!(served.targets(), ["/"]);
    for mut client in before {
        client.expect_status(401).await;
    }
}

/// Whoever sends wrong passwords does not have the others wait for ever.
#[tokio::test]
async fn no_more_passwords_wait_for_their_check_than_may() {
    let served = Served::ok().await;
    let (file, users) = slowly();
    let text = config(&served, &[("m", &users)]).replace("workers = 2", "workers = 1");
    let proxy = Proxy::config(text).start();
    std::fs::remove_file(file).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..50 {
        waiting.push(proxy.open(WRONG).await);
    }
    let answer = waiting.pop().unwrap().expect_status(503).await;
    assert!(answer.head.has("retry-after"));
    proxy.log_line(&["status=503", "error=too_many_at_once"]).await;
    // Whoever leaves makes room.
    waiting.into_iter().for_each(|client| client.reset());
    eventually("room for another", async || {
        status_with(&proxy, &format!("Authorization: {ADA}\r\n")).await == 200
    })
    .await;
    assert_eq!(served.targets(), ["/"]);
}

#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn more_than_the_rate_is_told_when_to_come_again() {
    let served = Served::ok().await;
    let definition = "rate_limit = { requests = 2, per = \"1h\", key = \"header:x-key\" }";
    let proxy = with(&served, &[("m", definition)]).start();
    for (key, statuses) in [("a", [200, 200, 429, 429]), ("b", [200, 200, 429, 429])] {
        for status in statuses {
            // Each over a connection of its own: all workers count together.
            assert_eq!(status_with(&proxy, &format!("X-Key: {key}\r\n")).await, status, "{key}");
        }
    }
    let mut client = proxy.open("GET / HTTP/1.1\r\nHost: t\r\nX-Key: a\r\n\r\n").await;
    let answer = client.read_response().await;
    let after: u64 = answer.head.get("retry-after").unwrap().parse().unwrap();
    assert!((1700..=1800).contains(&after), "{after}");
    assert_eq!(served.targets().len(), 4);
    proxy.log_line(&["status=429", "error=rate_limited"]).await;
}

#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn no_more_are_under_way_than_are_allowed() {
    let origin = Origin::bind().await;
    let config = format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nmiddleware = [\"m\"]\n\
         [[upstream]]\nname = \"api\"\nservers = [\"{}\"]\n[[route]]\nupstream = \"api\"\n\
         [[middleware]]\nname = \"m\"\nconcurrency = {{ max = 2 }}\n",
        origin.addr()
    );
    let proxy = Proxy::config(config).start();
    let mut open = Vec::new();
    for _ in 0..2 {
        let client = proxy.open("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await;
        let mut server = origin.accept().await;
        server.read_head().await;
        open.push((client, server));
    }
    let mut third = proxy.open("GET / HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let answer = third.read_response().await;
    assert_eq!(answer.status(), 503);
    assert!(answer.head.has("retry-after"));
    // One leaves in the middle, one gets its answer: both places are free again.
    let (client, mut server) = open.pop().unwrap();
    client.reset();
    server.expect_end().await;
    let (mut client, mut server) = open.pop().unwrap();
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.read_response().await.status(), 204);
    // Over the connection that was kept, and over a new one.
    let _fourth = proxy.open("GET /4 HTTP/1.1\r\nHost: t\r\n\r\n").await;
    server.read_head().await;
    let _fifth = proxy.open("GET /5 HTTP/1.1\r\nHost: t\r\n\r\n").await;
    let mut server = origin.accept().await;
    server.read_head().await;
    third.send("GET /6 HTTP/1.1\r\nHost: t\r\n\r\n").await;
    assert_eq!(third.read_response().await.status(), 503);
}

/// A file with the key that [`token`] signs with, as middlewares read it.
pub(crate) fn token_keys() -> PathBuf {
    let keys = scratch("json");
    let public = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": public }] });
    std::fs::write(&keys, set.to_string()).unwrap();
    keys
}

/// Claims of this user as a signed token, for so many seconds.
pub(crate) fn token(user: &str, expires: i64) -> String {
    // RFC 8037, appendix A.1, behind the head of PKCS #8 (RFC 8410 section 7).
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let secret = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let key = EncodingKey::from_ed_der(&[&head[..], &secret].concat());
    let now = i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap();
    let claims = json!({ "iss": "https://id.test", "sub": user, "exp": now + expires });
    jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap()
}

#[req_test("REQ-CTRL-006")]
#[tokio::test]
async fn tokens_are_checked_over_both_versions() {
    let served = Served::ok().await;
    let keys = token_keys();
    let definition = format!(
        "jwt = {{ keys_file = \"{}\", issuer = [\"https://id.test\"], \
         claims = {{ x-user = \"sub\" }} }}",
        keys.display()
    );
    let proxy = with(&served, &[("m", &definition)]).start();
    std::fs::remove_file(keys).unwrap();
    for version in [Version::H1, Version::H2] {
        let mut client = HttpClient::connect(proxy.addr(), version).await;
        for (given, status, challenge) in [
            (None, 401, Some("Bearer")),
            (Some(token("ada", 60)), 200, None),
            (Some(token("ada", -60)), 401, Some("Bearer error=\"invalid_token\", ")),
            (Some("rubbish".to_owned()), 401, Some("Bearer error=\"invalid_token\"")),
        ] {
            let mut request = client.request(Method::GET, "/").header("x-user", "root");
            if let Some(token) = &given {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let answer = client.send(request.body(OutBody::Empty).unwrap()).await.unwrap();
            assert_eq!(answer.status(), status, "{version:?} {given:?}");
            let told = answer.headers().get("www-authenticate").map(|it| it.to_str().unwrap());
            match challenge {
                None => assert_eq!(told, None),
                Some(begin) => assert!(told.unwrap().starts_with(begin), "{told:?}"),
            }
            collect(answer.into_body()).await.unwrap();
        }
    }
    let seen = served.seen();
    assert_eq!(seen.len(), 2, "those without a good token reach no server");
    assert!(seen.iter().all(|seen| seen.message.head.all("x-user") == ["ada"]));
}
