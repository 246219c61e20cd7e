//! CONNECT on an HTTP/2 stream (RFC 9113 8.5): a real hyper server and client around the tunnel.

use std::{cell::RefCell, convert::Infallible, rc::Rc, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::{JoinHandle, spawn_local},
};

use crate::{
    config::SpliceMode,
    splice::{Engine, Ktls, Why, socket::unacknowledged},
    tunnel::{Downstream, End, Handover, Outcome, Registry, Settings, h2, run},
    watchdog::Watchdog,
};

use super::support::*;

over_every_engine! {
    an_h2_stream_is_copied_byte_for_byte,
    an_h2_client_that_is_gone_is_a_reset,
    an_h2_stream_that_is_cancelled_is_a_reset,
    a_server_reset_reaches_an_h2_client_behind_the_bytes,
}

struct Rig {
    client: TokioIo<Upgraded>,
    connection: JoinHandle<()>,
    /// The connection lives as long as somebody may send a request on it.
    _requests: hyper::client::conn::http2::SendRequest<Empty<Bytes>>,
    server: TcpStream,
    registry: Registry,
    outcome: oneshot::Receiver<Outcome>,
    /// What came from the proxy.
    seen: Rc<RefCell<Vec<u8>>>,
    _watchdog: Rc<Watchdog>,
}

async fn connect(mode: SpliceMode) -> Rig {
    let (mut client, downstream) = pair(Buffers::default()).await;
    let (upstream, server) = pair(Buffers::default()).await;
    let address = client.local_addr().unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let seen_by_task = seen.clone();
    spawn_local(async move {
        let (mut from_proxy, mut to_proxy) = client.split();
        let (mut from_client, mut to_client) = tokio::io::split(far);
        let up = async {
            let _ = tokio::io::copy(&mut from_client, &mut to_proxy).await;
            let _ = to_proxy.shutdown().await;
        };
        let down = async {
            let mut room = [0; 4096];
            while let Ok(n @ 1..) = from_proxy.read(&mut room).await {
                seen_by_task.borrow_mut().extend_from_slice(&room[..n]);
                if to_client.write_all(&room[..n]).await.is_err() {
                    break;
                }
            }
        };
        tokio::join!(up, down);
    });
    let registry = Registry::new();
    let ticket = registry.open(info(address));
    let watchdog = watchdog(Duration::MAX);
    let watch = watchdog.watch();
    let (report, outcome) = oneshot::channel();
    let parts = std::cell::Cell::new(Some((upstream, ticket, watch, report)));
    let service = service_fn(move |request: Request<Incoming>| {
        let (upstream, ticket, watch, report) = parts.take().expect("one request");
        async move {
            let sending = h2::Sending::of_this_request();
            assert!(sending.is_some());
            spawn_local(async move {
                let stream = hyper::upgrade::on(request).await.unwrap();
                let handover = Handover {
                    downstream: Downstream::H2(h2::Stream::of_client(stream, sending)),
                    downstream_early: Bytes::new(),
                    upstream: upstream.into(),
                    upstream_early: Bytes::from_static(b"early"),
                    tap: None,
                };
                let settings = Settings {
                    mode,
                    ktls: Ktls::none(Why::TlsOff),
                    kernel: None,
                    local_bypass: [false; 2],
                    idle_timeout: std::time::Duration::MAX,
                };
                let _ = report.send(run(handover, settings, ticket, watch).await);
            });
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    spawn_local(async move {
        let _ = hyper::server::conn::http2::Builder::new(h2::Executor)
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(downstream), service)
            .await;
    });
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(h2::Executor, TokioIo::new(near)).await.unwrap();
    let connection = spawn_local(async move {
        let _ = connection.await;
    });
    let request = Request::connect("server:443").body(Empty::<Bytes>::new()).unwrap();
    let response = requests.send_request(request).await.unwrap();
    let client = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    Rig {
        client,
        connection,
        _requests: requests,
        server,
        registry,
        outcome,
        seen,
        _watchdog: watchdog,
    }
}

async fn an_h2_stream_is_copied_byte_for_byte(mode: SpliceMode) {
    let rig = connect(mode).await;
    let Rig { client, mut server, registry, outcome, .. } = rig;
    let (mut from_tunnel, mut to_tunnel) = tokio::io::split(client);
    let (up, down) = (noise(90, 1 << 20), noise(91, 1 << 20));
    expect_in_chunks(&mut from_tunnel, b"early", 1, 5).await;
    let (mut from, mut to) = server.split();
    tokio::join!(
        async {
            write_in_chunks(&mut to_tunnel, &up, 92, 100_000).await;
            to_tunnel.shutdown().await.unwrap();
        },
        async {
            expect_in_chunks(&mut from, &up, 93, 100_000).await;
            expect_end(&mut from).await;
        },
    );
    let view = registry.snapshot().remove(0);
    assert_eq!(view.engine.to_downstream.name, Engine::Copy);
    if mode != SpliceMode::Copy {
        assert_eq!(view.engine.to_downstream.reason, Some("h2 downstream"));
    }
    // Half-closed: the answer still comes.
    tokio::join!(
        async {
            write_in_chunks(&mut to, &down, 94, 100_000).await;
            to.shutdown().await.unwrap();
        },
        async {
            expect_in_chunks(&mut from_tunnel, &down, 95, 100_000).await;
            expect_end(&mut from_tunnel).await;
        },
    );
    let outcome = outcome.await.unwrap();
    assert!(matches!(outcome.end, End::Finished), "{}", outcome.end);
    assert_eq!((outcome.upstream_bytes, outcome.downstream_bytes), (1 << 20, (1 << 20) + 5));
    assert_eq!(registry.len(), 0);
}

async fn an_h2_client_that_is_gone_is_a_reset(mode: SpliceMode) {
    let rig = connect(mode).await;
    let Rig { client, connection, mut server, outcome, .. } = rig;
    connection.abort();
    drop(client);
    read_to_reset(&mut server).await;
    let outcome = outcome.await.unwrap();
    assert!(matches!(outcome.end, End::ClientReset), "{}", outcome.end);
}

async fn an_h2_stream_that_is_cancelled_is_a_reset(mode: SpliceMode) {
    let rig = connect(mode).await;
    let Rig { client, connection, mut server, outcome, .. } = rig;
    // The connection goes on; hyper's client gives the stream up by RST_STREAM(CANCEL).
    drop(client);
    read_to_reset(&mut server).await;
    let outcome = outcome.await.unwrap();
    assert!(matches!(outcome.end, End::ClientReset), "{}", outcome.end);
    assert!(!connection.is_finished());
}

async fn a_server_reset_reaches_an_h2_client_behind_the_bytes(mode: SpliceMode) {
    let rig = connect(mode).await;
    let Rig { mut client, mut server, outcome, seen, .. } = rig;
    let last_words = noise(96, 30_000);
    server.write_all(&last_words).await.unwrap();
    while unacknowledged(&server).unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    reset(server);
    expect_in_chunks(&mut client, b"early", 1, 5).await;
    expect_in_chunks(&mut client, &last_words, 97, 10_000).await;
    let outcome = outcome.await.unwrap();
    assert!(matches!(outcome.end, End::UpstreamReset), "{}", outcome.end);
    // hyper's client reads CANCEL as the end; on the wire it must be told from END_STREAM.
    let _ = client.read(&mut [0; 1]).await;
    let frames = frames(&seen.borrow());
    assert!(frames.contains(&(RST_STREAM, 0)), "{frames:?}");
    assert!(!frames.contains(&(DATA, END_STREAM)), "{frames:?}");
}

const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// Type and flags of each frame on a stream (RFC 9113 4.1).
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, flags, _, _, _, stream, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        if *stream != 0 {
            frames.push((*kind, *flags));
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
    frames
}
