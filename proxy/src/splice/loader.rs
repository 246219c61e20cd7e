//! The BPF programs in the kernel: load, attach, enrol sockets, read counters, drain logs.
//!
//! The only file that names aya; above it there is a [`Kernel`] or the reason why there
//! is none. Invariant: nothing is pinned and every handle is closed by `Drop`, so that the
//! kernel takes back programs, maps and enrolments when the process ends, however it ends.

use std::{
    error::Error as _,
    fmt, fs, io,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::{Arc, Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, MapData, MapError, PerCpuArray, SockHash},
    programs::{ProgramError, SkSkb},
};
use aya_log::EbpfLogger;
use proxy_ebpf::{
    ABI_MAP, ABI_VERSION, COUNT_PROGRAM, COUNTERS_MAP, Counter, SOCKETS_MAP, SocketKey,
};
use tokio::io::{Interest, unix::AsyncFd};
use tracing::Level;

// `static EMBEDDED: Result<&[u8], &str>`: the object, or why this build has none.
include!(concat!(env!("OUT_DIR"), "/bpf_object.rs"));

/// Target of what the programs log. `RUST_LOG=underpass::bpf=trace` switches it on; a
/// program loaded while it is off has no log statement left in it.
pub const LOG_TARGET: &str = "underpass::bpf";

/// Why the kernel path is not to be had, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable(String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// The object that this build embeds, or why it has none.
pub fn embedded() -> Result<&'static [u8], &'static str> {
    EMBEDDED
}

/// Programs that are loaded and attached. Dropping it detaches and unloads them.
pub struct Kernel {
    /// Shared with the guards of the enrolled sockets.
    sockets: Arc<Mutex<SockHash<MapData, SocketKey>>>,
    counters: PerCpuArray<MapData, u64>,
    log: Option<KernelLog>,
    /// Holds the programs and their attachment to the sockhash.
    bpf: Ebpf,
}

/// What the programs have done, over all CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pieces handed on to the socket that received them.
    pub passed_messages: u64,
    /// Bytes in them.
    pub passed_bytes: u64,
    /// Pieces without a byte.
    pub empty_messages: u64,
}

/// Kernel-wide numbers of what is loaded, as `bpftool` shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// Programs.
    pub programs: Vec<u32>,
    /// Maps that the programs use.
    pub maps: Vec<u32>,
}

impl Kernel {
    /// Loads and attaches the embedded programs.
    ///
    /// Implements: REQ-TUN-002
    pub fn load() -> Result<Self, Unavailable> {
        Self::load_object(EMBEDDED)
    }

    /// [`load`](Self::load) with another object, or with none and the reason.
    pub fn load_object(object: Result<&[u8], &str>) -> Result<Self, Unavailable> {
        let object = object.map_err(|reason| Unavailable(reason.to_owned()))?;
        let log_level = log_level();
        let mut bpf = EbpfLoader::new()
            // No program needs the types of the running kernel; reading them takes longer
            // than everything else here.
            .btf(None)
            .override_global(aya_log::LEVEL, &log_level, false)
            .load(object)
            .map_err(unavailable)?;
        check_version(&bpf)?;

        let sockets = SockHash::try_from(take(&mut bpf, SOCKETS_MAP)?).map_err(unavailable)?;
        let counters = PerCpuArray::try_from(take(&mut bpf, COUNTERS_MAP)?).map_err(unavailable)?;
        // Before the programs are loaded: they must find the map.
        let log = EbpfLogger::init_with_logger(&mut bpf, Sink).ok().map(KernelLog);

        let program = bpf.program_mut(COUNT_PROGRAM).ok_or_else(other_version)?;
        let program: &mut SkSkb = program.try_into().map_err(unavailable)?;
        program.load().map_err(unavailable)?;
        program.attach(sockets.fd()).map_err(unavailable)?;

        Ok(Self { sockets: Arc::new(Mutex::new(sockets)), counters, log, bpf })
    }

    /// Puts an established TCP socket under the programs, until the guard is dropped.
    ///
    /// Its receive queue has to be empty: the kernel offers whole segments, so that one
    /// that was read in part would be delivered again. Read everything before the guard is
    /// dropped: what the programs passed and nobody has read is lost with the entry.
    pub fn enroll(&self, socket: impl AsFd) -> io::Result<Enrolled> {
        let socket = socket.as_fd();
        let key = rustix::net::sockopt::socket_cookie(socket)?;
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.insert(key, socket.as_raw_fd(), 0).map_err(into_io)?;
        Ok(Enrolled { sockets: Arc::clone(&self.sockets), key })
    }

    /// Reads the counters.
    pub fn counters(&self) -> io::Result<Counters> {
        let sum = |counter: Counter| {
            let values = self.counters.get(&(counter as u32), 0).map_err(into_io)?;
            Ok::<_, io::Error>(values.iter().fold(0u64, |sum, value| sum.wrapping_add(*value)))
        };
        Ok(Counters {
            passed_messages: sum(Counter::PassedMessages)?,
            passed_bytes: sum(Counter::PassedBytes)?,
            empty_messages: sum(Counter::EmptyMessages)?,
        })
    }

    /// What the programs log, once.
    pub fn take_log(&mut self) -> Option<KernelLog> {
        self.log.take()
    }

    /// Numbers of what is loaded.
    pub fn ids(&self) -> io::Result<Ids> {
        let mut ids = Ids::default();
        for (_, program) in self.bpf.programs() {
            let info = program.info().map_err(|error| io::Error::other(error.to_string()))?;
            ids.programs.push(info.id());
            ids.maps.extend(info.map_ids().ok().flatten().unwrap_or_default());
        }
        Ok(ids)
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("ids", &self.ids()).finish_non_exhaustive()
    }
}

/// A socket under the programs. Dropping it takes the socket out again.
pub struct Enrolled {
    sockets: Arc<Mutex<SockHash<MapData, SocketKey>>>,
    key: SocketKey,
}

impl fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolled").field("cookie", &self.key).finish_non_exhaustive()
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        // Gone already where the socket was closed first: the kernel sees to that.
        let _ = sockets.remove(&self.key);
    }
}

/// What the programs log, on its way to `tracing`.
pub struct KernelLog(EbpfLogger<Sink>);

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
fn log_level() -> u8 {
    if tracing::enabled!(target: LOG_TARGET, Level::TRACE) {
        aya_log::Level::Trace as u8
    } else if tracing::enabled!(target: LOG_TARGET, Level::DEBUG) {
        aya_log::Level::Debug as u8
    } else {
        aya_log::Level::Warn as u8
    }
}

fn check_version(bpf: &Ebpf) -> Result<(), Unavailable> {
    let map = bpf.map(ABI_MAP).ok_or_else(other_version)?;
    let version = Array::<_, u32>::try_from(map).map_err(unavailable)?.len();
    if version != ABI_VERSION {
        return Err(Unavailable(format!(
            "the BPF object is of version {version}, the proxy wants {ABI_VERSION}"
        )));
    }
    Ok(())
}

fn take(bpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map, Unavailable> {
    bpf.take_map(name).ok_or_else(other_version)
}

fn other_version() -> Unavailable {
    Unavailable("the BPF object is of another version than the proxy".to_owned())
}

/// One line for whatever went wrong: what the system said, and what would help.
fn unavailable(error: impl Into<EbpfError>) -> Unavailable {
    let error = error.into();
    let reason = match os_error(&error) {
        Some(libc::EPERM | libc::EACCES) if !has_capabilities() => {
            "needs CAP_BPF and CAP_NET_ADMIN".to_owned()
        }
        Some(libc::EPERM | libc::EACCES) => {
            "refused by the kernel though the capabilities are there: lockdown, a seccomp \
             filter, or RLIMIT_MEMLOCK before kernel 5.11"
                .to_owned()
        }
        Some(libc::ENOMEM) => "no memory for BPF: see RLIMIT_MEMLOCK".to_owned(),
        Some(libc::ENOSYS) => "this kernel is built without BPF".to_owned(),
        _ => {
            let text = chain(&error);
            text.lines().next().unwrap_or_default().to_owned()
        }
    };
    Unavailable(reason)
}

/// The system's error at the bottom, where there is one.
fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if code.is_some() {
            return code;
        }
        next = match error.downcast_ref::<ProgramError>() {
            Some(ProgramError::LoadError { io_error, .. }) => Some(io_error),
            _ => error.source(),
        };
    }
    None
}

fn chain(error: &EbpfError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    text
}

fn into_io(error: MapError) -> io::Error {
    os_error(&error)
        .map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

/// Whether this process may load socket programs: CAP_BPF (or, before 5.8, CAP_SYS_ADMIN)
/// and CAP_NET_ADMIN are effective.
pub(crate) fn has_capabilities() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    const BPF: u64 = 1 << 39;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let effective = effective.unwrap_or_default();
    effective & NET_ADMIN != 0 && effective & (BPF | SYS_ADMIN) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[mantra_macros::req_test("REQ-TUN-002")]
    #[test]
    fn a_build_without_programs_says_why() {
        let reason = Kernel::load_object(Err("built for userspace only")).unwrap_err();
        assert_eq!(reason.to_string(), "built for userspace only");
    }

    #[test]
    fn an_object_that_is_none_is_one_line() {
        let reason = Kernel::load_object(Ok(b"not an object")).unwrap_err().to_string();
        assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}");
    }

    #[test]
    fn the_systems_error_is_found_below_others() {
        let denied = || io::Error::from_raw_os_error(libc::EPERM);
        let error = MapError::CreateError { name: "UP_ABI".to_owned(), io_error: denied() };
        assert_eq!(os_error(&EbpfError::from(error)), Some(libc::EPERM));
    }
}
