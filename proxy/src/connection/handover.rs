//! What a connection becomes when HTTP on it ends in a tunnel.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;

use super::{Client, Intercepting};
use crate::{
    access_log,
    config::SpliceMode,
    exchange::Exchange,
    splice::Engine,
    tunnel,
    upstream::{http2::Held, pool::Lease},
};

/// What a connection becomes behind an answer.
#[derive(Debug)]
pub enum Next {
    /// A tunnel. Boxed, as the other: most connections become neither.
    Tunnel(Box<Handover>),
    /// A connection that is taken apart.
    Intercept(Box<Intercepting>),
}

/// The upstream half of a tunnel, waiting for the answer to be on its way.
#[derive(Debug)]
pub struct Handover {
    /// What asked for it.
    pub kind: tunnel::registry::Kind,
    /// The server's side.
    pub upstream: tunnel::Upstream,
    /// What the server sent behind its answer.
    pub upstream_early: Bytes,
    /// To be reported when the tunnel ends.
    pub exchange: Rc<Exchange>,
    /// For `/tunnels`.
    pub upstream_name: Arc<str>,
    /// Whether the server's socket may be enrolled for local bypass.
    pub upstream_bypass: bool,
    /// Its place among the connections of the server's pool, if it came from one.
    pub lease: Option<Lease>,
    /// Its place among the streams of a connection to the server, if it is one.
    pub held: Option<Held>,
}

/// Runs a tunnel to its end and reports it.
pub async fn run_tunnel(
    client: &Client,
    handover: Handover,
    downstream: tunnel::Downstream,
    downstream_early: Bytes,
) {
    let Handover {
        kind,
        upstream,
        upstream_early,
        exchange,
        upstream_name,
        upstream_bypass,
        lease,
        held,
    } = handover;
    let worker = &client.worker;
    let ticket = worker.process.tunnels.open(tunnel::registry::Info {
        kind,
        client: client.peer,
        upstream: upstream_name,
        listener: client.listener.name.clone(),
        log_interval: client.limits().tunnel_log_interval,
    });
    let settings = tunnel::Settings {
        mode: worker.process.splice,
        ktls: worker.process.ktls,
        kernel: worker.process.kernel.clone(),
        local_bypass: [client.listener.config.local_bypass, upstream_bypass],
        idle_timeout: client.limits().tunnel_idle_timeout,
    };
    let tap = exchange.taps_frames(kind).map(Box::new);
    let begins_with = match (&downstream, settings.mode) {
        _ if tap.is_some() => Engine::Copy,
        (tunnel::Downstream::Tcp(stream, _), SpliceMode::Pipe)
            if !stream.is_tls() && upstream.is_plain() =>
        {
            Engine::Pipe
        }
        _ => Engine::Copy,
    };
    let watched = match &downstream {
        tunnel::Downstream::Tcp(..) => Rc::clone(&client.watched),
        tunnel::Downstream::H2(_) => worker.watchdog.watch(),
    };
    // A stream outlives its request, and may its connection.
    let _guard = worker.connection_opens();
    let parts = tunnel::Handover { downstream, downstream_early, upstream, upstream_early, tap };
    let outcome = worker
        // Boxed once per tunnel, so that connections without one do not carry its state.
        .report_tunnel(begins_with, Box::pin(tunnel::run(parts, settings, ticket, watched)))
        .await;
    let end = access_log::End::Tunnel {
        kind: kind.name(),
        engine_up: outcome.engines.to_upstream.name(),
        engine_down: outcome.engines.to_downstream.name(),
        end: outcome.end.name(),
    };
    drop((lease, held));
    exchange.tunnel_ended(end, outcome.upstream_bytes, outcome.downstream_bytes);
}
