//! gRPC through the proxy, by a library on both sides: every kind of call, how it ends, deadlines
//! and cancellations, what the proxy itself says to callers, and checks by the health service.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use mantra_macros::req_test;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Request, Status};
use underpass_tests::{
    Proxy, Refusing, eventually,
    grpc::{Begun, Call, GrpcClient, GrpcServer},
    within,
};

fn proxy(server: std::net::SocketAddr, lines: &str) -> Proxy {
    Proxy::config(format!(
        "workers = 1\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [listener.limits]\nresponse_timeout = \"30s\"\n\
         [[route]]\nlistener = \"web\"\npath_prefix = \"/test.Echo\"\nupstream = \"api\"\n\
         [[upstream]]\nname = \"api\"\nprotocol = \"http2\"\nservers = [\"{server}\"]\n{lines}\n"
    ))
    .start()
}

async fn client(proxy: &Proxy) -> GrpcClient {
    GrpcClient::connect(proxy.listener("web")).await
}

/// Answers each method in its way; tells `left` when a call is over for its client.
async fn server(left: mpsc::UnboundedSender<String>) -> GrpcServer {
    GrpcServer::start(move |call: Call| {
        let left = left.clone();
        async move { answer(call, left) }
    })
    .await
}

fn answer(call: Call, left: mpsc::UnboundedSender<String>) -> Begun {
    let Call { method, mut request, answers } = call;
    if method == "/test.Echo/Fail" {
        return Err(Status::not_found("no such thing: 100%"));
    }
    tokio::spawn(async move {
        let messages = request.get_mut();
        match method.as_str() {
            // One message each time one comes.
            "/test.Echo/Chat" => {
                while let Some(Ok(message)) = messages.next().await {
                    let _ = answers.send(Ok(message)).await;
                }
            }
            // One for all.
            "/test.Echo/Join" => {
                let mut all = Vec::new();
                while let Some(Ok(message)) = messages.next().await {
                    all.extend_from_slice(&message);
                }
                let _ = answers.send(Ok(all.into())).await;
            }
            // Many for one, and a status at the end.
            "/test.Echo/Count" => {
                messages.next().await;
                for n in 0..100 {
                    let _ = answers.send(Ok(Bytes::from(n.to_string()))).await;
                }
                let _ = answers.send(Err(Status::data_loss("that was all"))).await;
            }
            // One, and then nothing.
            "/test.Echo/Wait" => {
                let _ = answers.send(Ok(Bytes::from_static(b"begun"))).await;
                answers.closed().await;
            }
            _ => answers.closed().await,
        }
        let _ = left.send(method);
    });
    Ok(())
}

fn said(messages: &[&'static str]) -> Request<impl tokio_stream::Stream<Item = Bytes> + use<>> {
    let messages: Vec<_> =
        messages.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
    Request::new(tokio_stream::iter(messages))
}

#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn calls_of_every_kind_pass() {
    let (left, _) = mpsc::unbounded_channel();
    let server = server(left).await;
    let proxy = proxy(server.addr(), "");
    let mut client = client(&proxy).await;

    let one = client.unary("/test.Echo/Join", Request::new(Bytes::from_static(b"hello"))).await;
    assert_eq!(one.unwrap().into_inner(), "hello");

    // A message larger than a window and a frame.
    let large = Bytes::from(vec![b'x'; 3 << 20]);
    let one = client.unary("/test.Echo/Join", Request::new(large.clone())).await;
    assert_eq!(one.unwrap().into_inner(), large);

    let joined = client.call("/test.Echo/Join", said(&["a", "b", "c"])).await.unwrap();
    let joined: Vec<_> = joined.into_inner().map(Result::unwrap).collect().await;
    assert_eq!(joined, ["abc"]);

    let mut counted = client.call("/test.Echo/Count", said(&["go"])).await.unwrap().into_inner();
    for n in 0..100 {
        assert_eq!(counted.next().await.unwrap().unwrap(), n.to_string());
    }
    let status = counted.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "that was all"));

    let (sender, messages) = mpsc::channel(1);
    let request = Request::new(ReceiverStream::new(messages));
    let chat = client.call("/test.Echo/Chat", request);
    let mut chat = within(Duration::from_secs(10), "the head", chat).await.unwrap().into_inner();
    for n in 0..20 {
        sender.send(Bytes::from(n.to_string())).await.unwrap();
        assert_eq!(chat.next().await.unwrap().unwrap(), n.to_string());
    }
    drop(sender);
    assert!(chat.next().await.is_none());

    // An answer that is nothing but trailers.
    let failed = client.unary("/test.Echo/Fail", Request::new(Bytes::new())).await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::NotFound, "no such thing: 100%"));
}

#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_deadline_ends_the_call_here_and_at_the_server() {
    let (left, mut over) = mpsc::unbounded_channel();
    let server = server(left).await;
    let proxy = proxy(server.addr(), "");
    let mut client = client(&proxy).await;
    for (method, messages) in [("/test.Echo/Never", 0), ("/test.Echo/Wait", 1)] {
        let mut request = said(&[]);
        // As metadata: the library, which would end the call by itself, does not know of it.
        request.metadata_mut().insert("grpc-timeout", "2S".parse().unwrap());
        let answer = client.call(method, request).await;
        let status = match answer {
            Err(status) => status,
            Ok(answer) => {
                let mut answers = answer.into_inner();
                for _ in 0..messages {
                    assert_eq!(answers.next().await.unwrap().unwrap(), "begun");
                }
                answers.next().await.unwrap().unwrap_err()
            }
        };
        assert_eq!(status.code(), Code::DeadlineExceeded, "{method}: {status:?}");
        let ended = within(Duration::from_secs(10), "the server to be told", over.recv()).await;
        assert_eq!(ended.as_deref(), Some(method));
    }
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("underpass_errors_total", &[("kind", "deadline_exceeded")]), 2.0);
}

#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_caller_that_leaves_ends_the_call_at_the_server() {
    let (left, mut over) = mpsc::unbounded_channel();
    let server = server(left).await;
    let proxy = proxy(server.addr(), "");
    let mut client = client(&proxy).await;
    let mut answers = client.call("/test.Echo/Wait", said(&[])).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap(), "begun");
    drop(answers);
    let ended = within(Duration::from_secs(10), "the server to be told", over.recv()).await;
    assert_eq!(ended.as_deref(), Some("/test.Echo/Wait"));
    // Other calls go on over the same connection.
    let one = client.unary("/test.Echo/Join", Request::new(Bytes::from_static(b"on"))).await;
    assert_eq!(one.unwrap().into_inner(), "on");
}

/// What goes wrong at the proxy has a status, not a page of HTML that callers cannot read.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn the_proxy_speaks_of_its_own_errors_as_grpc_does() {
    let gone = Refusing::bind();
    let proxy = proxy(gone.addr(), "");
    let mut client = client(&proxy).await;
    for (method, code, message) in [
        ("/test.Echo/Join", Code::Unavailable, "502 Bad Gateway"),
        ("/other.Service/Method", Code::Unimplemented, "404 Not Found"),
    ] {
        let failed = client.unary(method, Request::new(Bytes::new())).await.unwrap_err();
        assert_eq!((failed.code(), failed.message()), (code, message), "{failed:?}");
        assert_eq!(failed.metadata().get("content-type").unwrap(), "application/grpc");
    }
    // Others are told in HTTP.
    let mut plain =
        underpass_tests::HttpClient::connect(proxy.listener("web"), underpass_tests::Version::H2)
            .await;
    assert_eq!(plain.get("/test.Echo/Join").await.status(), 502);
}

/// In the middle of an answer there are still trailers to say it in.
#[req_test("REQ-EDGE-005")]
#[tokio::test]
async fn a_server_that_breaks_off_is_unavailable() {
    let origin = underpass_tests::h2_origin::H2Origin::bind().await;
    let proxy = proxy(origin.addr(), "");
    let mut client = client(&proxy).await;
    let called = client.call("/test.Echo/Wait", said(&[]));
    let scripted = async {
        let mut peer = origin.accept().await;
        let mut stream = peer.next().await;
        let head = http::Response::builder().header("content-type", "application/grpc");
        let mut body = stream.begin(head.body(()).unwrap());
        body.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, b'h', b'i']), false).unwrap();
        (peer, body, stream)
    };
    let (answers, (peer, _body, _stream)) = tokio::join!(called, scripted);
    let mut answers = answers.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap(), "hi");
    peer.cut();
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

/// 1: it serves; 2: it does not.
#[req_test("REQ-EDGE-003")]
#[tokio::test]
async fn servers_are_checked_by_the_health_service() {
    let serving = Arc::new(AtomicU8::new(2));
    let asked = Arc::clone(&serving);
    let server = GrpcServer::start(move |mut call: Call| {
        let status = asked.load(SeqCst);
        async move {
            let name = call.request.get_mut().next().await.unwrap().unwrap();
            if call.method != "/grpc.health.v1.Health/Check" || name[..] != *b"\x0a\x09test.Echo" {
                return Err(Status::unimplemented("no such service"));
            }
            call.answers.send(Ok(Bytes::copy_from_slice(&[8, status]))).await.unwrap();
            Ok(())
        }
    })
    .await;
    let lines = "[upstream.health]\ntype = \"grpc\"\nservice = \"test.Echo\"\n\
                 interval = \"50ms\"\nrise = 1\nfall = 1\n";
    let proxy = proxy(server.addr(), lines);
    // Something has to be known first.
    eventually("the first check", async || {
        proxy.ask_admin("GET", "/upstreams").await.text().contains("serving status 2")
    })
    .await;
    for status in [1, 2, 1] {
        serving.store(status, SeqCst);
        eventually("the server's health to be seen", async || {
            let upstreams = proxy.ask_admin("GET", "/upstreams").await.text();
            upstreams.contains("serving status 2") == (status == 2)
                && upstreams.contains("\"passed\"")
        })
        .await;
    }
}
