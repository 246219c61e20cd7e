//! CONNECT on an HTTP/2 stream (RFC 9113 8.5): a real hyper server and client around the tunnel.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::oneshot,
    task::{JoinHandle, spawn_local},
};

use crate::{
    config::SpliceMode,
    drain,
    splice::Engine,
    tunnel::{Downstream, End, Handover, Outcome, Registry, Settings, run},
};

use super::support::*;

over_every_engine! {
    an_h2_stream_is_copied_byte_for_byte,
    an_h2_client_that_is_gone_is_a_reset,
    an_h2_stream_that_is_cancelled_is_a_reset,
}

#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

struct Rig {
    client: TokioIo<Upgraded>,
    connection: JoinHandle<()>,
    /// The connection lives as long as somebody may send a request on it.
    _requests: hyper::client::conn::http2::SendRequest<Empty<Bytes>>,
    server: TcpStream,
    registry: Registry,
    outcome: oneshot::Receiver<Outcome>,
    _drain: drain::Drain,
}

async fn connect(mode: SpliceMode) -> Rig {
    let (client, downstream) = pair(None).await;
    let (upstream, server) = pair(None).await;
    let registry = Registry::new();
    let ticket = registry.open(info(client.local_addr().unwrap()));
    let (drain, watch) = drain::channel();
    let (report, outcome) = oneshot::channel();
    let parts = std::cell::Cell::new(Some((upstream, ticket, watch, report)));
    let service = service_fn(move |request: Request<Incoming>| {
        let (upstream, ticket, watch, report) = parts.take().expect("one request");
        spawn_local(async move {
            let stream = hyper::upgrade::on(request).await.unwrap();
            let handover = Handover {
                downstream: Downstream::H2(stream),
                downstream_early: Bytes::new(),
                upstream,
                upstream_early: Bytes::from_static(b"early"),
            };
            let settings = Settings { mode, idle_timeout: std::time::Duration::MAX };
            let _ = report.send(run(handover, settings, ticket, watch).await);
        });
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    });
    spawn_local(async move {
        let _ = hyper::server::conn::http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(downstream), service)
            .await;
    });
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(Local, TokioIo::new(client)).await.unwrap();
    let connection = spawn_local(async move {
        let _ = connection.await;
    });
    let request = Request::connect("server:443").body(Empty::<Bytes>::new()).unwrap();
    let response = requests.send_request(request).await.unwrap();
    let client = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    Rig { client, connection, _requests: requests, server, registry, outcome, _drain: drain }
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
