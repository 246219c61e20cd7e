//! Nothing of steering stays in the kernel, however its sockets go.

use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{Proxy, Served};

use super::{Group, proxy, ready};
use crate::{
    machine::{any_loaded, eventually},
    tunnel::killed::Objects,
};

/// The sockets hold the program, the handles do not.
#[req_test("REQ-EDGE-001")]
#[test]
fn the_program_goes_with_the_last_socket() {
    if !ready() {
        return;
    }
    let mut group = Group::new(2);
    let (steering, seats) = group.steered(&[]);
    let ids = steering.ids().unwrap();
    assert_eq!(ids.programs.len(), 1, "up_steer");
    assert!(ids.maps.len() >= 3, "{ids:?}");
    let loaded = || any_loaded(&ids.programs, &ids.maps);

    drop(steering);
    group.connect(20);
    assert_eq!(group.accept(20), [10, 10], "it goes on choosing");
    drop(seats);
    group.clients.clear();
    group.lose(1..);
    assert!(loaded());
    group.lose(..);
    eventually("program and maps are gone", || !loaded());
}

#[req_test("REQ-EDGE-001")]
#[tokio::test]
async fn a_proxy_leaves_nothing_behind_however_it_ends() {
    if !ready() {
        return;
    }
    let origin = Served::ok().await;
    for signal in [Signal::KILL, Signal::TERM] {
        // `copy` loads nothing for tunnels: all that is loaded is for steering.
        let builder = Proxy::config(proxy::config("splice = \"copy\"", &origin));
        let mut proxy = builder.start();
        let objects = Objects::of(proxy.pid());
        assert!(objects.any_loaded(), "{objects:?}");
        // A client that stays does not hold it.
        let client = std::net::TcpStream::connect(proxy.listener("load")).unwrap();
        proxy.signal(signal);
        proxy.exited().await;
        eventually("program and maps are gone", || !objects.any_loaded());
        drop(client);
    }
}
