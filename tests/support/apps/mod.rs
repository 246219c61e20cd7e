//! Applications as the ends of tunnels: each sends back what it reads, in its own way of
//! reading, and ends when the other side has.
//!
//! What an application asks of its socket (FIONREAD, splice(2), an edge from epoll) is what
//! a path through the kernel may get wrong. [`own`] holds ways of reading written here;
//! [`Program`] runs an interpreter with one of the sources beside this file.

pub mod own;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{proxy::scratch, skip};

/// How long an interpreter may take to start; Java compiles first.
const START: Duration = Duration::from_secs(60);

/// An interpreter and what it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `node`
    Node,
    /// `python3`
    Python,
    /// `java`, from source
    Java,
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    source: PathBuf,
    ports: BTreeMap<String, u16>,
}

impl Kind {
    fn command(self) -> (&'static str, &'static [&'static str], &'static str, &'static str) {
        const SMALL: &[&str] = &["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m"];
        match self {
            Kind::Node => ("node", &[], "js", include_str!("echo.js")),
            Kind::Python => ("python3", &[], "py", include_str!("echo.py")),
            Kind::Java => ("java", SMALL, "java", include_str!("Echo.java")),
        }
    }

    /// Its ways of reading.
    pub fn modes(self) -> [&'static str; 2] {
        match self {
            Kind::Node => ["pipe", "pull"],
            Kind::Python => ["socket", "asyncio"],
            Kind::Java => ["streams", "channels"],
        }
    }
}

impl Program {
    /// Starts it; none, and a line that says so, where the interpreter is not installed.
    pub fn start(kind: Kind) -> Option<Self> {
        let (program, options, extension, text) = kind.command();
        let source = scratch(extension);
        fs::write(&source, text).expect("write source");
        let mut command = Command::new(program);
        command.args(options).arg(&source).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Its complaints belong to the test's output.
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) => {
                skip::say(&format!("{kind:?} as an application: {program}: {e}"));
                let _ = fs::remove_file(&source);
                return None;
            }
        };
        let stdout = child.stdout.take().expect("stdout");
        let mut running = Self { child, source, ports: BTreeMap::new() };
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        while running.ports.len() < kind.modes().len() {
            let line = receiver
                .recv_timeout(START)
                .unwrap_or_else(|e| panic!("{kind:?} does not listen: {e}, {running:?}"));
            let words: Vec<_> = line.split(' ').collect();
            let &["listening", mode, port] = &words[..] else { panic!("{kind:?}: {line}") };
            running.ports.insert(mode.to_owned(), port.parse().expect("a port"));
        }
        Some(running)
    }

    /// Where a mode listens.
    pub fn addr(&self, mode: &str) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[mode]).into()
    }

    /// Has it connect to `target` by CONNECT, as a client of `proxy`.
    pub fn connect(&mut self, mode: &str, proxy: SocketAddr, target: SocketAddr) {
        let line = format!("connect {mode} {} {} {target}\n", proxy.ip(), proxy.port());
        let stdin = self.child.stdin.as_mut().expect("stdin");
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).expect("it listens");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.source);
    }
}
