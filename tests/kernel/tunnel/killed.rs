//! A proxy that is killed takes everything with it: its programs and maps, and the
//! tunnels, whose peers are told.

use std::{collections::BTreeSet, fs, io::ErrorKind::WouldBlock, net::Shutdown, time::Duration};

use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{Bed, End, Engine, Plan, Tunnel, over_all_engines, pattern};

use super::{MEGABYTE, cases};
use crate::machine::{any_loaded, eventually};

over_all_engines!(
    a_killed_proxy_leaves_nothing_in_the_kernel,
    peers_of_a_killed_proxy_are_reset,
    what_a_killed_proxy_had_passed_on_is_whole,
);

/// Between two looks at a socket that was not ready.
const MOMENT: Duration = Duration::from_micros(200);

/// BPF objects that a process holds, by what its descriptors say of themselves.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl Objects {
    pub(crate) fn of(process: u32) -> Self {
        let mut objects = Self::default();
        let entries = fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap();
        // A descriptor may be closed while they are listed.
        let infos = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
        for info in infos {
            for line in info.lines() {
                let Some((key, id)) = line.split_once(":") else { continue };
                match key {
                    "prog_id" => _ = objects.programs.insert(id.trim().parse().unwrap()),
                    "map_id" => _ = objects.maps.insert(id.trim().parse().unwrap()),
                    _ => {}
                }
            }
        }
        objects
    }

    pub(crate) fn any_loaded(&self) -> bool {
        any_loaded(&self.programs, &self.maps)
    }
}

#[req_test("REQ-TUN-002")]
async fn a_killed_proxy_leaves_nothing_in_the_kernel(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let mut tunnel = Plan::new(bed, way, engine).open_settled().await;
        tokio::join!(
            tunnel.client.exchange_pattern(MEGABYTE, false, MEGABYTE),
            tunnel.server.exchange_pattern(MEGABYTE, false, MEGABYTE),
        );
        let objects = Objects::of(tunnel.proxy.pid());
        if matches!(engine, Engine::Kernel | Engine::Bypass) {
            assert!(!objects.programs.is_empty() && objects.maps.len() >= 2, "{objects:?}");
            assert!(objects.any_loaded(), "{objects:?}");
        }
        tunnel.proxy.signal(Signal::KILL);
        tunnel.proxy.exited().await;
        // The applications' sockets, which may be enrolled, are still open.
        eventually("programs and maps of the killed proxy are gone", || !objects.any_loaded());
    }
}

#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn peers_of_a_killed_proxy_are_reset(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let mut tunnel = Plan::new(bed, way, engine).open_settled().await;
        tunnel.client.send("x").await;
        tunnel.server.expect("x").await;
        tunnel.server.send("y").await;
        tunnel.client.expect("y").await;
        tunnel.proxy.signal(Signal::KILL);
        tunnel.proxy.exited().await;
        assert_eq!(tunnel.client.expect_end().await, End::Reset);
        assert_eq!(tunnel.server.expect_end().await, End::Reset);
        // Nothing that one says reaches the other any more.
        for mut peer in [tunnel.client, tunnel.server] {
            let mut refused = false;
            for _ in 0..1000 {
                refused = peer.try_send("anybody there?").await.is_err();
                if refused {
                    break;
                }
                tokio::task::yield_now().await;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            assert!(refused, "it goes on sending into nothing");
        }
    }
}

/// Killed while megabytes are under way: each end has got the beginning of what the other
/// sent, and no byte that is out of its place.
#[req_test("REQ-TUN-001", "REQ-TUN-002")]
async fn what_a_killed_proxy_had_passed_on_is_whole(engine: Engine) {
    for (bed, way) in cases(&Bed::all()) {
        let Tunnel { client, server, origin: _origin, mut proxy } =
            Plan::new(bed, way, engine).open_settled().await;
        let mut ends = Vec::new();
        for wire in [client, server] {
            let stream = wire.into_stream().into_std().unwrap();
            let writing = stream.try_clone().unwrap();
            let writer = std::thread::spawn(move || {
                use std::io::Write;
                let mut sent = 0;
                loop {
                    match (&writing).write(pattern::at(sent, 65_521)) {
                        Ok(n) => sent += n as u64,
                        Err(error) if error.kind() == WouldBlock => std::thread::sleep(MOMENT),
                        Err(_) => break sent,
                    }
                }
            });
            let reader = std::thread::spawn(move || {
                use std::io::Read;
                let (mut got, mut piece) = (0, vec![0; 100_000]);
                loop {
                    match (&stream).read(&mut piece) {
                        Ok(n @ 1..) => {
                            pattern::check(got, &piece[..n]);
                            got += n as u64;
                        }
                        Err(error) if error.kind() == WouldBlock => std::thread::sleep(MOMENT),
                        _ => break,
                    }
                }
                // The other thread may be waiting for room that will never come.
                let _ = stream.shutdown(Shutdown::Both);
                got
            });
            ends.push((writer, reader));
        }
        underpass_tests::eventually("megabytes to flow", async || {
            let rows = proxy.tunnels().await;
            rows.first().and_then(|row| row["bytes"]["to_upstream"].as_u64()) > Some(8 * MEGABYTE)
        })
        .await;
        proxy.signal(Signal::KILL);
        proxy.exited().await;
        let done = ends.into_iter().map(|(writer, reader)| {
            tokio::task::block_in_place(|| (writer.join().unwrap(), reader.join().unwrap()))
        });
        let [(up, got_down), (down, got_up)] = done.collect::<Vec<_>>()[..] else { panic!() };
        assert!(got_up <= up && got_down <= down, "{got_up} of {up}, {got_down} of {down}");
        assert!(got_up > MEGABYTE, "{got_up}");
    }
}
