//! Heads, bodies and trailers, both ways.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response};
use mantra_macros::req_test;
use underpass_tests::{
    HttpClient, Origin, OutBody, Proxy, Version, Wire, client::collect, h2_origin::H2Origin,
    over_versions,
};

use super::{client, proxy};

over_versions!(messages_arrive_whole_with_their_trailers);
over_versions!(chunks_pass_one_by_one_in_both_directions_at_once);

#[req_test("REQ-EDGE-005")]
async fn messages_arrive_whole_with_their_trailers(version: Version) {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut client = client(&proxy, version).await;
    let (sender, body) = OutBody::pieces();
    let request = client.request(Method::POST, "/a/b?c=d").header("x-this", "passes");
    // hyper sends over HTTP/1 only those that are announced.
    let mut request = request.header("trailer", "x-sum");
    if version == Version::H1 {
        request = request.header("connection", "x-hop, te").header("x-hop", "1");
    }
    let answer = client.send(request.header("te", "trailers").body(body).unwrap());
    let scripted = async {
        let mut stream = origin.accept().await.next().await;
        sender.send("hello ").await;
        sender.send("world").await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("11"));
        sender.trailers(trailers).await;
        let head = stream.request.headers().clone();
        let uri = stream.request.uri().clone();
        assert_eq!(uri.to_string(), format!("http://{}/a/b?c=d", proxy.listener("web")));
        assert_eq!(
            (stream.request.method(), head["x-this"].as_bytes()),
            (&Method::POST, &b"passes"[..])
        );
        assert_eq!(head["te"], "trailers");
        assert!(head.contains_key("x-forwarded-for") && head.contains_key("via"));
        for name in ["host", "connection", "x-hop", "transfer-encoding", "upgrade"] {
            assert!(!head.contains_key(name), "{name} in {head:?}");
        }
        let (content, trailers) = stream.body().await.unwrap();
        assert_eq!(content, b"hello world");
        assert_eq!(trailers.expect("trailers")["x-sum"], "11");
        let mut body = stream.begin(Response::builder().status(201).body(()).unwrap());
        body.send_data(Bytes::from_static(b"made"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-state", HeaderValue::from_static("good"));
        // Belongs in a head (RFC 9110 section 6.5.1).
        trailers.insert("set-cookie", HeaderValue::from_static("a=b"));
        body.send_trailers(trailers).unwrap();
    };
    let (answer, ()) = tokio::join!(answer, scripted);
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["via"], "2.0 underpass");
    let (content, trailers) = collect(answer.into_body()).await.unwrap();
    assert_eq!(content, b"made");
    let trailers = trailers.expect("trailers");
    assert_eq!(trailers["x-state"], "good");
    assert!(!trailers.contains_key("set-cookie"), "{trailers:?}");
}

/// `http://host?query` has no path, and `:path` must have one (RFC 9113 section 8.3.1).
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_target_without_a_path_gets_one() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let host = proxy.listener("web");
    let request = format!("GET http://{host}?q=1 HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut client = Wire::open(host, &request).await;
    let mut stream = origin.accept().await.next().await;
    // Not by `Display`, which would add a slash that did not come.
    assert_eq!(stream.request.uri().path_and_query().unwrap().as_str(), "/?q=1");
    stream.begin(Response::new(())).send_data(Bytes::new(), true).unwrap();
    client.expect_status(200).await;
}

#[req_test("REQ-EDGE-005")]
async fn chunks_pass_one_by_one_in_both_directions_at_once(version: Version) {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut client = client(&proxy, version).await;
    let (sender, body) = OutBody::pieces();
    let answer = client.send(client.request(Method::POST, "/").body(body).unwrap());
    let accepting = async {
        let mut stream = origin.accept().await.next().await;
        let body = stream.begin(Response::new(()));
        (stream, body)
    };
    let (answer, (mut stream, mut to_client)) = tokio::join!(answer, accepting);
    let mut from_server = answer.unwrap().into_body();
    for n in 0..20 {
        let piece = format!("piece {n}");
        sender.send(piece.clone()).await;
        let got = stream.request.body_mut().data().await.unwrap().unwrap();
        assert_eq!(got, piece);
        to_client.send_data(got, false).unwrap();
        underpass_tests::bytes_from(&mut from_server, &piece).await;
    }
    drop(sender);
    let (rest, _) = stream.body().await.unwrap();
    assert!(rest.is_empty());
    to_client.send_data(Bytes::new(), true).unwrap();
    assert_eq!(collect(from_server).await.unwrap().0, b"");
}

/// Answers without a body are such over every version, with the length that they tell of.
#[tokio::test]
async fn answers_without_a_body_have_none() {
    let served = H2Origin::bind().await.serve(Default::default(), |mut stream| async move {
        let status = if stream.path() == "/304" { 304 } else { 200 };
        let head = Response::builder().status(status).header("content-length", "7");
        let head = head.body(()).unwrap();
        if stream.request.method() == Method::GET && status == 200 {
            let mut body = stream.begin(head);
            body.send_data(Bytes::from_static(b"content"), true).unwrap();
        } else {
            stream.end(head);
        }
    });
    let proxy = proxy(served.addr(), "");
    for version in [Version::H1, Version::H2] {
        let mut client = client(&proxy, version).await;
        for (method, path, content) in
            [(Method::HEAD, "/", ""), (Method::GET, "/304", ""), (Method::GET, "/", "content")]
        {
            let request = client.request(method.clone(), path).body(OutBody::Empty).unwrap();
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.headers()["content-length"], "7", "{version:?} {method} {path}");
            assert_eq!(collect(answer.into_body()).await.unwrap().0, content.as_bytes());
        }
    }
    assert_eq!(served.connections(), 1);
}

/// hyper does not tell of 100 (Continue) over HTTP/2, so nobody waits for it.
#[tokio::test]
async fn an_expectation_is_met_by_the_proxy() {
    let served = H2Origin::bind().await.serve(Default::default(), |mut stream| async move {
        assert!(!stream.request.headers().contains_key("expect"));
        let (content, _) = stream.body().await.unwrap();
        assert_eq!(content, b"hello");
        stream.ok("ok");
    });
    let proxy = proxy(served.addr(), "");
    let head = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut wire = underpass_tests::Wire::open(proxy.listener("web"), head).await;
    assert_eq!(wire.read_head().await.status(), 100);
    wire.send("hello").await;
    assert_eq!(wire.read_response().await.text(), "ok");
}

/// What no HTTP/1 server may answer no HTTP/2 server may.
#[tokio::test]
async fn answers_with_two_readings_are_refused() {
    let served = H2Origin::bind().await.serve(Default::default(), |mut stream| async move {
        let head = match stream.path() {
            "/two" => {
                Response::builder().header("content-length", "2").header("content-length", "2")
            }
            "/many" => (0..200).fold(Response::builder(), |head, n| head.header("x", n)),
            "/large" => Response::builder().header("x", "y".repeat(100_000)),
            path => panic!("{path}"),
        };
        let mut body = stream.begin(head.body(()).unwrap());
        let _ = body.send_data(Bytes::from_static(b"ok"), true);
    });
    let proxy = proxy(served.addr(), "");
    for path in ["/two", "/many", "/large"] {
        let mut client = client(&proxy, Version::H1).await;
        assert_eq!(client.get(path).await.status(), 502, "{path}");
    }
}

#[tokio::test]
async fn an_upgrade_is_refused_with_the_reason() {
    let origin = H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let request = "GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let mut wire = underpass_tests::Wire::open(proxy.listener("web"), request).await;
    let answer = wire.read_response().await;
    assert_eq!(answer.status(), 501);
    assert!(answer.text().contains("HTTP/2"), "{}", answer.text());
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_a_bad_gateway() {
    let origin = Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut client = client(&proxy, Version::H1).await;
    let answering = async {
        let mut wires = Vec::new();
        // It may be asked again, where it has answered before it was asked.
        loop {
            let mut wire = origin.accept().await;
            wire.send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
            wires.push(wire);
        }
    };
    let answer = tokio::select! {
        answer = client.get("/") => answer,
        () = answering => unreachable!(),
    };
    assert_eq!(answer.status(), 502);
}

#[tokio::test]
async fn the_quick_command_speaks_it_to_h2c_urls() {
    let served = H2Origin::bind()
        .await
        .serve(Default::default(), |mut stream| async move { stream.ok("over HTTP/2") });
    let to = format!("h2c://{}", served.addr());
    let proxy = Proxy::command(&["reverse", "--listen", "127.0.0.1:0", "--to", &to], 1).start();
    let mut client = HttpClient::connect(proxy.addr(), Version::H1).await;
    let (content, _) = collect(client.get("/").await.into_body()).await.unwrap();
    assert_eq!(content, b"over HTTP/2");
}

/// A server that speaks nothing else cannot be checked over anything else.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn checks_speak_it_too() {
    let served = H2Origin::bind().await.serve(Default::default(), |mut stream| async move {
        match stream.path() {
            "/health" => stream.ok("all is well"),
            _ => stream.end(Response::builder().status(500).body(()).unwrap()),
        }
    });
    for (path, wanted) in [("/health", "\"passed\":1"), ("/other", "status 500")] {
        let lines = format!("[upstream.health]\npath = \"{path}\"\ncontains = \"well\"\n");
        let proxy = proxy(served.addr(), &lines);
        underpass_tests::eventually("the first check", async || {
            let text = proxy.ask_admin("GET", "/upstreams").await.text();
            let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            json.to_string().contains(wanted)
        })
        .await;
    }
}
