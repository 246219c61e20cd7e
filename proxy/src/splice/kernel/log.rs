//! What the programs log, on its way to `tracing`.

use std::{
    fmt, io,
    os::fd::{AsRawFd, RawFd},
};

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};
use tracing::Level;

/// Target of what the programs log. `UNDERPASS_LOG=underpass::bpf=trace` switches it on; a
/// program loaded while it is off has no log statement left in it.
pub const LOG_TARGET: &str = "underpass::bpf";

/// The programs' log.
pub struct KernelLog(EbpfLogger<Sink>);

/// Takes the log of an object; before its programs are loaded, or they would not find it.
pub(super) fn take(bpf: &mut Ebpf) -> Option<KernelLog> {
    EbpfLogger::init_with_logger(bpf, Sink).ok().map(KernelLog)
}

impl KernelLog {
    /// Passes on what is there.
    pub fn flush(&mut self) {
        self.0.flush();
    }

    /// Passes on what comes, for ever; to be dropped with the runtime it runs on.
    pub async fn drain(self) -> io::Result<()> {
        // SAFETY: the descriptor is the ring buffer's own: the same, and open, as long as
        // `self` lives, which the `AsyncFd` owns.
        let mut log = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?;
        loop {
            let mut ready = log.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

impl AsRawFd for KernelLog {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl fmt::Debug for KernelLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KernelLog")
    }
}

/// Turns aya-log's records into events.
struct Sink;

impl log::Log for Sink {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(target: LOG_TARGET, "{text}"),
            log::Level::Warn => tracing::warn!(target: LOG_TARGET, "{text}"),
            log::Level::Info => tracing::info!(target: LOG_TARGET, "{text}"),
            log::Level::Debug => tracing::debug!(target: LOG_TARGET, "{text}"),
            log::Level::Trace => tracing::trace!(target: LOG_TARGET, "{text}"),
        }
    }

    fn flush(&self) {}
}

/// The level that `tracing` would show, in the numbers of aya-log. Errors and warnings of
/// programs are rare and stay in; per-message levels are compiled out by the verifier.
pub(super) fn level() -> u8 {
    if tracing::enabled!(target: LOG_TARGET, Level::TRACE) {
        aya_log::Level::Trace as u8
    } else if tracing::enabled!(target: LOG_TARGET, Level::DEBUG) {
        aya_log::Level::Debug as u8
    } else {
        aya_log::Level::Warn as u8
    }
}
