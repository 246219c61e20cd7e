//! Services that a fleet of proxies shares: a folder, a Redis of its own on a free port, and a
//! server that speaks as S3 does (the package `moto` of Python). Killed by their process ids.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{address, clock::BOUND, curl::peer, models, proxy::scratch, skip, tls::Authority};

/// What makes a bucket, which a proxy does not.
const BUCKET: &str = "fleet";

const PASSWORD: &str = "s3cret-of-the-fleet";

/// A service.
#[derive(Debug)]
pub struct Shared {
    kind: Kind,
    directory: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    Redis,
    /// With a password, and for `localhost` only.
    RedisTls,
    S3,
}

impl Shared {
    /// A folder, which is made by who uses it first.
    pub fn folder() -> Self {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        Self { kind: Kind::Folder, directory: scratch("fleet"), address, child: None }
    }

    /// Redis; `None` if there is none and that is allowed.
    pub fn redis() -> Option<Self> {
        peer("redis-server").then(|| Self::served(Kind::Redis))
    }

    /// The same over TLS and with a password, which are in [`Self::path`] as `ca.pem` and
    /// `password`.
    pub fn redis_tls() -> Option<Self> {
        peer("redis-server").then(|| Self::served(Kind::RedisTls))
    }

    /// S3; `None` if this Python has no `moto`.
    pub fn s3() -> Option<Self> {
        let python = models::python();
        let script = "import moto.server";
        let tried = Command::new(&python).args(["-c", script]).output();
        if !tried.is_ok_and(|output| output.status.success()) {
            skip::say(&format!("an S3 that proxies share: {python} has no package `moto[server]`"));
            return None;
        }
        let this = Self::served(Kind::S3);
        this.make_bucket();
        Some(this)
    }

    fn served(kind: Kind) -> Self {
        let directory = scratch("fleet");
        fs::create_dir_all(&directory).expect("directory");
        if kind == Kind::RedisTls {
            certify(&directory);
        }
        // The port is free when it is asked for; somebody else may take it before it is used.
        let started = (0..5).find_map(|_| {
            let address = match kind {
                // What has a name is at its address.
                Kind::RedisTls => localhost(),
                _ => address::free(),
            };
            Some((start(kind, &directory, address)?, address))
        });
        let (child, address) = started.unwrap_or_else(|| panic!("{kind:?} does not start"));
        Self { kind, directory, address, child: Some(child) }
    }

    /// As the section `[cache.fleet]`, with more keys of it.
    pub fn section(&self, more: &str) -> String {
        let address = self.address;
        let own = match self.kind {
            Kind::Folder => format!("url = \"file://{}\"", self.directory.display()),
            Kind::Redis => format!("url = \"redis://{address}/1\""),
            Kind::RedisTls => format!(
                "url = \"rediss://localhost:{}\"\npassword_file = \"{}\"",
                address.port(),
                self.path("password").display()
            ),
            Kind::S3 => format!(
                "url = \"s3://{BUCKET}/edge\"\nregion = \"us-east-1\"\n\
                 endpoint = \"http://{address}\"\naccess_key_id = \"test\"\n\
                 secret_access_key = \"test\""
            ),
        };
        format!("[cache.fleet]\n{own}\n{more}")
    }

    /// A file of its own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The files of a folder whose names have this in them.
    pub fn files(&self, part: &str) -> Vec<PathBuf> {
        fn add(folder: &Path, to: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => add(&path, to),
                    path => to.push(path),
                }
            }
        }
        let mut all = Vec::new();
        add(&self.directory, &mut all);
        all.retain(|path| path.to_string_lossy().contains(part));
        all
    }

    /// It answers nothing any more, and keeps its connections.
    pub fn hangs(&self) {
        self.signal(Signal::STOP);
    }

    /// It answers again.
    pub fn goes_on(&self) {
        self.signal(Signal::CONT);
    }

    /// It is gone.
    pub fn dies(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// It is there again, at the same address and with nothing in it.
    pub fn comes_back(&mut self) {
        self.child = start(self.kind, &self.directory, self.address);
        assert!(self.child.is_some(), "{:?} does not start again", self.kind);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32));
        kill_process(pid.expect("a process"), signal).expect("a signal");
    }

    fn make_bucket(&self) {
        let mut stream = TcpStream::connect(self.address).expect("connect");
        let head = format!(
            "PUT /{BUCKET} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        );
        stream.set_read_timeout(Some(BOUND)).expect("a limit");
        stream.write_all(head.as_bytes()).expect("ask");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.dies();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A port that is free now.
fn localhost() -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    free.local_addr().expect("address")
}

fn certify(directory: &Path) {
    let authority = Authority::new("ca");
    let issued = authority.server(&["localhost"]);
    for (name, text) in [
        ("ca.pem", &*authority.pem),
        ("tls.crt", &issued.certificate),
        ("tls.key", &issued.key),
        ("password", PASSWORD),
    ] {
        fs::write(directory.join(name), text).expect("a file");
    }
}

fn start(kind: Kind, directory: &Path, address: SocketAddr) -> Option<Child> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut command = match kind {
        Kind::Folder => return None,
        Kind::Redis => {
            let mut command = Command::new("redis-server");
            command.args(["--bind", &host, "--port", &port, "--save", "", "--maxmemory"]);
            command.args(["64mb", "--dir"]).arg(directory);
            command
        }
        Kind::RedisTls => {
            let mut command = Command::new("redis-server");
            command.args(["--bind", &host, "--port", "0", "--tls-port", &port, "--save", ""]);
            command.args(["--tls-auth-clients", "no", "--requirepass", PASSWORD]);
            for (option, file) in
                [("cert-file", "tls.crt"), ("key-file", "tls.key"), ("ca-cert-file", "ca.pem")]
            {
                command.arg(format!("--tls-{option}")).arg(directory.join(file));
            }
            command
        }
        Kind::S3 => {
            let mut command = Command::new(models::python());
            command.args(["-m", "moto.server", "-H", &host, "-p", &port]);
            command
        }
    };
    let quiet = || Stdio::null();
    let mut child = command.stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().expect("run it");
    let begin = Instant::now();
    while begin.elapsed() < BOUND {
        if child.try_wait().expect("wait").is_some() {
            return None;
        }
        if TcpStream::connect(address).is_ok() {
            return Some(child);
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
