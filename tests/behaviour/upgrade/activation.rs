//! systemd: sockets that it has bound, and what it is told.

use std::{net::TcpListener, os::unix::net::UnixDatagram};

use mantra_macros::req_test;
use rustix::process::Signal;
use underpass_tests::{Origin, Proxy, Served, Wire, clock::BOUND, proxy::scratch};

use super::{GET, Site};

const ANY: &str = "127.0.0.1:0";

/// By its name, whatever the configuration says of the address; by its address without one.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn sockets_of_the_service_manager_are_served() {
    let served = Served::ok().await;
    let sockets = [(); 3].map(|()| TcpListener::bind(ANY).unwrap());
    let [web, bound, admin] = [0, 1, 2].map(|index| sockets[index].local_addr().unwrap());
    let text = format!(
        "workers = 3\n[admin]\naddress = \"{admin}\"\n\
         [[listener]]\nname = \"web\"\naddress = \"{ANY}\"\n\
         [[listener]]\nname = \"by-address\"\naddress = \"{bound}\"\n\
         [[route]]\nupstream = \"one\"\n\
         [[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n",
        served.addr()
    );
    // Two requests wait from before it was started.
    let mut early = [Wire::open(web, GET).await, Wire::open(bound, GET).await];
    let names = "web:unknown:admin";
    let proxy = Proxy::config(text).env("LISTEN_FDNAMES", names).activated(sockets.into()).start();
    assert_eq!([proxy.listener("web"), proxy.listener("by-address")], [web, bound]);
    assert_eq!(proxy.admin(), admin);
    for client in &mut early {
        client.expect_status(200).await;
    }
    for _ in 0..10 {
        Wire::open(web, GET).await.expect_status(200).await;
    }
    assert_eq!(proxy.ask_admin("GET", "/readyz").await.status(), 200);
}

/// What it is told, one message after the other.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
}

impl Manager {
    fn new() -> Self {
        let path = scratch("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        Self { socket, path }
    }

    fn told(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn the_service_manager_is_told_what_becomes_of_the_process() {
    let served = Served::ok().await;
    let origin = Origin::bind().await;
    let site = Site::new("workers = 1", served.addr(), origin.addr());
    let manager = Manager::new();
    let path = manager.path.to_str().unwrap();
    let mut old = site.process().env("NOTIFY_SOCKET", path).start();
    assert_eq!(manager.told(), format!("READY=1\nMAINPID={}\n", old.pid()));
    old.signal(Signal::HUP);
    let reloading = manager.told();
    let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(micros.trim_end().parse::<u64>().unwrap() > 0);
    assert_eq!(manager.told(), format!("READY=1\nMAINPID={}\n", old.pid()));
    // The process that takes over is the service's main one; of the other nothing is said.
    let mut new = site.successor().env("NOTIFY_SOCKET", path).start();
    assert_eq!(manager.told(), format!("READY=1\nMAINPID={}\n", new.pid()));
    assert_eq!(old.exited().await.code(), Some(0));
    new.term();
    assert_eq!(manager.told(), "STOPPING=1\n");
    assert_eq!(new.exited().await.code(), Some(0));
}
