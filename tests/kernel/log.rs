//! What the programs say reaches the log of the proxy, and costs nothing when off.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mantra_macros::req_test;
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;
use underpass::splice::kernel::Set;
use underpass_tests::{Bed, Engine, Origin, bed::Topology, engine, tunnel::Way};

use crate::machine::{PATIENCE, connection, kernel, lacking, send};

/// Where the log of one test goes.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn with_log(level: Level, test: impl FnOnce(&Captured)) {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(captured.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || test(&captured));
}

#[test]
fn a_program_logs_into_the_proxys_log() {
    with_log(Level::TRACE, |captured| {
        let Some(kernel) = kernel() else { return };
        let log = kernel.take_log().expect("the object has a log");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let drain = tokio::task::spawn_local(log.drain());
            let (mut near, mut far) = connection();
            let _enrolled = kernel.enroll(Set::Passed, near.as_fd()).unwrap();
            send(&mut far, &mut near, 77);
            let started = Instant::now();
            while !captured.text().contains("passed 77 bytes") {
                assert!(started.elapsed() < PATIENCE, "the log says: {}", captured.text());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(captured.text().contains("TRACE underpass::bpf"), "{}", captured.text());
            drain.abort();
        });
    });
}

/// Through the proxy itself: every send that bypasses it is a line, and none by default.
#[req_test("REQ-TUN-003")]
#[tokio::test]
async fn the_proxy_logs_what_bypasses_it() {
    if lacking().is_some() || !engine::ready(Engine::Bypass) || !engine::joins_applications() {
        return;
    }
    const BYTES: usize = 12_345;
    let line = format!("{BYTES} bytes");
    for (filter, logged) in [("info,underpass::bpf=trace", true), ("info", false)] {
        let origin = Origin::bind().await;
        let mut tunnel =
            Way::Connect.open_with(Engine::Bypass, origin, |builder| builder.log(filter)).await;
        // A tunnel that says nothing may stay as it is.
        for _ in 0..8 {
            tunnel.client.send("ping").await;
            tunnel.server.expect("ping").await;
            tunnel.server.send("pong").await;
            tunnel.client.expect("pong").await;
        }
        Bed::new(Topology::V4).unwrap().settled(Engine::Bypass, &tunnel.proxy).await;
        tunnel.client.send(vec![7; BYTES]).await;
        assert_eq!(tunnel.server.read_exact(BYTES).await.len(), BYTES);
        if logged {
            tunnel.proxy.log_line(&["TRACE underpass::bpf", &line]).await;
        }
        drop((tunnel.client, tunnel.server));
        tunnel.proxy.term();
        assert!(tunnel.proxy.exited().await.success());
        assert_eq!(tunnel.proxy.stderr().contains("underpass::bpf"), logged);
    }
}

#[test]
fn a_program_is_silent_by_default() {
    with_log(Level::INFO, |captured| {
        let Some(kernel) = kernel() else { return };
        let mut log = kernel.take_log().expect("the object has a log");
        let (mut near, mut far) = connection();
        let _enrolled = kernel.enroll(Set::Passed, near.as_fd()).unwrap();
        send(&mut far, &mut near, 77);
        log.flush();
        assert!(!captured.text().contains("passed"), "{}", captured.text());
    });
}
