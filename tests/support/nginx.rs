//! nginx as an origin, from its package, with a configuration and a directory of its own.
//!
//! It serves `files/` with ranges, gzip and keep-alive, over TLS if it is to have a
//! certificate. Killed by its process id.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{clock::BOUND, curl::peer, proxy::scratch};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Nginx {
    /// Starts it with these files; `None` if there is no nginx and that is allowed.
    pub fn serve(files: &[(&str, &[u8])]) -> Option<Self> {
        peer("nginx").then(|| Self::of(files, None))
    }

    /// The same over TLS, with a certificate of its own for this host.
    pub fn serve_tls(host: &str, files: &[(&str, &[u8])]) -> Option<Self> {
        (peer("nginx") && peer("openssl")).then(|| Self::of(files, Some(host)))
    }

    fn of(files: &[(&str, &[u8])], tls: Option<&str>) -> Self {
        let directory = scratch("nginx");
        fs::create_dir_all(directory.join("files")).expect("directory");
        for (name, content) in files {
            fs::write(directory.join("files").join(name), content).expect("file");
        }
        if let Some(host) = tls {
            certify(&directory, host);
        }
        // The port is free when it is asked for; somebody else may take it before nginx does.
        let started = (0..5).find_map(|_| start(&directory, tls.is_some()));
        let (child, address) = started.unwrap_or_else(|| {
            let log = fs::read_to_string(directory.join("error.log")).unwrap_or_default();
            panic!("nginx does not start: {log}")
        });
        Self { child, address, directory }
    }

    /// File with the certificate of [`Self::serve_tls`], which is its own authority.
    pub fn certificate(&self) -> String {
        self.directory.join("tls.crt").to_string_lossy().into_owned()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// One line per request: status, connection's serial number, requests on it so far, URI.
    pub fn access_log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("access.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A key and a certificate that it signs itself.
fn certify(directory: &Path, host: &str) {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-keyout", "tls.key", "-out", "tls.crt", "-subj", "/CN=test"])
        .args(["-addext", &format!("subjectAltName=DNS:{host}")])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .expect("run openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn start(directory: &Path, tls: bool) -> Option<(Child, SocketAddr)> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let address = free.local_addr().expect("address");
    drop(free);
    fs::write(directory.join("nginx.conf"), configuration(address, tls)).expect("configuration");
    let mut child = Command::new(program())
        .arg("-p")
        .arg(directory)
        .args(["-c", "nginx.conf", "-e", "error.log"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run nginx");
    let begin = Instant::now();
    while begin.elapsed() < BOUND {
        if child.try_wait().expect("wait").is_some() {
            return None;
        }
        if TcpStream::connect(address).is_ok() {
            return Some((child, address));
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn program() -> &'static str {
    // Debian keeps it where an ordinary user's PATH does not reach.
    if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" }
}

fn configuration(address: SocketAddr, tls: bool) -> String {
    let tls = match tls {
        true => {
            " ssl; ssl_certificate tls.crt; ssl_certificate_key tls.key; \
             ssl_protocols TLSv1.2 TLSv1.3"
        }
        false => "",
    };
    format!(
        r#"
daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 256; }}
http {{
    log_format plain "$status $connection $connection_requests $uri";
    access_log access.log plain;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    gzip on;
    gzip_types text/plain;
    gzip_min_length 256;
    gzip_proxied any;
    default_type text/plain;
    server {{
        listen {address}{tls};
        root files;
        location = /echo-host {{ return 200 "$http_host\n"; }}
    }}
}}
"#
    )
}
