//! gRPC by its own library in C, as Python has it.

use mantra_macros::req_test;
use tokio_stream::StreamExt;
use tonic::Status;
use underpass_tests::{
    grpc::{Call, GrpcServer},
    models::python,
};

use super::{Site, has_package, run};

/// Bytes as messages, so that nothing has to be generated.
const SCRIPT: &str = r#"
import sys, grpc
target, ca = sys.argv[1], open(sys.argv[2], "rb").read()
with grpc.secure_channel(target, grpc.ssl_channel_credentials(ca)) as channel:
    unary = channel.unary_unary("/test.Echo/Unary")
    for n in range(50):
        assert unary(b"%d" % n, timeout=20) == b"%d" % n
    big = bytes(range(256)) * 4096
    assert unary(big, timeout=20) == big
    futures = [unary.future(b"at once %d" % n, timeout=20) for n in range(100)]
    assert [f.result() for f in futures] == [b"at once %d" % n for n in range(100)]
    down = channel.unary_stream("/test.Echo/Chat")
    assert list(down(b"one", timeout=20)) == [b"one"]
    chat = channel.stream_stream("/test.Echo/Chat")
    assert list(chat(iter([b"a", b"b", b"", b"c"]), timeout=20)) == [b"a", b"b", b"", b"c"]
    # Each message is answered before the next is sent.
    import queue
    asks = queue.Queue()
    answers = chat(iter(asks.get, None), timeout=20)
    for n in range(20):
        asks.put(b"ping %d" % n)
        assert next(answers) == b"ping %d" % n
    asks.put(None)
    assert list(answers) == []
    try:
        channel.unary_unary("/test.Echo/Fail")(b"", timeout=20)
        raise SystemExit("no error")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        assert error.details() == "no such thing: 100%", error
    waits = channel.unary_unary("/test.Echo/Never")
    try:
        waits(b"", timeout=0.5)
        raise SystemExit("no deadline")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    cancelled = waits.future(b"")
    cancelled.cancel()
    assert unary(b"still there", timeout=20) == b"still there"
print("done", end="")
"#;

#[req_test("REQ-EDGE-005", "REQ-EDGE-006")]
#[tokio::test]
async fn calls_of_every_kind_pass() {
    if !has_package("grpc").await {
        return;
    }
    let server = GrpcServer::start(|call: Call| async move {
        let Call { method, mut request, answers } = call;
        if method == "/test.Echo/Fail" {
            return Err(Status::not_found("no such thing: 100%"));
        }
        let held = answers.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = request.get_mut().next().await {
                if method != "/test.Echo/Never" && answers.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            if method == "/test.Echo/Never" {
                held.closed().await;
            }
        });
        Ok(())
    })
    .await;
    let site = Site::new(server.addr(), "http2", "");
    let (target, ca) = (format!("localhost:{}", site.port()), site.ca());
    let called = run(&python(), &["-c", SCRIPT, &target, &ca]).await;
    let said = String::from_utf8_lossy(&called.stderr);
    assert_eq!(String::from_utf8_lossy(&called.stdout), "done", "{said}");
}
