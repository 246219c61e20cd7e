//! The `underpass` binary as a child process.
//!
//! Built once per test process, started with flags or a configuration, port 0 everywhere,
//! and looked at only through what DESIGN promises: stdout lines, stderr, exit status,
//! admin endpoint, `/proc`. Dropping a [`Proxy`] kills it and waits for it.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use proxy_ebpf::Protection;
use rustix::process::{Pid, Signal, kill_process};

pub use crate::binary::{binary, command_without, run, unprotected_binary};
use crate::{
    clock::{BOUND, eventually},
    message::Message,
    metrics::Metrics,
    process,
    wire::Wire,
    without::Without,
};

/// How a proxy is to be started.
#[derive(Debug)]
pub struct ProxyBuilder {
    args: Vec<String>,
    log: Option<String>,
    without: Option<Without>,
    unprotected: Vec<Protection>,
    config: Option<String>,
    env: Vec<(String, String)>,
    listening: Vec<std::net::TcpListener>,
    stderr_unread: bool,
    /// Stdout lines that make it ready.
    expected: usize,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    listening: HashMap<String, SocketAddr>,
    stderr: Arc<Mutex<String>>,
    /// Reads stderr to its end.
    capture: Option<JoinHandle<()>>,
    /// Stderr, where nobody reads it.
    unread: Option<ChildStderr>,
    /// Lines of stdout behind those that made it ready.
    lines: Mutex<mpsc::Receiver<String>>,
    config: Option<PathBuf>,
}

/// Whether every proxy of a quick command allows local bypass, and begins it with the first
/// message: `UNDERPASS_TEST_LOCAL_BYPASS=1` plays tests of inspected HTTP over it.
fn local_bypass_everywhere() -> bool {
    std::env::var_os("UNDERPASS_TEST_LOCAL_BYPASS").is_some_and(|value| value == "1")
}

/// The same for a configuration, which has this among the keys of a listener and an upstream.
pub fn local_bypass_key() -> &'static str {
    if local_bypass_everywhere() { LOCAL_BYPASS } else { "" }
}

const LOCAL_BYPASS: &str = "local_bypass = true\n";

impl ProxyBuilder {
    fn quick(command: &str, args: &[&str]) -> Self {
        let args = [&[command, "--listen", "127.0.0.1:0"], args].concat();
        let args = args.into_iter().map(str::to_owned).collect();
        Self::new(args, None, 2).args(["--admin", "127.0.0.1:0", "--workers", "1"])
    }

    fn new(args: Vec<String>, config: Option<String>, expected: usize) -> Self {
        let (unprotected, env, listening) = (Vec::new(), Vec::new(), Vec::new());
        let (log, without, stderr_unread) = (None, None, false);
        Self { args, log, without, unprotected, config, env, listening, stderr_unread, expected }
    }

    /// More arguments.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// `--limit KEY=VALUE`
    pub fn limit(self, key: &str, value: &str) -> Self {
        self.args(["--limit".to_owned(), format!("{key}={value}")])
    }

    /// `--splice ENGINE`, with `--local-bypass` where it belongs to it.
    pub fn splice(self, engine: crate::Engine) -> Self {
        self.args(engine.args())
    }

    /// Another address than 127.0.0.1:0 for the listener of a quick command.
    pub fn listen(self, address: SocketAddr) -> Self {
        self.instead("--listen", address)
    }

    /// Another address than 127.0.0.1:0 for the admin endpoint of a quick command.
    pub fn admin(self, address: SocketAddr) -> Self {
        self.instead("--admin", address)
    }

    fn instead(mut self, flag: &str, address: SocketAddr) -> Self {
        let at = self.args.iter().position(|arg| arg == flag).expect("a quick command");
        self.args[at + 1] = address.to_string();
        self
    }

    /// What of the process log is written, as in `UNDERPASS_LOG`.
    pub fn log(mut self, filter: &str) -> Self {
        self.log = Some(filter.to_owned());
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Sockets that it gets as a service manager passes them (sd_listen_fds(3)).
    pub fn activated(mut self, listening: Vec<std::net::TcpListener>) -> Self {
        self.listening = listening;
        self
    }

    /// Gives it a pipe of 4 KiB as stderr that nobody reads, until [`Proxy::read_stderr`].
    pub fn stderr_unread(mut self) -> Self {
        self.stderr_unread = true;
        self
    }

    /// Takes something away from it.
    pub fn without(mut self, what: Without) -> Self {
        self.without = Some(what);
        self
    }

    /// Leaves these protections out of it.
    pub fn unprotected(mut self, gone: &[Protection]) -> Self {
        self.unprotected.extend(gone);
        self
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> Proxy {
        let mut gone = self.unprotected.clone();
        let told = self.config.as_ref().is_none_or(|text| text.contains(LOCAL_BYPASS));
        let bypasses = local_bypass_everywhere() && told;
        if bypasses {
            gone.push(Protection::Kept);
        }
        let mut command = command_without(&gone);
        command.args(&self.args);
        if bypasses && self.config.is_none() && !self.args.iter().any(|arg| arg == "--local-bypass")
        {
            command.arg("--local-bypass");
        }
        command.envs(self.env.iter().cloned());
        if let Some(filter) = &self.log {
            command.env("UNDERPASS_LOG", filter);
        }
        if let Some(what) = self.without {
            what.confine(&mut command);
        }
        let config = self.config.map(|text| {
            let path = scratch("toml");
            fs::write(&path, text).expect("write configuration");
            path
        });
        if let Some(path) = &config {
            command.arg("--config").arg(path);
        }
        if !self.listening.is_empty() {
            command = process::activated(&command, self.listening);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start underpass");
        let pipe = child.stderr.take().expect("stderr");
        let stderr = Arc::default();
        let (unread, capture) = match self.stderr_unread {
            true => {
                rustix::pipe::fcntl_setpipe_size(&pipe, 4096).expect("F_SETPIPE_SZ");
                (Some(pipe), None)
            }
            false => (None, Some(capture(pipe, Arc::clone(&stderr)))),
        };
        let lines = lines(child.stdout.take().expect("stdout"));
        let mut proxy = Proxy {
            child,
            listening: HashMap::new(),
            stderr,
            capture,
            unread,
            lines: Mutex::new(lines),
            config,
        };
        let begin = Instant::now();
        while proxy.listening.len() < self.expected {
            let line = proxy.lines.lock().expect("lines");
            match line.recv_timeout(BOUND.saturating_sub(begin.elapsed())) {
                Ok(text) => {
                    drop(line);
                    proxy.listening.extend(listening(&text));
                }
                Err(e) => panic!(
                    "not ready ({e}): {:?} of {} listeners, arguments {:?}",
                    proxy.listening, self.expected, self.args
                ),
            }
        }
        proxy
    }
}

impl Proxy {
    /// `underpass reverse` in front of one origin.
    pub fn reverse(origin: SocketAddr) -> ProxyBuilder {
        ProxyBuilder::quick("reverse", &["--to", &format!("http://{origin}")])
    }

    /// `underpass reverse` that passes connections on as they are.
    pub fn tcp(origin: SocketAddr) -> ProxyBuilder {
        ProxyBuilder::quick("reverse", &["--to", &format!("tcp://{origin}")])
    }

    /// `underpass forward`.
    pub fn forward() -> ProxyBuilder {
        ProxyBuilder::quick("forward", &[])
    }

    /// `underpass run` with this configuration. Ready when each listener and the admin
    /// endpoint that it names have said so.
    pub fn config(text: impl Into<String>) -> ProxyBuilder {
        let text = text.into();
        let admin = usize::from(text.contains("[admin]"));
        let expected = text.matches("[[listener]]").count() + admin;
        ProxyBuilder::new(vec!["run".to_owned()], Some(text), expected)
    }

    /// `underpass` with exactly these arguments; ready after `expected` listening lines.
    pub fn command(args: &[&str], expected: usize) -> ProxyBuilder {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        ProxyBuilder::new(args, None, expected)
    }

    /// Address of the only listener.
    pub fn addr(&self) -> SocketAddr {
        let mut others = self.listening.iter().filter(|(name, _)| *name != "admin");
        let (_, address) = others.next().expect("a listener");
        assert!(others.next().is_none(), "more than one listener: {:?}", self.listening);
        *address
    }

    /// Address of the listener with this name.
    pub fn listener(&self, name: &str) -> SocketAddr {
        let found = self.listening.get(name);
        *found.unwrap_or_else(|| panic!("no listener {name}: {:?}", self.listening))
    }

    /// Whether it has said so of such a listener.
    pub fn is_listening(&self, is_it: impl Fn(&str, SocketAddr) -> bool) -> bool {
        self.listening.iter().any(|(name, address)| is_it(name, *address))
    }

    /// Address of the admin endpoint.
    pub fn admin(&self) -> SocketAddr {
        self.listener("admin")
    }

    /// Connects a raw client.
    pub async fn connect(&self) -> Wire {
        Wire::connect(self.addr()).await
    }

    /// Connects a raw client and sends.
    pub async fn open(&self, bytes: impl AsRef<[u8]>) -> Wire {
        Wire::open(self.addr(), bytes).await
    }

    /// Asks the admin endpoint.
    pub async fn ask_admin(&self, method: &str, path: &str) -> Message {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin()
        );
        Wire::open(self.admin(), request).await.read_response_to(method).await
    }

    /// `/metrics`
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.ask_admin("GET", "/metrics").await.text())
    }

    /// `/tunnels`: the list, whether bare or as a member of an object.
    pub async fn tunnels(&self) -> Vec<serde_json::Value> {
        let answer = self.ask_admin("GET", "/tunnels").await;
        let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let list = json.as_array().or_else(|| json["tunnels"].as_array());
        list.unwrap_or_else(|| panic!("no list of tunnels: {json}")).clone()
    }

    /// Waits until so many tunnels are open.
    pub async fn until_tunnels(&self, count: usize) {
        let what = format!("{count} open tunnels");
        eventually(&what, async || self.tunnels().await.len() == count).await;
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("stderr").clone()
    }

    /// Begins to read what nobody has read.
    pub fn read_stderr(&mut self) {
        let pipe = self.unread.take().expect("started with `stderr_unread`");
        self.capture = Some(capture(pipe, Arc::clone(&self.stderr)));
    }

    /// Waits for a line on stderr that contains all of `parts`.
    pub async fn log_line(&self, parts: &[&str]) -> String {
        let find = || {
            let text = self.stderr();
            text.lines().find(|line| parts.iter().all(|p| line.contains(p))).map(str::to_owned)
        };
        eventually(&format!("a log line with {parts:?}"), async || find().is_some()).await;
        find().expect("found before")
    }

    /// Takes note of what has begun to listen since it was ready.
    pub fn look_for_listeners(&mut self) {
        let lines = self.lines.get_mut().expect("lines");
        self.listening.extend(lines.try_iter().filter_map(|line| listening(&line)));
    }

    /// The file that configures it.
    pub fn config_path(&self) -> &Path {
        self.config.as_deref().expect("started with a configuration")
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        process::resident_bytes(self.pid())
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        process::descriptors(self.pid())
    }

    /// Sends SIGTERM.
    pub fn term(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("pid");
        kill_process(pid, signal).expect("signal");
    }

    /// Waits until it has ended by itself; [`Proxy::stderr`] is complete then.
    pub async fn exited(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                if let Some(capture) = self.capture.take() {
                    capture.join().expect("read stderr");
                }
                return status;
            }
            assert!(begin.elapsed() < BOUND, "the proxy still runs after {BOUND:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(path) = &self.config {
            let _ = fs::remove_file(path);
        }
        if thread::panicking() {
            eprintln!("--- stderr of the proxy\n{}---", self.stderr());
        }
    }
}

/// A path in the temporary directory that nobody else uses.
pub fn scratch(extension: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("underpass-test-{}-{number}.{extension}", std::process::id());
    std::env::temp_dir().join(name)
}

/// `listening NAME http://ADDRESS`, or `tcp://`.
fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let (name, url) = line.strip_prefix("listening ")?.split_once(' ')?;
    let (_, address) = url.trim().split_once("://")?;
    let address = address.trim_end_matches('/');
    Some((name.to_owned(), address.parse().ok()?))
}

fn capture(mut pipe: ChildStderr, sink: Arc<Mutex<String>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut chunk) {
            sink.lock().expect("stderr").push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
    })
}

fn lines(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // Read on when nobody listens any more: a full pipe would stop the proxy.
            let _ = sender.send(line);
        }
    });
    receiver
}
