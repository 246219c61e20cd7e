//! Those who speak it in front of us and behind: curl, HAProxy and nginx.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use mantra_macros::req_test;
use underpass_tests::{
    Proxy, Served, Wire,
    address::free,
    curl::{curl, peer},
    eventually,
    proxy::scratch,
};

use super::{TRUSTING, config};

#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn curl_announces_itself() {
    if !peer("curl") {
        return;
    }
    let origin = Served::ok().await;
    let proxy = Proxy::config(config("http", TRUSTING, "", origin.addr())).start();
    let url = format!("http://{}/", proxy.addr());
    let curled = curl(&["--haproxy-protocol", &url]).await;
    assert_eq!((curled.code, curled.text().as_str()), (0, "ok"), "{}", curled.stderr);
    let curled = curl(&["--haproxy-clienttip", "203.0.113.7", &url]).await;
    if curled.code == 0 {
        let seen = origin.seen();
        assert_eq!(seen[1].message.head.get("x-forwarded-for"), Some("203.0.113.7"));
    } else {
        // curl has had that option since 8.2.
        assert!(curled.stderr.contains("haproxy-clienttip"), "{}", curled.stderr);
    }
}

/// A program of another project that passes connections on, ended when dropped.
struct Relay {
    child: Child,
    address: SocketAddr,
    directory: std::path::PathBuf,
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Relay {
    /// HAProxy, from `bind` options to `server` options.
    async fn haproxy(bind: &str, server: SocketAddr, options: &str) -> Self {
        let directory = scratch("haproxy");
        fs::create_dir_all(&directory).expect("directory");
        let address = free();
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             frontend in\n bind {address} {bind}\n default_backend out\n\
             backend out\n server one {server} {options}\n"
        );
        let file = directory.join("haproxy.cfg");
        fs::write(&file, text).expect("configuration");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file);
        Self::start(command, address, directory).await
    }

    /// nginx, which takes the announcement and answers with the client's address.
    async fn nginx() -> Self {
        let directory = scratch("nginx");
        fs::create_dir_all(&directory).expect("directory");
        let address = free();
        let text = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr;\n\
             events {{ }}\nhttp {{ access_log off;\n\
             client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;\n\
             uwsgi_temp_path t4; scgi_temp_path t5;\n\
             server {{ listen {address} proxy_protocol;\n\
             location / {{ return 200 \"$proxy_protocol_addr:$proxy_protocol_port\"; }} }} }}\n"
        );
        fs::write(directory.join("nginx.conf"), text).expect("configuration");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&directory).args(["-c", "nginx.conf", "-e", "stderr"]);
        Self::start(command, address, directory).await
    }

    async fn start(
        mut command: Command,
        address: SocketAddr,
        directory: std::path::PathBuf,
    ) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("run the peer");
        let relay = Self { child, address, directory };
        eventually("the peer to listen", async || {
            tokio::net::TcpStream::connect(relay.address).await.is_ok()
        })
        .await;
        relay
    }
}

/// Through HAProxy, us and HAProxy again, the server's HTTP sees the client that came first.
#[req_test("REQ-EDGE-004", "REQ-TUN-001")]
#[tokio::test]
async fn haproxy_in_front_and_behind() {
    if !peer("haproxy") {
        return;
    }
    let origin = Served::ok().await;
    for version in ["v1", "v2"] {
        let send = if version == "v1" { "send-proxy" } else { "send-proxy-v2" };
        for protocol in ["tcp", "http"] {
            let behind = Relay::haproxy("accept-proxy", origin.addr(), "").await;
            let upstream = format!("proxy_protocol = \"{version}\"");
            let text = config(protocol, TRUSTING, &upstream, behind.address);
            let proxy = Proxy::config(text).start();
            let front = Relay::haproxy("", proxy.addr(), send).await;
            let mut client = Wire::open(front.address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.expect_status(200).await;
            let seen = format!("client={} ", client.local_addr());
            drop(client);
            proxy.log_line(&[&seen]).await;
        }
    }
}

#[req_test("REQ-EDGE-004")]
#[tokio::test]
async fn nginx_is_told_of_the_client() {
    if !peer("nginx") {
        return;
    }
    let nginx = Relay::nginx().await;
    for version in ["v1", "v2"] {
        for protocol in ["tcp", "http"] {
            let upstream = format!("proxy_protocol = \"{version}\"");
            let proxy = Proxy::config(config(protocol, "", &upstream, nginx.address)).start();
            let mut client = proxy.open("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let answer = client.expect_status(200).await;
            assert_eq!(answer.text(), client.local_addr().to_string());
        }
    }
}
