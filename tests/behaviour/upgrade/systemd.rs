//! systemd's own tools: `systemd-socket-activate` passes sockets as systemd does, and
//! `systemd-analyze verify` reads the unit. Where they are not installed the tests say so.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
};

use mantra_macros::req_test;
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use underpass_tests::{Served, Wire, binary::binary, eventually, proxy::scratch, skip};

use super::GET;

/// The version with `Type=notify-reload`.
const NOTIFY_RELOAD: u32 = 253;

/// The version of one of systemd's tools. `None`: it is not here.
fn version(tool: &str) -> Option<u32> {
    let output = Command::new(tool).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().nth(1).and_then(|version| version.parse().ok());
    if version.is_none() {
        skip::say(&format!("{tool} says no version"));
    }
    version
}

/// A port that nobody else gets, and that may be listened on: bound, and not listening.
fn reserved() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Ended with the test.
struct Activated(Child);

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Started by the first connection, with the sockets that have been listening until then.
#[req_test("REQ-EDGE-008")]
#[tokio::test]
async fn the_first_connection_starts_it() {
    let tool = "systemd-socket-activate";
    if version(tool).is_none() {
        return skip::say("systemd-socket-activate is not installed");
    }
    let served = Served::ok().await;
    let [(_web, web), (_admin, admin)] = [reserved(), reserved()];
    let config = scratch("toml");
    // Its own addresses say nothing: the names do.
    let text = format!(
        "workers = 2\n[admin]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"one\"\n[[upstream]]\nname = \"one\"\nservers = [\"{}\"]\n",
        served.addr()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(tool);
    command.args(["--listen", &web.to_string(), "--listen", &admin.to_string()]);
    command.arg("--fdname=web:admin").arg(binary()).args(["run", "--config"]).arg(&config);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut activated = Activated(command.spawn().expect("start systemd-socket-activate"));
    eventually("it to listen", async || TcpStream::connect(web).await.is_ok()).await;
    for _ in 0..5 {
        Wire::open(web, GET).await.expect_status(200).await;
    }
    Wire::open(admin, "GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        .await
        .expect_status(200)
        .await;
    // The same process, which ends as asked.
    let pid = Pid::from_child(&activated.0);
    kill_process(pid, Signal::TERM).unwrap();
    let mut ended = None;
    eventually("it to end", || {
        ended = activated.0.try_wait().unwrap();
        std::future::ready(ended.is_some())
    })
    .await;
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    let _ = fs::remove_file(config);
}

/// The unit, and the socket of the guide beside it.
#[req_test("REQ-EDGE-008")]
#[test]
fn the_unit_is_one_that_systemd_takes() {
    let Some(version) = version("systemd-analyze") else {
        return skip::say("systemd-analyze is not installed");
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut unit = fs::read_to_string(root.join("packaging/underpass.service")).unwrap();
    assert!(unit.contains("/usr/bin/underpass "));
    unit = unit.replace("/usr/bin/underpass ", &format!("{} ", binary().display()));
    if version < NOTIFY_RELOAD {
        skip::say("Type=notify-reload: systemd-analyze is older than 253");
        unit = unit.replace("notify-reload", "notify");
    }
    let page = fs::read_to_string(root.join("docs/guide/upgrade.md")).unwrap();
    let socket = page.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next());
    let folder = scratch("units");
    fs::create_dir(&folder).unwrap();
    let units = [("underpass.service", unit.as_str()), ("underpass.socket", socket.unwrap())];
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for (name, text) in units {
        fs::write(folder.join(name), text).unwrap();
        command.arg(folder.join(name));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    // And it sees what is wrong.
    let broken = units[0].1.replace("[Service]\n", "[Service]\nNoSuchKey=1\n");
    fs::write(folder.join("underpass.service"), broken).unwrap();
    let output = command.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("NoSuchKey"));
    let _ = fs::remove_dir_all(folder);
}
