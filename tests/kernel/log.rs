//! What the programs say reaches the log of the proxy, and costs nothing when off.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;
use underpass::splice::kernel::Set;

use crate::machine::{PATIENCE, connection, kernel, send};

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
