//! What this kernel offers, found by trying it on private loopback connections.
//!
//! Invariant: no version is compared and nothing outlives a probe; every socket and pipe
//! is its own, on a port the system picked, and every wait is bounded. `doctor` prints the
//! [`Report`]; start-up asks [`kernel_tier`].

use std::{fs, io, sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    kernel::{Kernel, has_capabilities},
    probe_kernel,
    probe_sockets::{self, Pair},
};

/// Longest wait for bytes that were sent over loopback.
const PATIENCE: Duration = Duration::from_secs(2);

/// More than one segment and more than one pipe page, less than any default buffer.
const PATTERN_BYTES: usize = 48 * 1024;

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
}

/// Tries each mechanism.
///
/// Implements: REQ-TUN-002
pub fn report() -> Report {
    let mut mechanisms = Vec::new();
    let mut row = |name, purpose, result: Result<(), String>| {
        let available = result.is_ok();
        mechanisms.push(Row { name, purpose, available, reason: result.err() });
    };

    let kernel = Kernel::load().map(Arc::new);
    let loaded = kernel.as_ref().map(|_| ()).map_err(ToString::to_string);
    row("bpf_load", "load BPF programs and attach them to sockhashes", loaded);
    let tier = kernel.map_err(|reason| reason.to_string()).and_then(tried);
    row("engine_kernel", "tunnels moved by BPF", tier.map(|_| ()));
    row("engine_pipe", "tunnels moved by splice(2)", text(splice()));
    row("engine_copy", "tunnels copied in userspace", Ok(()));
    row("reuseport", "a listener per worker", text(probe_sockets::reuseport()));
    row("fastopen_connect", "TCP Fast Open to upstreams", text(probe_sockets::fastopen()));
    row("ktls", "TLS in the kernel", text(probe_sockets::ktls()));

    let version = fs::read_to_string("/proc/version").unwrap_or_default();
    Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        wsl: is_wsl(&version),
        privileged: has_capabilities(),
        mechanisms,
    }
}

/// Whether tunnels can be moved by BPF, or why not, in one line for the log.
///
/// `--splice kernel` refuses to start with this reason; `auto` says it once and goes on.
///
/// Implements: REQ-TUN-002
pub fn kernel_tier() -> Result<Arc<Kernel>, String> {
    let kernel = Kernel::load().map_err(|reason| reason.to_string())?;
    tried(Arc::new(kernel))
}

/// The programs, once they have done on private connections what tunnels need of them.
fn tried(kernel: Arc<Kernel>) -> Result<Arc<Kernel>, String> {
    kernel.set_needs_pass(probe_kernel::fionread(&kernel)?);
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
    let pattern = probe_sockets::pattern(PATTERN_BYTES);
    from.write_far(&pattern)?;

    let mut moved = 0;
    while moved < PATTERN_BYTES {
        let wanted = PATTERN_BYTES - moved;
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
