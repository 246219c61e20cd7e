//! Tunnels with TLS on one leg or both: the same law, with close_notify for the end.

use std::{io, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::{
    config::SpliceMode,
    splice::{BUFFER_BYTES, Engine, Ktls, Why, buffers_in_use, probe},
    tls::Followed,
    transport::Transport,
    tunnel::{Downstream, End, Handover, Outcome, Registry, Settings, run},
};

use super::support::*;

/// A peer of a tunnel, or the tunnel's own side of that connection.
type Peer = Transport;

/// Which legs have TLS: the client's, the server's.
const LEGS: [[bool; 2]; 3] = [[true, false], [false, true], [true, true]];

struct TlsRig {
    client: Peer,
    server: Peer,
    registry: Registry,
    tunnel: JoinHandle<Outcome>,
}

/// What this kernel takes over: all of it or nothing, as the engines do it.
fn ktls() -> Ktls {
    probe::ktls().unwrap_or(Ktls::none(Why::TlsKernel))
}

/// Both ends of a TLS connection over these sockets.
async fn secured(connected: TcpStream, accepted: TcpStream) -> (Peer, Peer) {
    let made = rcgen::generate_simple_self_signed(["peer.test".into()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let mut client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (server.enable_secret_extraction, client.enable_secret_extraction) = (true, true);
    let name = ServerName::try_from("peer.test").unwrap();
    let (connected, accepted) = tokio::join!(
        TlsConnector::from(Arc::new(client)).connect(name, Followed::from(connected)),
        TlsAcceptor::from(Arc::new(server)).accept(Followed::from(accepted))
    );
    let (connected, accepted) = (connected.unwrap(), accepted.unwrap());
    (
        Transport::Tls(Box::new(TlsStream::Client(connected))),
        Transport::Tls(Box::new(TlsStream::Server(accepted))),
    )
}

async fn leg(buffers: Buffers, tls: bool) -> (Peer, Peer) {
    let (connected, accepted) = pair(buffers).await;
    match tls {
        true => secured(connected, accepted).await,
        false => (connected.into(), accepted.into()),
    }
}

impl TlsRig {
    async fn new(legs: [bool; 2], setup: Setup) -> Self {
        let (client, downstream) = leg(setup.downstream, legs[0]).await;
        let (upstream, server) = leg(setup.upstream, legs[1]).await;
        let registry = Registry::new();
        let ticket = registry.open(info(client.tcp().local_addr().unwrap()));
        let handover = Handover {
            downstream: Downstream::Tcp(downstream, Default::default()),
            downstream_early: setup.client_early,
            upstream: upstream.into(),
            upstream_early: setup.server_early,
            tap: None,
        };
        let settings = Settings {
            mode: setup.mode,
            ktls: ktls(),
            kernel: None,
            local_bypass: [false; 2],
            idle_timeout: setup.idle_timeout,
        };
        let watched = watchdog(setup.idle_timeout).watch();
        let tunnel = tokio::task::spawn_local(run(handover, settings, ticket, watched));
        Self { client, server, registry, tunnel }
    }
}

/// One test after the other over all combinations, each with a tunnel of its own.
fn over_all_legs<F: Future<Output = ()>>(test: impl Fn([bool; 2]) -> F) {
    for legs in LEGS {
        on_worker(test(legs));
    }
}

/// Reads to an end that is no clean one; what came before it.
async fn read_to_break(from: &mut Peer) -> Vec<u8> {
    let mut bytes = Vec::new();
    let error = from.read_to_end(&mut bytes).await.expect_err("expected a reset, saw an end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    bytes
}

#[test]
fn an_echo_is_the_same_byte_for_byte() {
    over_all_legs(async |legs| {
        for setup in [Setup::new(SpliceMode::Auto), Setup::with_buffers(SpliceMode::Pipe, 8192)] {
            let TlsRig { client, server, registry, tunnel } = TlsRig::new(legs, setup).await;
            let sent = noise(1, 2 << 20);
            let (mut from_tunnel, mut to_tunnel) = tokio::io::split(client);
            let (mut from, mut to) = tokio::io::split(server);
            let echo = async {
                tokio::io::copy(&mut from, &mut to).await.unwrap();
                to.shutdown().await.unwrap();
            };
            let send = async {
                write_in_chunks(&mut to_tunnel, &sent, 2, 200_000).await;
                to_tunnel.flush().await.unwrap();
                let view = registry.snapshot().remove(0);
                let sides = ["downstream", "upstream"].into_iter().zip(legs);
                let sides: Vec<_> = sides.filter(|(_, tls)| *tls).map(|(side, _)| side).collect();
                for engine in [view.engine.to_upstream, view.engine.to_downstream] {
                    match probe::ktls() {
                        Ok(_) => assert_eq!((&view.ktls, engine.reason), (&sides, None)),
                        Err(_) => {
                            let why = Why::TlsKernel.name();
                            assert_eq!((engine.name, engine.reason), (Engine::Copy, Some(why)));
                            assert!(view.ktls.is_empty());
                        }
                    }
                }
                to_tunnel.shutdown().await.unwrap();
            };
            let receive = async {
                expect_in_chunks(&mut from_tunnel, &sent, 3, 150_000).await;
                expect_end(&mut from_tunnel).await;
            };
            tokio::join!(echo, send, receive);
            let outcome = tunnel.await.unwrap();
            assert!(matches!(outcome.end, End::Finished), "{}", outcome.end);
            assert_eq!((outcome.upstream_bytes, outcome.downstream_bytes), (2 << 20, 2 << 20));
        }
    });
}

#[test]
fn early_bytes_go_first_and_an_end_leaves_the_other_direction_open() {
    over_all_legs(async |legs| {
        let early = noise(10, 300_000);
        let mut setup = Setup::new(SpliceMode::Auto);
        setup.client_early = early.clone().into();
        setup.server_early = b"and ".as_slice().into();
        let mut rig = TlsRig::new(legs, setup).await;
        rig.client.write_all(b"then this").await.unwrap();
        rig.client.shutdown().await.unwrap();
        expect_in_chunks(&mut rig.server, &early, 12, 70_000).await;
        expect_in_chunks(&mut rig.server, b"then this", 13, 9).await;
        expect_end(&mut rig.server).await;
        rig.server.write_all(b"so long").await.unwrap();
        rig.server.shutdown().await.unwrap();
        expect_in_chunks(&mut rig.client, b"and so long", 14, 4).await;
        expect_end(&mut rig.client).await;
        let outcome = rig.tunnel.await.unwrap();
        assert!(matches!(outcome.end, End::Finished), "{}", outcome.end);
    });
}

/// Anybody on the way can send a FIN, but no close_notify.
#[test]
fn a_connection_that_is_cut_short_is_not_taken_for_ended() {
    over_all_legs(async |legs| {
        for side in [0, 1] {
            if !legs[side] {
                continue;
            }
            let TlsRig { client, server, tunnel, .. } =
                TlsRig::new(legs, Setup::new(SpliceMode::Auto)).await;
            let (mut cut, mut other) = if side == 0 { (client, server) } else { (server, client) };
            cut.write_all(b"half a mess").await.unwrap();
            cut.flush().await.unwrap();
            rustix::net::shutdown(cut.tcp(), rustix::net::Shutdown::Write).unwrap();
            assert_eq!(read_to_break(&mut other).await, b"half a mess");
            let end = tunnel.await.unwrap().end;
            assert_eq!(end.name(), ["client_reset", "upstream_reset"][side]);
        }
    });
}

#[test]
fn a_reset_comes_behind_the_bytes_before_it() {
    over_all_legs(async |legs| {
        let mut rig = TlsRig::new(legs, Setup::new(SpliceMode::Auto)).await;
        let last_words = noise(50, 60_000);
        rig.server.write_all(&last_words).await.unwrap();
        rig.server.flush().await.unwrap();
        while crate::splice::socket::unacknowledged(rig.server.tcp()).unwrap() > 0 {
            tokio::task::yield_now().await;
        }
        rig.server.tcp().set_zero_linger().unwrap();
        drop(rig.server);
        assert!(read_to_break(&mut rig.client).await == last_words);
        let outcome = rig.tunnel.await.unwrap();
        assert!(matches!(outcome.end, End::UpstreamReset), "{}", outcome.end);
    });
}

#[test]
fn a_reset_is_noticed_while_the_other_side_stalls() {
    over_all_legs(async |legs| {
        let setup = Setup::with_buffers(SpliceMode::Auto, 16 * 1024);
        let mut rig = TlsRig::new(legs, setup).await;
        let flood = noise(51, 8 << 20);
        let stalled =
            tokio::time::timeout(Duration::from_millis(300), rig.server.write_all(&flood)).await;
        assert!(stalled.is_err());
        rig.server.tcp().set_zero_linger().unwrap();
        drop(rig.server);
        let arrived = read_to_break(&mut rig.client).await;
        assert!(arrived == flood[..arrived.len()], "wrong bytes");
        let outcome = rig.tunnel.await.unwrap();
        assert!(matches!(outcome.end, End::UpstreamReset), "{}", outcome.end);
    });
}

#[test]
fn what_a_tunnel_holds_for_a_stalled_reader_is_bounded() {
    const SOCKET_BUFFER: u32 = 32 * 1024;
    // Four buffers of the kernel, each twice what was asked for; the lane's buffer; per session
    // what it has yet to send and what it has yet to read, at both ends.
    const MOST: u64 = 8 * SOCKET_BUFFER as u64 + BUFFER_BYTES as u64 + 4 * 96 * 1024;
    over_all_legs(async |legs| {
        let setup = Setup::with_buffers(SpliceMode::Auto, SOCKET_BUFFER);
        let mut rig = TlsRig::new(legs, setup).await;
        let flood = noise(70, 8 << 20);
        let mut taken = 0;
        let stall = async {
            while taken < flood.len() {
                let more = &flood[taken..flood.len().min(taken + 10_000)];
                taken += rig.server.write(more).await.unwrap();
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(300), stall).await.is_err());
        assert!(taken as u64 <= MOST, "{taken} bytes taken, {MOST} at most are accounted for");
        assert!(buffers_in_use() <= 1);
        let view = rig.registry.snapshot().remove(0);
        assert!(view.bytes.to_downstream <= taken as u64);
        let (sent, ()) = tokio::join!(
            async {
                rig.server.write_all(&flood[taken..]).await?;
                rig.server.flush().await
            },
            expect_in_chunks(&mut rig.client, &flood, 71, 100_000)
        );
        sent.unwrap();
        assert_eq!(buffers_in_use(), 0);
    });
}

#[test]
fn a_tunnel_that_is_ended_by_hand_is_not_taken_for_ended() {
    over_all_legs(async |legs| {
        let mut rig = TlsRig::new(legs, Setup::new(SpliceMode::Auto)).await;
        rig.client.write_all(b"?").await.unwrap();
        rig.client.flush().await.unwrap();
        expect_in_chunks(&mut rig.server, b"?", 1, 1).await;
        assert!(rig.registry.end(rig.registry.snapshot()[0].id));
        tokio::join!(read_to_break(&mut rig.client), read_to_break(&mut rig.server));
        assert!(matches!(rig.tunnel.await.unwrap().end, End::Deleted));
    });
}
