//! What this kernel offers, found by trying it on private loopback connections.
//!
//! Invariant: no version is compared and nothing outlives a probe; every socket and pipe
//! is its own, on a port the system picked, and every wait is bounded. `doctor` prints the
//! [`Report`]; start-up asks [`kernel_tier`].

use std::{
    fs, io,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::kernel::{self, Kernel, has_capabilities};

mod bypass;
mod ktls;
mod mechanisms;
mod redirect;
mod rig;
mod sent;
mod sockets;
mod steering;

pub(crate) use ktls::ktls;
use sockets::Pair;

/// Longest wait for bytes that were sent over loopback.
const PATIENCE: Duration = Duration::from_secs(2);

/// More than one segment and more than one pipe page, less than any default buffer.
const BULK_BYTES: usize = 48 * 1024;

/// A mechanism that takes so much for a receiver that does not read knows no bound: more
/// than all the buffers and budgets on the way.
const MOST_ACCEPTED_BYTES: usize = 16 * 1024 * 1024;

/// Everything that was tried.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of the proxy.
    pub version: &'static str,
    /// Release of the kernel that runs.
    pub kernel: String,
    /// Whether this is the Windows Subsystem for Linux.
    pub wsl: bool,
    /// Whether the process has CAP_NET_ADMIN and CAP_BPF (or CAP_SYS_ADMIN).
    pub privileged: bool,
    /// One row per mechanism, in the order of preference.
    pub mechanisms: Vec<Row>,
}

/// One mechanism: there, or not and why.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Stable name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Whether it worked.
    pub available: bool,
    /// Why it did not, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How it works, where there are several ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

impl Row {
    fn new(name: &'static str, purpose: &'static str, result: Result<(), String>) -> Self {
        Self { name, purpose, available: result.is_ok(), reason: result.err(), note: None }
    }
}

/// Tries each mechanism.
///
/// Implements: REQ-TUN-002
pub fn report() -> Report {
    let mut mechanisms = Vec::new();
    let mut row = |name, purpose, result| mechanisms.push(Row::new(name, purpose, result));
    let loaded = Kernel::load().map(Arc::new).map_err(|reason| reason.to_string());
    row(
        "kernel_btf",
        "know where fields of the kernel's structures lie",
        kernel::describes_itself(),
    );
    row(
        "bpf_load",
        "load BPF programs and attach them to sockhashes",
        loaded.as_ref().map(|_| ()).map_err(Clone::clone),
    );
    match &loaded {
        Ok(kernel) => mechanisms.extend(mechanisms::run(kernel).rows),
        Err(reason) => {
            row("local_bypass", mechanisms::LOCAL_BYPASS, Err(reason.clone()));
            row("engine_kernel", mechanisms::ENGINE_KERNEL, Err(reason.clone()));
        }
    }
    drop(loaded);
    let mut row = |name, purpose, result| mechanisms.push(Row::new(name, purpose, text(result)));
    row("engine_pipe", "tunnels moved by splice(2)", splice());
    row("engine_copy", "tunnels copied in userspace", Ok(()));
    row("reuseport", "a listener per worker", sockets::reuseport());
    let mut row = |name, purpose, result| mechanisms.push(Row::new(name, purpose, result));
    row("accept_steering", "the worker of a connection, by BPF", steering::steering());
    let mut row = |name, purpose, result| mechanisms.push(Row::new(name, purpose, text(result)));
    row("fastopen_connect", "TCP Fast Open to upstreams", sockets::fastopen());
    mechanisms.push(ktls::row());

    let version = fs::read_to_string("/proc/version").unwrap_or_default();
    Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        wsl: is_wsl(&version),
        privileged: has_capabilities(),
        mechanisms,
    }
}

/// The programs, loaded and tried, or why there are none, in one line for the log. What may
/// be used of them is in `Kernel::abilities`.
///
/// Implements: REQ-TUN-002
pub fn kernel_tier() -> Result<Arc<Kernel>, String> {
    let begin = Instant::now();
    let kernel = Arc::new(Kernel::load().map_err(|reason| reason.to_string())?);
    let loaded = begin.elapsed();
    mechanisms::run(&kernel);
    tracing::debug!("programs loaded in {loaded:?}, tried in {:?}", begin.elapsed() - loaded);
    Ok(kernel)
}

fn text(result: io::Result<()>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}

fn is_wsl(version: &str) -> bool {
    version.to_ascii_lowercase().contains("microsoft")
}

/// Moves a pattern from one connection to another one through a pipe.
fn splice() -> io::Result<()> {
    use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

    let mut from = Pair::connect(PATIENCE)?;
    let mut to = Pair::connect(PATIENCE)?;
    let (pipe_out, pipe_in) = pipe_with(PipeFlags::CLOEXEC)?;
    let pattern = sockets::pattern(BULK_BYTES);
    from.write_far(&pattern)?;

    let mut moved = 0;
    while moved < BULK_BYTES {
        let wanted = BULK_BYTES - moved;
        let mut held = splice(&from.near, None, &pipe_in, None, wanted, SpliceFlags::MOVE)?;
        if held == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        moved += held;
        while held > 0 {
            held -= splice(&pipe_out, None, &to.near, None, held, SpliceFlags::MOVE)?;
        }
    }
    to.expect_far(&pattern)
}

#[cfg(test)]
mod tests {
    use mantra_macros::req_test;

    use super::*;

    #[req_test("REQ-TUN-002")]
    #[test]
    fn every_mechanism_that_is_not_there_has_a_reason() {
        let report = report();
        assert!(!report.kernel.is_empty());
        for row in &report.mechanisms {
            assert_eq!(row.available, row.reason.is_none(), "{row:?}");
            let reason = row.reason.as_deref().unwrap_or("there");
            assert!(!reason.is_empty() && !reason.contains('\n'), "{row:?}");
        }
    }

    #[req_test("REQ-TUN-002")]
    #[test]
    fn splice_moves_bytes_between_connections() {
        splice().unwrap();
    }

    #[test]
    fn wsl_is_told_by_its_kernel() {
        assert!(is_wsl("Linux version 5.15.90.1-microsoft-standard-WSL2 (oe-user@oe-host)"));
        assert!(!is_wsl("Linux version 6.18.44 (builder@host) (gcc (GCC) 15.3.0)"));
    }
}
