//! File descriptors belong to the process, so these tests have one of their own: each runs
//! itself again, alone.

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;

use crate::{
    config::SpliceMode,
    splice::{BUFFER_BYTES, Engine, IDLE_PIPES, pipe_pool},
};

use super::support::*;

const ALONE: &str = "UNDERPASS_TEST_ALONE";

/// Whether this is the process of its own. If not, runs `test` in one and passes judgement on.
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let name = format!("tunnel::tests::descriptors::{test}");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{name} was not found:\n{text}");
    false
}

fn open_descriptors() -> usize {
    // One of them is the directory itself, each time.
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn two_hundred_tunnels_leave_no_descriptor() {
    if !alone("two_hundred_tunnels_leave_no_descriptor") {
        return;
    }
    on_worker(async {
        let bulk = noise(80, 3 * BUFFER_BYTES);
        let before = open_descriptors();
        for round in 0..200 {
            let mode = [SpliceMode::Copy, SpliceMode::Pipe, SpliceMode::Auto][round % 3];
            let mut rig = Rig::new(mode).await;
            rig.ping().await;
            let (sent, ()) = tokio::join!(
                rig.client.write_all(&bulk),
                expect_in_chunks(&mut rig.server, &bulk, 81, 100_000)
            );
            sent.unwrap();
            match round % 4 {
                0 => {
                    assert!(rig.registry.end(rig.id));
                }
                1 => reset(rig.client),
                2 => rig.tunnel.abort(),
                _ => drop((rig.client, rig.server)),
            }
            let _ = rig.tunnel.await;
        }
        let kept = pipe_pool::usage();
        assert_eq!(kept.open, kept.idle);
        assert!(kept.idle <= IDLE_PIPES);
        assert_eq!(open_descriptors(), before + 2 * kept.idle);
        pipe_pool::set_budget(0);
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn a_process_out_of_descriptors_copies() {
    if !alone("a_process_out_of_descriptors_copies") {
        return;
    }
    on_worker(async {
        let mut rig = Rig::new(SpliceMode::Pipe).await;
        let before = getrlimit(Resource::Nofile);
        // The lowest number that is free is the limit: not one more can be opened.
        let free = std::fs::File::open("/dev/null").unwrap();
        let next = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&free)).unwrap();
        drop(free);
        setrlimit(Resource::Nofile, Rlimit { current: Some(next), maximum: before.maximum })
            .unwrap();
        rig.ping().await;
        let bulk = noise(82, 1 << 20);
        let (sent, ()) = tokio::join!(
            rig.client.write_all(&bulk),
            expect_in_chunks(&mut rig.server, &bulk, 83, 100_000)
        );
        sent.unwrap();
        let engine = rig.view().engine.to_upstream;
        assert_eq!((engine.name, engine.reason), (Engine::Copy, Some("no pipe to be had")));
        setrlimit(Resource::Nofile, before).unwrap();
    });
}
