//! curl as a client.
//!
//! A machine without it fails the test, unless `UNDERPASS_TESTS_SKIP_PEERS=1` says that
//! this is known; then the test says that it was skipped.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::clock::{BOUND, within};

/// What a run of curl left.
#[derive(Debug)]
pub struct Curled {
    /// Exit status.
    pub code: i32,
    /// Standard output, with the head where `-i` asked for it.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Curled {
    /// Output as text; fails if curl failed.
    pub fn text(&self) -> String {
        assert_eq!(self.code, 0, "curl: {}", self.stderr);
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Whether a program of another project is there. Without it: a failure, or a line saying
/// that the test was skipped.
pub fn peer(program: &str) -> bool {
    let there = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .any(|directory| directory.join(program).is_file());
    let skip = std::env::var_os("UNDERPASS_TESTS_SKIP_PEERS").is_some_and(|value| value == "1");
    assert!(
        there || skip,
        "this test needs {program}; install it, or set UNDERPASS_TESTS_SKIP_PEERS=1"
    );
    if !there {
        println!("skipped: no {program} here");
    }
    there
}

/// Runs curl to its end.
pub async fn curl(args: &[&str]) -> Curled {
    let run = command(args).output();
    let output = within(BOUND, "curl to end", run).await.expect("run curl");
    Curled {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A curl whose output is read while it runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Starts curl.
pub fn start(args: &[&str]) -> Running {
    let mut child = command(args).spawn().expect("run curl");
    let stdout = child.stdout.take().expect("stdout");
    Running { child, lines: BufReader::new(stdout).lines() }
}

impl Running {
    /// The next line it prints; `None` at the end.
    pub async fn line(&mut self) -> Option<String> {
        within(BOUND, "a line from curl", self.lines.next_line()).await.expect("read curl")
    }

    /// Waits for its end.
    pub async fn code(mut self) -> i32 {
        let status = within(BOUND, "curl to end", self.child.wait()).await.expect("wait");
        status.code().unwrap_or(-1)
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new("curl");
    // No settings or proxies of the person who runs the tests.
    command.arg("-q").args(["--silent", "--show-error", "--max-time", "30"]).args(args);
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}
