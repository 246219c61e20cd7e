//! What the origin is told about the client: X-Forwarded-*, Forwarded (RFC 7239), Via
//! (RFC 9110 7.6.3), Host.

use mantra_macros::req_test;
use underpass_tests::{Head, HttpClient, Proxy, Served, Version, over_versions};

over_versions!(the_origin_learns_who_asked);

/// What a client sends that wants to be somebody else.
const CLAIMS: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
                      X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6;proto=https\r\n";

fn config(origin: &Served, listener: &str, upstream: &str) -> String {
    format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n{upstream}\n",
        origin.addr()
    )
}

async fn head_with(listener: &str, upstream: &str, fields: &str) -> Head {
    let origin = Served::ok().await;
    let proxy = Proxy::config(config(&origin, listener, upstream)).start();
    let request = format!("GET / HTTP/1.1\r\nHost: public.example\r\n{fields}\r\n");
    proxy.open(request).await.expect_status(200).await;
    origin.only().head
}

/// The elements of Forwarded, parameters lower case and in order of name.
fn forwarded(head: &Head) -> Vec<Vec<String>> {
    let elements = head.all("forwarded").join(",");
    let element = |text: &str| {
        let mut pairs: Vec<_> = text.split(';').map(|p| p.trim().to_ascii_lowercase()).collect();
        pairs.sort();
        pairs
    };
    elements.split(',').map(element).collect()
}

#[req_test("REQ-EDGE-004")]
async fn the_origin_learns_who_asked(version: Version) {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), version).await;
    assert_eq!(client.get("/").await.status(), 200);
    let head = origin.only().head;
    let host = proxy.addr().to_string();
    assert_eq!(head.all("host"), [host.as_str()]);
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(head.all("x-forwarded-host"), [host.as_str()]);
    let elements = forwarded(&head);
    assert_eq!(elements.len(), 1, "{elements:?}");
    assert!(elements[0].contains(&"for=127.0.0.1".to_owned()), "{elements:?}");
    assert!(elements[0].contains(&"proto=http".to_owned()), "{elements:?}");
    // A host with a port has to be quoted (RFC 7239 4).
    assert!(elements[0].contains(&format!("host=\"{host}\"")), "{elements:?}");
}

/// The edge believes nobody.
#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn claims_of_the_client_are_replaced_by_default() {
    for listener in ["", "forwarded = \"replace\""] {
        let head = head_with(listener, "", CLAIMS).await;
        assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(head.all("x-forwarded-proto"), ["http"]);
        assert_eq!(head.all("x-forwarded-host"), ["public.example"]);
        assert!(!head.all("forwarded").join(",").contains("6.6.6.6"), "{head:?}");
    }
}

/// CGI and its heirs would take these for ours.
#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn claims_by_other_names_are_replaced_as_well() {
    let claims = "X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Proto: https\r\nX_Forwarded_Host: evil\r\n\
                  X_Real_IP: 6.6.6.6\r\nX_Own: 1\r\n";
    let head = head_with("", "", claims).await;
    for name in ["x_forwarded_for", "x-forwarded_proto", "x_forwarded_host", "x_real_ip"] {
        assert!(!head.has(name), "{name}: {head:?}");
    }
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(head.all("x_own"), ["1"]);
}

/// Nor does what a client left open take in what we say.
#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn our_hop_is_read_by_itself_whatever_came() {
    let claims = "X-Forwarded-For: \"\r\nForwarded: for=6.6.6.6;x=\"\r\n";
    let head = head_with("forwarded = \"append\"", "", claims).await;
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    let elements = forwarded(&head);
    assert_eq!(elements.len(), 1, "{elements:?}");
    assert!(elements[0].contains(&"for=127.0.0.1".to_owned()), "{elements:?}");
}

#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn our_hop_is_appended_where_the_one_before_is_trusted() {
    let head = head_with("forwarded = \"append\"", "", CLAIMS).await;
    let all = head.all("x-forwarded-for").join(", ");
    assert_eq!(all, "6.6.6.6, 127.0.0.1");
    assert_eq!(head.all("x-forwarded-proto"), ["https"]);
    assert_eq!(head.all("x-forwarded-host"), ["evil"]);
    let elements = forwarded(&head);
    assert_eq!(elements.len(), 2, "{elements:?}");
    assert!(elements[0].contains(&"for=6.6.6.6".to_owned()), "{elements:?}");
    assert!(elements[1].contains(&"for=127.0.0.1".to_owned()), "{elements:?}");
}

#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn nothing_is_touched_where_it_is_switched_off() {
    let head = head_with("forwarded = \"off\"", "", CLAIMS).await;
    assert_eq!(head.all("x-forwarded-for"), ["6.6.6.6"]);
    assert_eq!(head.all("forwarded"), ["for=6.6.6.6;proto=https"]);
    let head = head_with("forwarded = \"off\"", "", "").await;
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"] {
        assert!(!head.has(name), "{name}: {head:?}");
    }
}

#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn via_names_every_hop() {
    let head = head_with("", "", "Via: 1.0 fred, 1.1 p.example\r\n").await;
    let via = head.all("via").join(", ");
    let hops: Vec<_> = via.split(", ").collect();
    assert_eq!(hops[..2], ["1.0 fred", "1.1 p.example"]);
    assert_eq!(hops.len(), 3, "{via}");
    assert!(hops[2].starts_with("1.1 "), "{via}");

    let origin = Served::always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 x\r\n\r\n").await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H2).await;
    assert_eq!(client.get("/").await.status(), 200);
    // The version in Via is the one the message was received with.
    assert!(origin.only().head.all("via").join(",").starts_with("2"), "{:?}", origin.only().head);
}

#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn host_is_the_clients_or_the_servers_by_policy() {
    for upstream in ["", "host = \"preserve\""] {
        assert_eq!(head_with("", upstream, "").await.all("host"), ["public.example"]);
    }
    let origin = Served::ok().await;
    let proxy = Proxy::config(config(&origin, "", "host = \"server\"")).start();
    let request = "GET / HTTP/1.1\r\nHost: public.example\r\n\r\n";
    proxy.open(request).await.expect_status(200).await;
    let head = origin.only().head;
    assert_eq!(head.all("host"), [origin.addr().to_string()]);
    assert_eq!(head.all("x-forwarded-host"), ["public.example"]);
}

/// A Connection field must not take away what tells the origin who asked.
#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn forwarding_fields_cannot_be_stripped_by_connection() {
    let origin = Served::ok().await;
    let proxy = Proxy::reverse(origin.addr()).start();
    let request = "GET / HTTP/1.1\r\nHost: test\r\nConnection: x-forwarded-for\r\n\
                   X-Forwarded-For: 6.6.6.6\r\n\r\n";
    let mut client = proxy.open(request).await;
    let status = client.read_response().await.status();
    if status == 200 {
        assert_eq!(origin.only().head.all("x-forwarded-for"), ["127.0.0.1"]);
    } else {
        assert_eq!((status, origin.seen().len()), (400, 0));
    }
}
